"""What time brings: the checker reports what was written late, or early, or not at all; and notices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.kit import KEYS, NOW, POOL, a_grant, in_revisions, uuid7
from tests.unit.oracle.test_borrows import decided, lent
from tests.unit.oracle.test_chaos_history import grant_gone, granted, guard, put, spec

from seatkeeper.core.lots import Lot, LotKind, LotState, PoolLots
from seatkeeper.core.pool_rules import Who
from seatkeeper.core.reservations import (
    PoolWindows,
    Reservation,
    Schedule,
    Window,
    WindowState,
)
from seatkeeper.internal.v1 import state_pb2
from seatkeeper.oracle.due import check_due
from seatkeeper.oracle.notices import check_notices, check_taken_in_time
from seatkeeper.oracle.seen import KINDS, count_seen
from seatkeeper.server.domain import Guard, Instant, PoolPolicy, PoolSpec
from seatkeeper.server.domain.reclaims import Reclaim, Reclaims
from seatkeeper.server.store import Change, records
from seatkeeper.v1 import seat_pb2

DAILY = Reservation("ci", 1, Who(projects=("ci",)), Schedule("FREQ=DAILY", 0, 60))
START = NOW / 1000
SECOND = 1000


def burst(state: LotState, ends: int = 10) -> Change:
    lot = Lot(
        name="rush",
        seats=1,
        ends=NOW + ends * SECOND,
        kind=LotKind.BURST,
        state=state,
        began_at=NOW,
        ended_at=NOW + ends * SECOND if state is LotState.ENDED else None,
    )
    return of(PoolSpec(POOL, 1, lots=PoolLots((lot,), 1)))


def window(state: WindowState, begins: int = 10) -> Change:
    at = NOW + begins * SECOND
    one = Window("ci", at, at + 10 * SECOND, state)
    policy = PoolPolicy(reservations=(DAILY,))
    return of(PoolSpec(POOL, 1, policy=policy, windows=PoolWindows((one,))))


def of(made: PoolSpec) -> Change:
    return put(spec(1).key, records.encode_spec(made))


def found(revisions: Sequence[Sequence[Change]], *at: float, now: float = 0.0) -> list[str]:
    """What is reported of revisions at these seconds after the start; all must be done 2 s after."""
    times = {number: START + seconds for number, seconds in enumerate(at, start=2)}
    changes = in_revisions(revisions)
    return list(
        check_due(
            *(changes, times, times.__getitem__, lambda due: due + 2),
            now=START + (now or at[-1]),
            prefix=KEYS.prefix,
        )
    )


PLANNED, OPEN, CLOSED = WindowState
FORCE, ENDED = LotState.IN_FORCE, LotState.ENDED
DAY = timedelta(seconds=10)
LENT = lent(length=DAY, skew=timedelta(0))


@pytest.mark.parametrize(
    ("revisions", "at", "said"),
    [
        ([[burst(FORCE)], [burst(ENDED)]], (0, 11), []),
        ([[burst(FORCE)], [burst(ENDED)]], (0, 13), ["the end of the lot of rush"]),
        ([[burst(FORCE)], [burst(FORCE, 20)]], (0, 13), []),
        ([[burst(FORCE)], [spec(1)]], (0, 13), []),
        ([[window(PLANNED)], [window(OPEN)], [window(CLOSED)]], (0, 11, 21), []),
        ([[window(PLANNED)], [window(OPEN)]], (0, 13), ["the opening"]),
        ([[window(OPEN)], [window(CLOSED)]], (0, 23), ["the end"]),
        ([[window(PLANNED)], [window(CLOSED)]], (0, 21), ["the opening"]),
        ([[window(OPEN)], [window(PLANNED, 40)]], (0, 21), []),
        ([[window(OPEN)], [window(PLANNED, 40)]], (0, 23), ["the end"]),
        ([[window(OPEN)], [spec(1)]], (0, 23), []),
        ([[granted(a_grant(1)), guard()], [LENT], [grant_gone(1), guard()]], (0, 0, 11), []),
        ([[LENT], [grant_gone(1), guard()]], (0, 13), ["written only at"]),
        ([[LENT], [grant_gone(1), guard()]], (0, 9), ["and it was free at"]),
        (
            [
                [LENT],
                [grant_gone(1), decided(timedelta(seconds=5), released=[1], returned=[1])],
            ],
            (0, 5),
            [],
        ),
    ],
)
def test_what_is_due_is_written_in_time(
    revisions: Sequence[Sequence[Change]], at: tuple[float, ...], said: list[str]
) -> None:
    reported = found(revisions, *at)
    assert len(reported) == len(said), reported
    assert all(text in line for text, line in zip(said, reported, strict=True)), reported


@pytest.mark.parametrize("last", [burst(FORCE), window(PLANNED), LENT])
def test_what_is_never_written_is_reported_when_its_time_is_over(last: Change) -> None:
    assert found([[last]], 0, now=11) == []
    (said, *_) = found([[last]], 0, now=13)
    assert "is not written" in said


def calling(*numbers: int) -> Change:
    reclaims = {
        uuid7(number): Reclaim(number, Instant(NOW), timedelta(seconds=10), "ci")
        for number in numbers
    }
    made = Guard(9, 9, reclaims=Reclaims(reclaims, number=max(numbers, default=0)))
    return put(KEYS.guard(POOL), records.encode_guard(made))


def in_time(*at: float, now: float, changes: Sequence[Sequence[Change]]) -> list[str]:
    times = {number: float(seconds) for number, seconds in enumerate(at, start=2)}
    return list(
        check_taken_in_time(
            *(in_revisions(changes), times, times.__getitem__, lambda s, n: s + n + 2),
            now=now,
            prefix=KEYS.prefix,
        )
    )


@pytest.mark.parametrize("end", [calling(), grant_gone(1)])
def test_a_notice_goes_on_no_longer_than_it_says(end: Change) -> None:
    history = [[granted(a_grant(1)), calling(1)], [end]]
    assert in_time(0, 11, now=20, changes=history) == []
    assert len(in_time(0, 13, now=20, changes=history)) == 1
    assert in_time(0, now=11, changes=history[:1]) == []
    assert len(in_time(0, now=13, changes=history[:1])) == 1


def test_a_seat_is_not_taken_before_its_notice_is_over() -> None:
    mark = state_pb2.MarkRecord()
    mark.lost.add(grant_id=uuid7(1), reason=seat_pb2.LOST_REASON_RECLAIMED)
    taken = put(KEYS.mark(POOL, "anna"), mark.SerializeToString())
    changes = in_revisions([[granted(a_grant(1)), calling(1)], [grant_gone(1), taken]])

    def reported(at: float, by: float) -> list[str]:
        times = {2: 1.0, 3: at}
        return list(check_notices(changes, times, lambda number: by, KEYS.prefix))

    assert reported(11.0, 11.0) == []
    assert reported(9.0, 11.0) == [], "it may have been at any time between these"
    assert len(reported(9.0, 10.5)) == 1
    assert len(list(check_notices(changes[2:], {3: 9.0}, prefix=KEYS.prefix))) == 1


def test_each_kind_is_counted() -> None:
    back = replace(a_grant(2), grant_id=uuid7(2))
    history = [
        [burst(FORCE)],
        [burst(ENDED)],
        [window(OPEN)],
        [window(PLANNED, 40)],
        [granted(back), calling(2)],
        [LENT],
        [grant_gone(1), guard()],
    ]
    counted = count_seen(in_revisions(history), KEYS.prefix)
    assert set(counted) == set(KINDS)
    assert {kind for kind, times in counted.items() if times} == {
        "lots-ended",
        "windows-opened",
        "windows-closed",
        "reclaims",
        "borrowed",
        "days-over",
    }
