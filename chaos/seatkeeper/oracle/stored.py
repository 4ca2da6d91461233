"""The oracle's own reader of stored keys and values.

The layout of keys and the meaning of fields are stated here a second time, on purpose: the service's
code for both is part of what the oracle checks. Only the schema is shared. A reader here ignores what
the oracle does not check, and raises ``DecodeError`` for a value that is not the message it should be.
Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.store import Change
from seatkeeper.v1 import build_pb2, pool_service_pb2

IN_FORCE = pool_service_pb2.LOT_STATE_IN_FORCE
PREFIX = "seatkeeper"
"""Where a service keeps its keys unless it was given another prefix."""


@dataclass(frozen=True, slots=True)
class StoredBorrow:
    """The machine that has borrowed a grant, and until when. Times are Unix milliseconds."""

    machine: str
    until_millis: int
    free_at_millis: int
    borrowed_at_millis: int


@dataclass(frozen=True, slots=True)
class StoredGrant:
    """A grant, as its record says."""

    grant_id: str
    session_id: str
    holder: str
    project: str
    seats: int
    priority: int
    fence: int
    work_key: str = ""
    granted_at_millis: int = 0
    heeds_within_millis: int = 0
    lots: tuple[tuple[str, int, int], ...] = ()
    """The lots that it is marked with: name, since when in force, seats."""
    overdraft: int = 0
    """Seats beyond those in force, by its mark."""
    mark: str = ""
    """The rule by which an advisory pool would not have made it; empty: it would have."""
    seats_beyond: int = 0
    """Its seats beyond the capacity, by its mark."""
    host: str = ""
    """Empty: it is not known."""
    continues: int = 0
    """The fence of the grant whose seats it has taken over; 0: none."""
    held_since: int = 0
    """Since when its holder has held the seats, in milliseconds."""
    borrow: StoredBorrow | None = None
    """None: a session holds it."""
    counts_once: tuple[tuple[str, str], ...] = ()
    """What it has in common with those with which it counts once; empty: it counts by itself."""
    labels: tuple[tuple[str, str], ...] = ()
    is_joint: bool = False
    """Whether it was granted with others, or instead of them."""


@dataclass(frozen=True, slots=True)
class StoredTicket:
    """A ticket, as its record says."""

    grant_id: str
    session_id: str
    holder: str
    project: str
    seats: int
    priority: int
    number: int
    work_key: str = ""
    queued_at_millis: int = 0
    moved_to: Fraction | None = None
    """The number that it is served by, where an administrator has moved it."""
    move_id: str = ""
    """Of the latest move."""
    is_joint: bool = False
    """Whether it is granted together with others, and so not when its turn comes alone."""
    host: str = ""
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class StoredShare:
    """What a pool says of a project, as far as a revision by itself shows whether it is kept."""

    parent: str
    limit: int | None
    guaranteed: int = 0


@dataclass(frozen=True, slots=True)
class StoredOvertaking:
    """How far a pool lets smaller requests go before a ticket that wants more seats than are free."""

    seats: int = 0
    """0: not at all."""
    within_millis: int = 0


def pool_key(pool: str, prefix: str = PREFIX) -> str:
    """Return the key of a pool's specification."""
    return f"{prefix}/pools/{pool}"


def guard_key(pool: str, prefix: str = PREFIX) -> str:
    """Return the key that every decision about a pool rewrites."""
    return f"{prefix}/seats/{pool}/guard"


def located(
    changes: Iterable[Change], prefix: str = PREFIX
) -> Iterator[tuple[str, str, str, Change]]:
    """Yield pool, kind, name and change of every key that belongs to a pool.

    Kinds: ``spec``, ``guard``, ``grants``, ``queue``, ``stays``, ``marks``. The name is a grant's id, a
    ticket's grant id, or a watermark's session; empty for ``spec`` and ``guard``. Others are skipped.
    """
    pools, seats = f"{prefix}/pools/", f"{prefix}/seats/"
    for change in changes:
        if change.key.startswith(pools):
            yield change.key.removeprefix(pools), "spec", "", change
        elif change.key.startswith(seats):
            pool, kind, *name = change.key.removeprefix(seats).split("/", 2)
            yield pool, kind, "".join(name), change


def concerning(
    changes: Iterable[Change], pools: Collection[str], prefix: str = PREFIX
) -> Iterator[Change]:
    """Yield the changes of these pools, and of every engine."""
    prefixes = tuple(f"{prefix}/seats/{pool}/" for pool in pools)
    specs = {pool_key(pool, prefix) for pool in pools}
    for change in changes:
        if change.key in specs or change.key.startswith((*prefixes, f"{prefix}/engines/")):
            yield change


@dataclass(frozen=True, slots=True)
class StoredLot:
    """What is written of a contract or a burst. Times are Unix milliseconds; None: there is none."""

    seats: int
    state: int
    """0: pending, 1: in force, 2: ended."""
    begins: int | None
    ends: int | None
    began_at: int | None
    ended_at: int | None


