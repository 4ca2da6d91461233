"""Who asks for seats, who is charged, and what else a request says of itself.

An `Attribution` is made once, where a request comes in, and travels whole: with the command, the
ticket and the grant, into records, messages between nodes, answers, tokens and logs. Each of these
forms is made here and nowhere else, so a new attribute is a field of the message ``Attributes`` and
a field of this class.

A node carries what it does not know: an attribute that a newer node has written is copied unchanged,
from the ticket to the grant.
"""

from __future__ import annotations

import re
from dataclasses import field
from functools import lru_cache
from typing import Protocol

from seatkeeper.core.validate import Malformed, check_name
from seatkeeper.server.domain.attribution_messages import (
    Attributed,
    Attributes,
    read_gang,
    write_gang,
)
from seatkeeper.server.domain.gang import Gang, is_choice
from seatkeeper.server.domain.immutable import immutable

PRIORITY_MAX = 1_000
LABELS_MAX = 16
PLAIN_MAX = 4096
"""Most attributions without attributes that are remembered."""
_LABEL_KEY = re.compile(r"[a-z0-9][a-z0-9._/-]{0,62}")
# Nothing that JSON escapes: a token must stay short enough to be verified.
_LABEL_VALUE = re.compile(r"[A-Za-z0-9._/:@+-]{0,63}")
WORK_KEY = re.compile(r"[A-Za-z0-9._/:@+-]{0,128}")


class Request(Protocol):
    """The message ``Acquire``, as far as it says for whom it asks."""

    project: str
    priority: int

    @property
    def attributes(self) -> Attributes:
        """What else it says."""
        ...


@immutable
class Attribution:
    """For whom seats are asked, waited for and held."""

    holder: str
    """Who holds."""
    project: str
    """Who is charged."""
    priority: int = 0
    """Higher is served earlier."""
    labels: tuple[tuple[str, str], ...] = ()
    """Pairs that the caller chose, in the order of keys."""
    work_key: str = ""
    """The work that the seats are for, done by one holder at a time; empty: no such."""
    gang: Gang = ()
    """Seats of several pools that are all granted, or of which one is, and these; none: no others."""
    cost_class: str = ""
    """The class of the pool's costs by which seats are counted; empty: that of requests without one."""
    cost: int = 1
    """What one of the seats asked for costs, as the request entered its pool; before that, 1."""
    host: str = ""
    """What its client says is its host, where its pool looks at that; empty: it is not known."""
    kept: bytes = field(default=b"", repr=False, compare=False)
    """The message ``Attributes`` as it was read, with what this node does not know of it."""

    @classmethod
    def asked(
        cls, request: Request, *, holder: str, project: str, host: str = ""
    ) -> Attribution:
        """Return the attribution of a request that was checked.

        ``holder``, ``project`` and ``host`` are the session's. What this node does not know of the
        request is left out: it could not be checked, and records hold only what was checked.
        """
        labels = tuple(sorted(request.attributes.labels.items()))
        asked = request.attributes
        work_key, gang = asked.work_key, read_gang(asked)
        cost_class, project = request.attributes.cost_class, request.project or project
        terms = holder, project, request.priority, labels, work_key, gang
        return cls(*terms, cost_class, host=host)

    @classmethod
    def of(cls, message: Attributed) -> Attribution:
        """Return the attribution that a record, or a message of another node, carries."""
        if not message.HasField("attributes"):
            return _plain(message.holder, message.project, message.priority)
        more = message.attributes
        labels = tuple(sorted(more.labels.items()))
        kept = more.SerializeToString()
        return cls(
            *(message.holder, message.project, message.priority, labels, more.work_key),
            read_gang(more),
            *(more.cost_class, more.cost or 1, more.host, kept),
        )

    def write(self, message: Attributed) -> None:
        """Put it into a message, with what was kept."""
        message.holder = self.holder
        message.project = self.project
        message.priority = self.priority
        if self.kept:
            message.attributes.ParseFromString(self.kept)
        if self.labels:
            message.attributes.labels.update(self.labels)
        if self.work_key:
            message.attributes.work_key = self.work_key
        if self.gang:
            write_gang(message.attributes, self.gang)
        if self.cost_class:
            message.attributes.cost_class = self.cost_class
        if self.cost != 1:
            message.attributes.cost = self.cost
        if self.host:
            message.attributes.host = self.host

    def claims(self) -> dict[str, object]:
        """Return what a token says of it."""
        claims: dict[str, object] = {"sub": self.holder, "project": self.project}
        return claims | ({"labels": dict(self.labels)} if self.labels else {})

    def facts(self) -> dict[str, object]:
        """Return what logs and events say of it."""
        facts: dict[str, object] = {"holder": self.holder, "project": self.project}
        facts["priority"] = self.priority
        if self.work_key:
            facts["work_key"] = self.work_key
        if self.gang:
            name = "alternatives" if is_choice(self.gang) else "gang"
            facts[name] = [each.pool for each in self.gang]
        if self.cost_class:
            facts["cost_class"] = self.cost_class
        if self.cost != 1:
            facts["cost"] = self.cost
        if self.host:
            facts["host"] = self.host
        return facts | ({"labels": dict(self.labels)} if self.labels else {})


# Most requests are of few holders. Looked up, one costs a quarter of what it costs to make.
_plain = lru_cache(maxsize=PLAIN_MAX)(Attribution)


def check(request: Request) -> None:
    """Check what a request says of itself, but for its project, which is a name like others.

    Raises ``Malformed``.
    """
    if abs(request.priority) > PRIORITY_MAX:
        raise Malformed(
            "priority", f"{request.priority} is not from -{PRIORITY_MAX} to {PRIORITY_MAX}"
        )
    labels = request.attributes.labels
    if len(labels) > LABELS_MAX:
        raise Malformed("attributes.labels", f"{len(labels)} labels; at most {LABELS_MAX}")
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            raise Malformed(
                "attributes.labels",
                f"{key[:64]!r} is not the key of a label: 1 to 63 of `a-z 0-9 . _ - /`, starting "
                "with a letter or a digit",
            )
        if not _LABEL_VALUE.fullmatch(value):
            raise Malformed(
                "attributes.labels",
                f"{value[:64]!r} is not the value of a label ({key}): at most 63 of "
                "`A-Z a-z 0-9 . _ - / : @ +`",
            )
    if not WORK_KEY.fullmatch(request.attributes.work_key):
        raise Malformed(
            "attributes.work_key",
            f"{request.attributes.work_key[:129]!r} is not at most 128 of "
            "`A-Z a-z 0-9 . _ - / : @ +`",
        )
    if request.attributes.cost_class:
        check_name("attributes.cost_class", request.attributes.cost_class)


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

    @property
    def work_key(self) -> str:
        """The work that the seats are for, done by one holder at a time; empty: no such."""
        return self.attribution.work_key

    @property
    def gang(self) -> Gang:
        """The seats that are granted together with these, and these; none: it is no gang."""
        return self.attribution.gang

    @property
    def host(self) -> str:
        """What its client says is its host, where its pool looks at that; empty: it is not known."""
        return self.attribution.host
