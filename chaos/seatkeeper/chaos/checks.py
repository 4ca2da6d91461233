"""What a run is held to by etcd's history: what users observed, and what time brings."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator

from seatkeeper.oracle.bursts import check_bursts
from seatkeeper.oracle.checker import (
    Invariant,
    Violation,
    check_answers,
    check_history,
    check_published,
    check_reclaim,
    lives,
)
from seatkeeper.oracle.due import check_due
from seatkeeper.oracle.lots import check_lots
from seatkeeper.oracle.notices import check_notices, check_taken_in_time
from seatkeeper.oracle.record import Record
from seatkeeper.oracle.stays import check_stays
from seatkeeper.oracle.stored import concerning
from seatkeeper.oracle.windows import check_windows
from seatkeeper.oracle.witness import Witness

DUE_SECONDS = 5.0
"""How long after its time something may be written, where nothing holds it up: another node does what
the owner should have done after 2 s, and begins to measure then."""
SKEW_MILLIS = 50.0
"""By how much clocks of one machine may differ, where none was set wrong."""


def check_user_history(
    witness: Witness,
    record: Record,
    pools: Collection[str],
    *,
    at_rest: bool,
    deadline: Callable[[str, float], float],
    now: float,
) -> Iterator[Violation]:
    """Hold what users observed against etcd's history; pools of others are passed over.

    ``now``: a moment up to which the witness has caught up.
    """
    prefix = witness.prefix
    changes = list(concerning(list(witness.changes), pools, prefix))
    found = lives(changes, witness.changed_at, prefix)
    yield from check_history(changes, prefix, at_rest=at_rest)
    yield from check_answers(found, record)
    yield from check_reclaim(found, record, deadline, now=now)
    yield from check_published(changes, record, prefix, pools=pools)


def check_times(
    witness: Witness,
    pools: Collection[str],
    latest: Callable[[float, float], float],
    *,
    now: float,
    unix_ahead: float,
) -> Iterator[Violation]:
    """Hold what etcd's history says of time against true time; pools of others are passed over.

    ``latest(since, seconds)``: when what takes so long must be over. ``unix_ahead``: how far Unix time
    is ahead of the time of the record.
    """
    prefix, at, by = witness.prefix, witness.changed_at, witness.changed_at.by
    changes = list(concerning(list(witness.changes), pools, prefix))
    revisions = {change.revision for change in changes}
    unix_at = {revision: at[revision] + unix_ahead for revision in revisions}
    millis_by = {revision: (by(revision) + unix_ahead) * 1000 for revision in revisions}

    def late(since: float, seconds: float) -> float:
        return latest(since, seconds + DUE_SECONDS)

    def late_by_unix(due: float) -> float:
        return late(due - unix_ahead, 0.0) + unix_ahead

    found = [
        (Invariant.I1, check_lots(changes, millis_by, skew_millis=SKEW_MILLIS, prefix=prefix)),
        (
            Invariant.I1,
            check_windows(changes, millis_by, skew_millis=SKEW_MILLIS, prefix=prefix),
        ),
        (Invariant.I1, check_bursts(changes, prefix)),
        (Invariant.I7, check_notices(changes, at, by, prefix)),
        (Invariant.I7, check_taken_in_time(changes, at, by, late, now=now, prefix=prefix)),
        (
            Invariant.I7,
            check_stays(
                *(changes, at),
                ahead=SKEW_MILLIS / 1000,
                # One decision writes until when they are kept, and another one frees them.
                late=lambda since, window: late(since, window + DUE_SECONDS),
                now=now,
                changed_by=by,
                prefix=prefix,
            ),
        ),
        (
            Invariant.I7,
            check_due(
                *(changes, unix_at, lambda revision: by(revision) + unix_ahead, late_by_unix),
                now=now + unix_ahead,
                prefix=prefix,
            ),
        ),
    ]
    for invariant, faults in found:
        for fault in faults:
            yield Violation(invariant, fault)


def unix_ahead() -> float:
    """Return how far Unix time is ahead of the monotonic time of this machine, in seconds."""
    return time.time() - time.monotonic()