def seats_in_spec(value: bytes) -> int:
    """Return the capacity in a pool's specification: by its lots, where it has any."""
    spec = pool_service_pb2.PoolSpec.FromString(value)
    if not spec.lots.lots:
        return spec.seats
    in_force = (lot.seats for lot in spec.lots.lots if lot.state == IN_FORCE)
    return spec.lots.seats + sum(in_force)


def seats_said(value: bytes) -> int:
    """Return the capacity that nodes and clients read in a pool's specification."""
    return pool_service_pb2.PoolSpec.FromString(value).seats


def is_drained(value: bytes) -> bool:
    """Return whether a pool's specification says that nothing is to be granted."""
    return pool_service_pb2.PoolSpec.FromString(value).HasField("drain")


def read_lots(value: bytes) -> dict[tuple[str, int | None, int | None], StoredLot]:
    """Return the lots of a pool's specification, by name and dates; more than once: the last."""
    found = {}
    for lot in pool_service_pb2.PoolSpec.FromString(value).lots.lots:
        begins, ends, began_at, ended_at = (
            getattr(lot, field).ToMilliseconds() if lot.HasField(field) else None
            for field in ("begins_at", "ends_at", "began_at", "ended_at")
        )
        state = max(0, lot.state - 1)
        found[lot.name, begins, ends] = StoredLot(
            lot.seats, state, begins, ends, began_at, ended_at
        )
    return found


def read_shares(value: bytes) -> dict[str, StoredShare]:
    """Return what a pool's specification says of projects; empty: it is shared among none."""
    policy = pool_service_pb2.PoolSpec.FromString(value).policy
    return {
        share.project: StoredShare(
            share.parent,
            share.limit if share.HasField("limit") else None,
            share.guaranteed,
        )
        for share in policy.projects
    }


def read_overtaking(value: bytes) -> StoredOvertaking:
    """Return what a pool's specification says of overtaking."""
    said = pool_service_pb2.PoolSpec.FromString(value).policy.overtaking
    return StoredOvertaking(said.seats, said.within.ToMilliseconds())


def read_grant(grant_id: str, value: bytes) -> StoredGrant:
    """Return the grant in a record."""
    record = state_pb2.GrantRecord.FromString(value)
    return StoredGrant(
        grant_id=grant_id,
        session_id=record.session_id,
        holder=record.holder,
        project=record.project,
        seats=record.seats,
        priority=record.priority,
        fence=record.fence,
        work_key=record.attributes.work_key,
        granted_at_millis=record.granted_at_millis,
        heeds_within_millis=record.heeds_within_millis,
        lots=tuple(
            (each.lot, each.began_at.ToMilliseconds(), each.seats) for each in record.lots
        ),
        overdraft=record.overdraft,
        mark=record.advisory.rule,
        seats_beyond=record.advisory.seats_beyond,
        host=record.attributes.host.lower(),
        continues=record.continues_fence,
        held_since=record.held_since_millis or record.granted_at_millis,
        borrow=_borrow(record),
        counts_once=tuple((each.attribute, each.value) for each in record.counts_once),
        labels=tuple(sorted(record.attributes.labels.items())),
        is_joint=bool(record.attributes.gang or record.attributes.alternatives),
    )


def _borrow(record: state_pb2.GrantRecord) -> StoredBorrow | None:
    if not record.HasField("borrow"):
        return None
    said = record.borrow
    times = (said.until_millis, said.free_at_millis, said.borrowed_at_millis)
    return StoredBorrow(said.machine, *times)


def read_ticket(grant_id: str, value: bytes) -> StoredTicket:
    """Return the ticket in a record."""
    record = state_pb2.TicketRecord.FromString(value)
    return StoredTicket(
        grant_id=grant_id,
        session_id=record.session_id,
        holder=record.holder,
        project=record.project,
        seats=record.seats,
        priority=record.priority,
        number=record.number,
        work_key=record.attributes.work_key,
        queued_at_millis=record.queued_at_millis,
        moved_to=_moved_to(record),
        move_id=record.move.move_id,
        is_joint=bool(record.attributes.gang or record.attributes.alternatives),
        host=record.attributes.host.lower(),
        labels=tuple(sorted(record.attributes.labels.items())),
    )


def _moved_to(record: state_pb2.TicketRecord) -> Fraction | None:
    if not record.HasField("move"):
        return None
    place = int.from_bytes(record.move.place, byteorder="big", signed=False)
    return place / Fraction(2) ** record.move.halvings


def read_completed(value: bytes) -> str:
    """Return the highest request id that a session has completed, by its watermark."""
    return state_pb2.MarkRecord.FromString(value).finished


def read_view_revision(value: bytes) -> int:
    """Return up to which revision the decision that wrote a guard knew of everything; 0: unsaid."""
    record = state_pb2.GuardRecord.FromString(value)
    facts = state_pb2.DecisionFacts.FromString(record.facts)
    return facts.view_revision if facts.decision_id == record.decision_id else 0


def read_engine(change: Change, prefix: str = PREFIX) -> build_pb2.EngineManifest | None:
    """Return the manifest that a change publishes; None: it publishes none."""
    if change.entry is None or not change.key.startswith(f"{prefix}/engines/"):
        return None
    record = state_pb2.EngineRecord.FromString(change.entry.value)
    return build_pb2.EngineManifest.FromString(record.manifest.manifest)
