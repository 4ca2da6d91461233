"""What `seatkeeper pool snapshot` wrote, read again to go on from."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import accumulate

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.timestamp_pb2 import Timestamp

from seatkeeper.core.lot_messages import decode_marks
from seatkeeper.core.validate import is_name
from seatkeeper.server.domain import Instant
from seatkeeper.server.domain.counted_once import Group, SeatSum
from seatkeeper.server.domain.state import NO_USAGE, Usage
from seatkeeper.server.replay.demand import Arrival, Beginning, fault_of
from seatkeeper.v1 import pool_service_pb2 as pb

BYTES_MAX = 16 << 20


class SnapshotError(Exception):
    """A file is no snapshot, or one that cannot be gone on from; the message says why."""


class Holds:
    """How long seats are held, by what is known: a trace, or one length for all."""

    def __init__(self, millis_of: Iterable[tuple[str, int]]) -> None:
        """Take the project and the length of each hold that is known; there is at least one."""
        found: dict[str | None, list[int]] = {None: []}
        for project, millis in millis_of:
            found.setdefault(project, []).append(millis)
            found[None].append(millis)
        self._sorted = {name: sorted(lengths) for name, lengths in found.items()}
        self._sums = {name: [0, *accumulate(each)] for name, each in self._sorted.items()}

    def mean_of(self, project: str, longer_than: int = -1) -> int | None:
        """Return the mean of a project's holds, in milliseconds; of all, where it has none.

        ``longer_than``: of those alone that are longer; None: there is none.
        """
        name = project if project in self._sorted else None
        known, sums = self._sorted[name], self._sums[name]
        first = bisect_right(known, longer_than)
        count = len(known) - first
        return (sums[-1] - sums[first]) // count if count else None


@dataclass(frozen=True)
class Taken:
    """A pool as it stood at a time."""

    at: Instant
    pool: pb.Pool
    as_taken: pb.PoolSpec
    """Its specification then; that of ``pool`` may be changed by what is tried."""

    def beginning(self, holds: Holds) -> Beginning:
        """Return it as what a replay begins with, where seats are held as ``holds`` says.

        A holder goes on as long as the mean of the holds that were longer than it has held by now; one
        that has held for longer than any is expected to end at once.
        """
        return Beginning(
            at=self.at,
            holders=[self._holder(grant, holds) for grant in self.pool.grants],
            usage=_usage(self.pool),
            # In the order of service, which within a project and priority is that of acceptance.
            queue=[
                _arrival(ticket, _millis(ticket.queued_at), holds.mean_of(ticket.project) or 0)
                for ticket in self.pool.tickets
            ],
        )

    def _holder(self, grant: pb.HeldGrant, holds: Holds) -> Arrival:
        since = min(_millis(grant.granted_at), self.at)
        age = self.at - since
        hold = holds.mean_of(grant.project, longer_than=age) or age
        return replace(
            _arrival(grant, since, hold),
            marks=decode_marks(grant.lots, grant.overdraft),
            group=_group(grant),
            extended=grant.hold.extended.ToTimedelta() or None,
        )


def read_snapshot(name: str, data: bytes) -> Taken:
    """Return what a file says. Raises ``SnapshotError``; fields that are not known are left out."""
    if len(data) > BYTES_MAX:
        raise SnapshotError(f"{name}: more than {BYTES_MAX >> 20} MiB; it is no snapshot")
    try:
        said = json.loads(data)
        taken_at = datetime.fromisoformat(said["taken_at"])
        pool = ParseDict(said["pool"], pb.Pool(), ignore_unknown_fields=True)
        at = Instant(int(taken_at.timestamp() * 1000))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, ParseError):
        raise SnapshotError(f"{name}: not what `seatkeeper pool snapshot` writes") from None
    if not is_name(pool.spec.name):
        raise SnapshotError(
            f"{name}: not what `seatkeeper pool snapshot` writes: it names no pool"
        )
    if taken_at.tzinfo is None:
        raise SnapshotError(f"{name}: taken_at has no time zone")
    spec = pb.PoolSpec()
    spec.CopyFrom(pool.spec)
    taken = Taken(at, pool, spec)
    faults = map(fault_of, _all_of(taken.beginning(Holds([("", 0)]))))
    if fault := next(filter(None, faults), None):
        raise SnapshotError(f"{name}: {': '.join(fault)}")
    in_use = SeatSum()
    for grant in pool.grants:
        in_use.add(grant.seats, _group(grant))
    held = in_use.of()
    if held != pool.held or len(pool.tickets) != pool.queued:
        raise SnapshotError(
            f"{name}: it lists holders of {held} of {pool.held} seats, and {len(pool.tickets)} of "
            f"{pool.queued} waiting requests; a node lists 1,000 of each at most"
        )
    return taken


def _all_of(begin: Beginning) -> Iterable[Arrival]:
    return (*begin.holders, *begin.queue)


def _arrival(of: pb.HeldGrant | pb.QueuedTicket, at: int, hold_millis: int) -> Arrival:
    return Arrival(
        at=Instant(at),
        project=of.project,
        hold_millis=hold_millis,
        seats=of.seats,
        priority=of.priority,
        holder=of.holder,
        work_key=of.attributes.work_key,
        host=of.attributes.host,
        cost_class=of.attributes.cost_class,
        labels=tuple(sorted(of.attributes.labels.items())),
    )


def _group(grant: pb.HeldGrant) -> Group:
    return tuple((each.attribute, each.value) for each in grant.counts_once)


def _usage(pool: pb.Pool) -> Usage:
    """Return what projects had used; nothing, where the node that answered did not say."""
    if not pool.HasField("usage_at"):
        return NO_USAGE
    used = {each.project: max(0, each.used_seat_millis) for each in pool.projects}
    return Usage(Instant(_millis(pool.usage_at)), used)


def _millis(moment: Timestamp) -> int:
    return moment.ToMilliseconds()
