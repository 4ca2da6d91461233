"""Who asks for seats, who is charged, and what else a request says of itself.

An `Attribution` is made once, where a request comes in, and travels whole: with the command, the
ticket and the grant, into records, messages between nodes, answers, tokens and logs. Each of these
forms is made here and nowhere else, so a new attribute is a field of the message ``Attributes`` and
a field of this class.

A node carries what it does not know: where a newer node has written an attribute that this one has
never heard of, the message goes on as it came, from the ticket to the grant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from seatkeeper.core.validate import Malformed

PRIORITY_MAX = 1_000


class Attributes(Protocol):
    """The message ``Attributes``: what a request says beside its project and its priority."""

    def ByteSize(self) -> int:  # noqa: N802 - protobuf's name
        """Return how long it is when it is written; 0: it says nothing."""
        ...

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """Return it as it is written."""
        ...

    def ParseFromString(self, serialized: bytes, /) -> int:  # noqa: N802 - protobuf's name
        """Become what was written."""
        ...


class Attributed(Protocol):
    """A message that carries an attribution: a ticket's or a grant's, stored or shown."""

    holder: str
    project: str
    priority: int

    @property
    def attributes(self) -> Attributes:
        """What else the request said."""
        ...


class Request(Protocol):
    """The message ``Acquire``, as far as it says for whom it asks."""

    project: str
    priority: int

    @property
    def attributes(self) -> Attributes:
        """What else it says."""
        ...


@dataclass(frozen=True, slots=True)
class Attribution:
    """For whom seats are asked, waited for and held."""

    holder: str
    """Who holds."""
    project: str
    """Who is charged."""
    priority: int = 0
    """Higher is served earlier."""
    kept: bytes = field(default=b"", repr=False, compare=False)
    """The message ``Attributes`` as it was read, where it says what this node does not know."""

    @classmethod
    def asked(cls, request: Request, *, holder: str, project: str) -> Attribution:
        """Return the attribution of a request that was checked.

        ``holder`` and ``project`` are the session's. What this node does not know of the request
        is left out: it could not be checked, and records hold only what was checked.
        """
        return cls(holder, request.project or project, request.priority)

    @classmethod
    def of(cls, message: Attributed) -> Attribution:
        """Return the attribution that a record, or a message of another node, carries."""
        more = message.attributes
        kept = more.SerializeToString() if more.ByteSize() else b""
        return cls(message.holder, message.project, message.priority, kept)

    def write(self, message: Attributed) -> None:
        """Put it into a message, with what was kept."""
        message.holder = self.holder
        message.project = self.project
        message.priority = self.priority
        if self.kept:
            message.attributes.ParseFromString(self.kept)

    def claims(self) -> dict[str, object]:
        """Return what a token says of it."""
        return {"sub": self.holder, "project": self.project}

    def facts(self) -> dict[str, object]:
        """Return what logs and events say of it."""
        return {"holder": self.holder, "project": self.project, "priority": self.priority}


def check(request: Request) -> None:
    """Check what a request says of itself, but for its project, which is a name like others.

    Raises ``Malformed``.
    """
    if abs(request.priority) > PRIORITY_MAX:
        raise Malformed(
            "priority", f"{request.priority} is not from -{PRIORITY_MAX} to {PRIORITY_MAX}"
        )


class HasAttribution:
    """Lets what has an attribution be asked for its parts."""

    __slots__ = ()

    attribution: Attribution

    @property
    def holder(self) -> str:
        """Who holds."""
        return self.attribution.holder

    @property
    def project(self) -> str:
        """Who is charged."""
        return self.attribution.project

    @property
    def priority(self) -> int:
        """Higher is served earlier."""
        return self.attribution.priority
