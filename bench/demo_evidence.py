"""What etcd's history says of the demo of policies, and what of it was promised and is missing. Pure.

Nothing here asks a node, or believes what a client saw: the history is read with the oracle's own
readers, and the oracle checks it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from seatkeeper.oracle.gangs import check_gangs, count_gangs
from seatkeeper.oracle.history import PoolHistory, replay
from seatkeeper.oracle.reclaims import count_reclaims
from seatkeeper.oracle.stored import (
    PREFIX,
    StoredGrant,
    StoredShare,
    located,
    read_grant,
    read_shares,
    seats_in_spec,
)
from seatkeeper.server.store import Change
from seatkeeper.v1 import pool_service_pb2

LATE_MILLIS_MAX = 2_000
"""A burst is ended within this after its time, as the documentation of bursts says."""
_Burst = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What happened, by etcd's history of all pools."""

    lent: int = 0
    """Most seats at once that projects held out of others' guarantees."""
    reclaimed: int = 0
    """Grants that were called back."""
    burst_seats: int = 0
    """Seats that were granted from bursts."""
    burst_late_ms: int | None = None
    """How late the latest end of a burst was written; None: one was not ended, or there was none."""
    gangs: int = 0
    """Gangs that were granted."""
    torn_gangs: Sequence[str] = ()
    """What is wrong with the grants of gangs."""
    max_over_capacity: int = 0
    """Most seats beyond those in force and the overdraft at a revision that granted any."""
    draining: int = 0
    """Most seats held beyond these at any revision: what a burst's end leaves, which drains."""
    grants: int = 0
    faults: Sequence[str] = ()
    """All else that the oracle finds wrong."""

    @property
    def gang(self) -> str:
        """Return whether gangs got ``all`` of their seats at once, ``some`` of them, or ``none``."""
        if self.torn_gangs:
            return "some"
        return "all" if self.gangs else "none"

    def missing(self) -> Iterator[str]:
        """Yield what was to happen, and did not; and what was not to, and did."""
        if self.lent < 1:
            yield "no seat was lent"
        if self.reclaimed < 1:
            yield "no lent seat was called back"
        if self.burst_seats < 1:
            yield "no seat of a burst was granted"
        if self.burst_late_ms is None:
            yield "no burst was ended"
        elif not 0 <= self.burst_late_ms <= LATE_MILLIS_MAX:
            yield f"a burst was ended {self.burst_late_ms} ms after its time"
        if self.gang == "none":
            yield "no gang was granted"
        yield from self.torn_gangs
        if self.max_over_capacity:
            yield f"{self.max_over_capacity} seats were granted beyond those in force"
        yield from self.faults


def evidence(changes: Sequence[Change], prefix: str = PREFIX) -> Evidence:
    """Read a whole history, in order of revisions."""
    histories = replay(changes, prefix)
    granted = _Granted()
    for pool, kind, name, change in located(changes, prefix):
        granted.note(pool, kind, name, change)
    return Evidence(
        lent=granted.lent,
        reclaimed=count_reclaims(changes, prefix)[0],
        burst_seats=granted.burst_seats,
        burst_late_ms=_latest_end(changes, prefix),
        gangs=count_gangs(changes, prefix),
        torn_gangs=list(check_gangs(changes, prefix)),
        max_over_capacity=max(
            (each.over_capacity_max for each in histories.values()), default=0
        ),
        draining=max((each.surplus_max for each in histories.values()), default=0),
        grants=sum(each.grants for each in histories.values()),
        faults=list(_faults(histories)),
    )


@dataclass(slots=True)
class _Granted:
    """The grants of every pool at some revision, and what there was of them until then."""

    lent: int = 0
    burst_seats: int = 0
    _held: dict[str, dict[str, StoredGrant]] = field(default_factory=lambda: defaultdict(dict))
    _shares: dict[str, Mapping[str, StoredShare]] = field(default_factory=dict)
    _seats: dict[str, int] = field(default_factory=dict)
    _bursts: set[_Burst] = field(default_factory=set)

    def note(self, pool: str, kind: str, name: str, change: Change) -> None:
        """Take one change."""
        value = None if change.entry is None else change.entry.value
        if kind == "spec" and value is not None:
            self._shares[pool] = read_shares(value)
            self._seats[pool] = seats_in_spec(value)
            self._bursts |= {(pool, lot.name) for lot in _bursts(value)}
        elif kind == "grants":
            before = self._held[pool].pop(name, None)
            if value is None:
                return
            grant = self._held[pool][name] = read_grant(name, value)
            if before is None:
                marks = ((lot, seats) for lot, _, seats in grant.lots)
                self.burst_seats += sum(n for lot, n in marks if (pool, lot) in self._bursts)
            self.lent = max(self.lent, self._lent(pool))

    def _lent(self, pool: str) -> int:
        """Return how many seats are held out of guarantees of projects that do not use theirs."""
        shares = self._shares.get(pool, {})
        held: dict[str, int] = defaultdict(int)
        for grant in self._held[pool].values():
            held[grant.project] += grant.seats
        promised = {name: share.guaranteed for name, share in shares.items()}
        for_all = self._seats.get(pool, 0) - sum(promised.values())
        beyond = sum(max(0, seats - promised.get(name, 0)) for name, seats in held.items())
        idle = sum(max(0, least - held.get(name, 0)) for name, least in promised.items())
        return min(idle, max(0, beyond - for_all))


def _bursts(value: bytes) -> Iterator[pool_service_pb2.Lot]:
    for lot in pool_service_pb2.PoolSpec.FromString(value).lots.lots:
        if lot.kind == pool_service_pb2.LOT_KIND_BURST:
            yield lot


def _latest_end(changes: Iterable[Change], prefix: str) -> int | None:
    """Return how late the latest end of a burst was written; None: not all there were have ended."""
    late: dict[_Burst, int | None] = {}
    for pool, kind, _, change in located(changes, prefix):
        if kind != "spec" or change.entry is None:
            continue
        for lot in _bursts(change.entry.value):
            is_over = lot.state == pool_service_pb2.LOT_STATE_ENDED
            planned, written = lot.ends_at.ToMilliseconds(), lot.ended_at.ToMilliseconds()
            late[pool, lot.name] = written - planned if is_over else None
    ends = [each for each in late.values() if each is not None]
    return max(ends) if ends and len(ends) == len(late) else None


def _faults(histories: Mapping[str, PoolHistory]) -> Iterator[str]:
    for pool, history in histories.items():
        for fault in history.faults:
            yield f"{pool}, revision {fault.revision}: {fault.kind.value}: {fault.message}"
