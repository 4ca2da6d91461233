"""What the checker says of kept seats: nothing of good histories, and each fault of bad ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.kit import KEYS, NOW, POOL, a_grant, changed, uuid7

from seatkeeper.oracle.history import FaultKind, replay
from seatkeeper.oracle.stays import check_stays
from seatkeeper.server.domain import Grant, Guard, Instant, PoolPolicy, PoolSpec, Stay, StayRule
from seatkeeper.server.events.facts import encode_facts
from seatkeeper.server.store import Change, Entry, records, stays
from seatkeeper.server.store.keys import Keys

RULE = StayRule(timedelta(seconds=10), timedelta(seconds=20), timedelta(seconds=5))
NEVER = Instant(0)
UNTIL = Instant(NOW + 20_000)
Step = dict[str, bytes | None]


def history(*steps: Step) -> list[Change]:
    """One revision each, after the pool's specification."""
    spec = records.encode_spec(PoolSpec(POOL, 1, policy=PoolPolicy(stay=RULE)))
    first: Step = {KEYS.pool(POOL): spec}
    found: list[Change] = []
    for revision, step in enumerate((first, *steps), start=1):
        for key, value in step.items():
            entry = None if value is None else Entry(key, value, revision)
            found.append(Change(key, entry, revision))
    return found


def decided(step: Step, number: int = 1, forced: Iterable[int] = ()) -> Step:
    """What a decision writes."""
    facts = encode_facts(number, NOW, [], [], reclaimed=list(forced))
    return {KEYS.guard(POOL): records.encode_guard(Guard(9, 9), number, facts), **step}


def held(grant: Grant) -> Step:
    return {KEYS.grant(POOL, grant.grant_id): records.encode_grant(grant)}


def stay(grant: Grant, until: Instant = NEVER, *, may_return: bool = False) -> Step:
    since = NOW if until else NEVER
    value = stays.encode_stay(Stay(grant, since, until, may_return=may_return))
    return {KEYS.stay(POOL, grant.grant_id): value}


ONE = a_grant(1)
GRANTED = decided({**held(ONE), **stay(ONE)})
LOST: Step = {KEYS.grant(POOL, uuid7(1)): None}
KEPT = decided(stay(ONE, UNTIL, may_return=True))
FREED = decided({KEYS.stay(POOL, uuid7(1)): None})
NEXT = replace(a_grant(2, fence=2, session="bert"))
BACK = changed(replace(ONE, fence=2, session_id="new"), continues=1)


def faults(*steps: Step) -> list[FaultKind]:
    found = replay(history(*steps), KEYS.prefix)[POOL].faults
    return [fault.kind for fault in found]


def test_what_is_lost_kept_and_free_again_is_no_fault() -> None:
    then = decided({**held(NEXT), **stay(NEXT)})
    assert faults(GRANTED, LOST, KEPT, FREED, then) == []


def test_what_comes_back_is_no_fault() -> None:
    assert faults(GRANTED, LOST, KEPT, decided({**held(BACK), **stay(BACK)})) == []
    assert faults(GRANTED, LOST, decided({**held(BACK), **stay(BACK)})) == []


def test_kept_seats_are_out() -> None:
    found = replay(history(GRANTED, LOST, KEPT), KEYS.prefix)[POOL]
    assert (found.out, found.max_out) == (1, 1)
    then = decided({**held(NEXT), **stay(NEXT)})
    assert faults(GRANTED, LOST, then) == [FaultKind.OVER_GRANT]


BAD: dict[str, list[Step]] = {
    "it ends with its session": [decided(held(ONE))],
    "until when is not written": [GRANTED, LOST, decided(stay(ONE))],
    "not as long as the pool says": [
        *(GRANTED, LOST, decided(stay(ONE, Instant(UNTIL - 1), may_return=True))),
    ],
    "as one that may come back, and it may not": [
        *(GRANTED, LOST, decided(stay(ONE, UNTIL, may_return=False))),
    ],
    "for longer than was written": [
        *(GRANTED, LOST, KEPT),
        decided(stay(ONE, Instant(UNTIL + 0), may_return=True)),
    ],
    "a second time": [
        *(GRANTED, LOST, KEPT),
        decided({**held(replace(BACK, continues=0)), **stay(replace(BACK, continues=0))}),
    ],
    "by another": [
        *(GRANTED, LOST, KEPT),
        decided(
            {
                **held(replace(NEXT, continues=1)),
                **stay(replace(NEXT, continues=1)),
                KEYS.stay(POOL, uuid7(1)): None,
            }
        ),
    ],
    "held, and said to be kept": [decided({**held(ONE), **stay(ONE, UNTIL)})],
}


@pytest.mark.parametrize("what", BAD)
def test_each_fault_is_found(what: str) -> None:
    assert FaultKind.STAY in faults(*BAD[what])


def test_a_decision_leaves_none_behind() -> None:
    released = decided(LOST, number=2)
    assert FaultKind.STAY in faults(GRANTED, released)


def late(since: float, window: float) -> float:
    return since + window + 1


def over_time(*at: float, steps: tuple[Step, ...], now: float = 0.0) -> list[str]:
    """Check a history whose revisions came about at these times."""
    times = dict(enumerate((0.0, *at), start=1))
    changes = history(*steps)
    found = check_stays(
        *(changes, times), ahead=0.1, late=late, now=now, prefix=Keys("sk").prefix
    )
    return list(found)


def test_a_window_is_neither_shorter_nor_longer_than_is_written() -> None:
    steps = (GRANTED, LOST, KEPT, FREED)
    assert over_time(1, 2, 2.1, 22.1, steps=steps) == []
    (early,) = over_time(1, 2, 2.1, 21.0, steps=steps)
    assert early.endswith("were kept from 2.00 to 21.00 only")
    (long,) = over_time(1, 2, 2.1, 24.0, steps=steps)
    assert long.endswith("were kept from 2.00 to 24.00")
    (still,) = over_time(1, 2, 2.1, steps=steps[:-1], now=24.0)
    assert still.endswith("are kept since 2.00")


def test_one_that_came_back_or_was_freed_by_force_is_not_early() -> None:
    back = decided({**held(BACK), **stay(BACK)})
    assert over_time(1, 2, 2.1, 3.0, steps=(GRANTED, LOST, KEPT, back)) == []
    forced = decided({KEYS.stay(POOL, uuid7(1)): None}, forced=[1])
    assert over_time(1, 2, 2.1, 3.0, steps=(GRANTED, LOST, KEPT, forced)) == []
