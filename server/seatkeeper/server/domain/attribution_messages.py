"""The messages that carry an attribution, and what they say of seats of several pools."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import astuple
from typing import Any, Protocol

from seatkeeper.server.domain.gang import Gang, GangMember


class Member(Protocol):
    """The message ``GangMember``."""

    pool: str
    grant_id: str
    seats: int


class Alternative(Member, Protocol):
    """One of those of which one is wanted."""

    after_millis: int


class Alternatives(Protocol):
    """Several of them, in the order of preference."""

    def add(self, *, pool: str, grant_id: str, seats: int, after_millis: int) -> object:
        """Add one."""
        ...

    def __iter__(self) -> Iterator[Alternative]:
        """Yield them."""
        ...


class Members(Protocol):
    """Several of them."""

    def add(self, *, pool: str, grant_id: str, seats: int) -> object:
        """Add one."""
        ...

    def __iter__(self) -> Iterator[Member]:
        """Yield them."""
        ...

    def __len__(self) -> int:
        """Return how many there are."""
        ...


class Attributes(Protocol):
    """The message ``Attributes``: what a request says beside its project and its priority."""

    work_key: str
    cost_class: str
    cost: int
    host: str

    @property
    def labels(self) -> MutableMapping[str, str]:
        """Pairs that the caller chose."""
        ...

    @property
    def gang(self) -> Members:
        """The seats that are granted together with these, and these; none: it is no gang."""
        ...

    @property
    def alternatives(self) -> Alternatives:
        """The seats of which some are granted, and these; none: there are no others."""
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

    def HasField(self, field_name: Any, /) -> bool:  # noqa: ANN401, N802  # protobuf's
        """Return whether a message is set."""
        ...


def read_gang(attributes: Attributes) -> Gang:
    """Return the gang in a message, by the names of its pools, or its alternatives as listed."""
    members = (GangMember(each.pool, each.grant_id, each.seats) for each in attributes.gang)
    return tuple(sorted(members)) or tuple(
        GangMember(each.pool, each.grant_id, each.seats, each.after_millis)
        for each in attributes.alternatives
    )


def write_gang(attributes: Attributes, gang: Gang) -> None:
    """Put it into a message; what is there was kept as it was read."""
    if attributes.gang or attributes.alternatives:
        return
    for pool, grant_id, seats, after in map(astuple, gang):
        if after is None:
            attributes.gang.add(pool=pool, grant_id=grant_id, seats=seats)
        else:
            attributes.alternatives.add(
                pool=pool, grant_id=grant_id, seats=seats, after_millis=after
            )
