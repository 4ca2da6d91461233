"""The checker of windows: what was written wrongly, and seats that were kept for others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.kit import KEYS, NOW, POOL, a_grant, a_ticket, changed, in_revisions

from seatkeeper.core.counting import Counting
from seatkeeper.core.lot_use import LotMarks, LotSeats
from seatkeeper.core.lots import Lot, LotState, PoolLots
from seatkeeper.core.pool_rules import HolderGroup, PoolRules, Who
from seatkeeper.core.projects import Overtaking
from seatkeeper.core.reservations import (
    PoolWindows,
    Reservation,
    Schedule,
    Window,
    WindowState,
)
from seatkeeper.oracle.history import FaultKind, replay
from seatkeeper.oracle.windows import check_windows, unwritten_windows
from seatkeeper.server.domain import (
    Cause,
    Grant,
    Guard,
    Instant,
    PoolPolicy,
    PoolSpec,
    Reclaim,
    Reclaims,
    Ticket,
)
from seatkeeper.server.domain.advisory import AdvisoryMark
from seatkeeper.server.store import Change, Entry, records

CI = Reservation(
    "ci", 2, Who(projects=("c*",), groups=("ops",)), Schedule("FREQ=DAILY", opens=0, closes=60)
)
RULES = PoolRules((HolderGroup("ops", ("op-*",)),))
PLANNED = Window("ci", NOW, NOW + 1000)
OPEN = Window("ci", NOW, NOW + 1000, WindowState.OPEN, NOW)
CLOSED = Window("ci", NOW, NOW + 1000, WindowState.CLOSED, NOW, NOW + 1000)
NEXT = Window("ci", NOW + 5000, NOW + 6000)
SKEW = 100


def stored(key: str, value: bytes) -> Change:
    return Change(key, Entry(key, value, 1, 0), 0)


def spec(*windows: Window, seats: int = 3, reservation: Reservation = CI) -> Change:
    policy = PoolPolicy(rules=RULES, reservations=(reservation,))
    value = PoolSpec(POOL, seats, policy=policy, windows=PoolWindows(windows))
    return stored(KEYS.pool(POOL), records.encode_spec(value))


def faults(*written: tuple[Change, int]) -> list[str]:
    changes = in_revisions([change] for change, _ in written)
    at = {number: float(NOW + late) for number, (_, late) in enumerate(written, start=2)}
    return list(check_windows(changes, at, skew_millis=SKEW, prefix=KEYS.prefix))


def test_what_is_written_in_its_order_and_time_is_right() -> None:
    assert (
        faults((spec(PLANNED), -900), (spec(OPEN), 0), (spec(CLOSED), 1000), (spec(NEXT), 1001))
        == []
    )
    assert faults((spec(PLANNED), -900), (spec(OPEN), -90), (spec(NEXT), 910)) == []
    assert faults((spec(PLANNED), -900), (spec(NEXT), 1500)) == []


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ([(spec(OPEN), -101)], "at the latest, before"),
        ([(spec(Window("ci", NOW, NOW + 9, WindowState.OPEN, NOW - 1)), 5)], "before"),
        ([(spec(Window("ci", NOW, NOW + 9, WindowState.OPEN)), 5)], "since None"),
        ([(spec(OPEN), 0), (spec(PLANNED), 1)], "went from"),
        ([(spec(CLOSED), 1000), (spec(OPEN), 1001)], "went from"),
        ([(spec(NEXT), 1000), (spec(OPEN), 1001)], "went from"),
        ([(spec(OPEN), 0), (spec(NEXT), 800)], "follows at"),
        (
            [(spec(OPEN), 0), (spec(Window("ci", NOW + 500, NOW + 1500)), 2000)],
            "before the one",
        ),
        (
            [
                (spec(OPEN), 0),
                (spec(Window("ci", NOW, NOW + 1000, WindowState.OPEN, NOW + 1)), 5),
            ],
            "went",
        ),
    ],
)
def test_what_is_written_wrongly(written: list[tuple[Change, int]], said: str) -> None:
    assert said in faults(*written)[0]


def test_what_is_due_and_not_written() -> None:
    changes = in_revisions([[spec(PLANNED)]])
    assert list(unwritten_windows(changes, NOW, KEYS.prefix)) == []
    assert len(list(unwritten_windows(changes, NOW + 1, KEYS.prefix))) == 1
    closed = in_revisions([[spec(CLOSED)]])
    assert list(unwritten_windows(closed, NOW + 99_999, KEYS.prefix)) == []


def kinds(*revisions: Iterable[Change]) -> list[FaultKind]:
    return [fault.kind for fault in replay(in_revisions(revisions), KEYS.prefix)[POOL].faults]


def granted(*grants: Grant) -> list[Change]:
    return [
        stored(KEYS.grant(POOL, each.grant_id), records.encode_grant(each)) for each in grants
    ]


def queued(*tickets: Ticket) -> list[Change]:
    return [
        stored(KEYS.ticket(POOL, each.grant_id), records.encode_ticket(each))
        for each in tickets
    ]


def g(number: int, project: str = "nlp", seats: int = 1, holder: str = "a") -> Grant:
    grant = a_grant(number, fence=number, session=f"s{number}", seats=seats)
    return changed(grant, project=project, holder=holder)


def t(number: int, project: str = "nlp", seats: int = 1) -> Ticket:
    return changed(a_ticket(number, session=f"s{number}", seats=seats), project=project)


@pytest.mark.parametrize(
    ("grants", "expected"),
    [
        ([g(1)], []),
        ([g(1), g(2)], [FaultKind.KEPT]),
        ([g(1, seats=2)], [FaultKind.KEPT]),
        ([g(1), g(2, "cv"), g(3, "cv")], []),
        ([g(1, "cv", 2), g(2)], []),
        ([g(1, "cv", 3)], []),
        ([g(1, holder="op-1"), g(2, holder="op-2"), g(3)], []),
        ([g(1, "cv"), g(2), g(3)], [FaultKind.KEPT]),
    ],
)
def test_grants_that_take_what_is_kept_for_others(
    grants: list[Grant], expected: list[FaultKind]
) -> None:
    assert kinds([spec(OPEN)], granted(*grants)) == expected
    assert kinds([spec(PLANNED)], granted(*grants)) == [], "no window is open"


def test_what_contracts_allow_beyond_the_seats_in_force_is_free_too() -> None:
    """Two of three seats are kept, and one more may be granted: so two are for all."""
    contract = Lot(name="acme", seats=3, state=LotState.IN_FORCE, began_at=1, overdraft=1)
    lots = PoolLots((contract,))
    policy = PoolPolicy(reservations=(replace(CI, who=Who(projects=("cv",))),))
    value = PoolSpec(POOL, 3, policy=policy, lots=lots, windows=PoolWindows((OPEN,)))
    known = [stored(KEYS.pool(POOL), records.encode_spec(value))]

    def marked(number: int) -> Grant:
        return replace(g(number), marks=LotMarks((LotSeats("acme", 1, 1),)))

    assert kinds(known, granted(marked(1), marked(2))) == []
    assert kinds(known, granted(*map(marked, (1, 2, 3)))) == [FaultKind.KEPT]


def test_seats_may_be_kept_for_hosts() -> None:
    builders = replace(CI, who=Who(hosts=("Build-*",)))
    assert kinds([spec(OPEN, reservation=builders)], granted(g(1), g(2))) == [FaultKind.KEPT]
    there = [changed(g(number), host="build-7") for number in (1, 2)]
    assert kinds([spec(OPEN, reservation=builders)], granted(*there, g(3))) == []
    none = [spec(OPEN, reservation=builders)]
    assert kinds(none, granted(changed(g(1), host="desk"), g(2))) == [FaultKind.KEPT]


def test_an_advisory_pool_keeps_nothing_back() -> None:
    policy = PoolPolicy(
        counting=Counting(is_advisory=True),
        reservations=(replace(CI, who=Who(projects=("cv",))),),
    )
    value = PoolSpec(POOL, 3, policy=policy, windows=PoolWindows((OPEN,)))
    known = [stored(KEYS.pool(POOL), records.encode_spec(value))]
    mark = AdvisoryMark("reservation ci", "said", 0)
    assert kinds(known, granted(g(1), replace(g(2), mark=mark))) == []


def test_who_takes_what_is_kept_for_it_passes_others_and_no_further() -> None:
    waiting = queued(t(1, seats=3))
    assert kinds([spec(OPEN)], waiting, granted(g(2, "cv"), g(3, "cv"))) == []
    assert kinds([spec(OPEN)], waiting, granted(g(2, "cv", 3))) == [FaultKind.ORDER]
    assert kinds([spec(OPEN)], waiting, granted(g(2))) == [FaultKind.ORDER]
    own = queued(t(1, "cv", 3))
    assert kinds([spec(OPEN)], own, granted(g(2, "cv"))) == [FaultKind.ORDER]


@pytest.mark.parametrize(
    ("grant", "seats", "expected"),
    [
        (g(2, "cv", 3), 3, []),  # two of them were kept for it, and one may be overtaken with
        (g(2, "cv", 3), 2, [FaultKind.ORDER]),
        (g(2, "nlp", 1), 3, []),
    ],
)
def test_one_that_has_seats_kept_overtakes_one_that_wants_as_many(
    grant: Grant, seats: int, expected: list[FaultKind]
) -> None:
    rule = Overtaking(seats, timedelta(seconds=60))
    policy = PoolPolicy(reservations=(CI,), overtaking=rule, rules=RULES)
    made = PoolSpec(POOL, 3, policy=policy, windows=PoolWindows((OPEN,)))
    known = [stored(KEYS.pool(POOL), records.encode_spec(made))]
    assert kinds(known, queued(t(1, seats=3)), granted(grant)) == expected


def test_a_window_that_calls_back_may_open_by_its_notice_and_a_minute_earlier() -> None:
    calls = replace(CI, notice=2_000)
    early = replace(PLANNED, state=WindowState.OPEN, opened_at=NOW - 62_000)
    planned = spec(PLANNED, reservation=calls), -70_000
    assert faults(planned, (spec(early, reservation=calls), -62_000)) == []
    too_early = replace(early, opened_at=NOW - 62_001)
    (why,) = faults(planned, (spec(too_early, reservation=calls), -62_001))
    assert "before" in why
    assert faults((spec(PLANNED), -70_000), (spec(early), -62_000)), "and no other one"


def called_back(
    windows: Window, grant: Grant, *, cause: Cause = Cause.RESERVATION, notice: int = 2_000
) -> list[str]:
    """What is wrong with calling a grant back within 12 s, of a client that heeds within 10."""
    calls = replace(CI, notice=notice)
    reclaim = Reclaim(1, Instant(NOW), timedelta(seconds=12), "", cause, "x")
    guard = Guard(9, 9, reclaims=Reclaims({grant.grant_id: reclaim}, (), 1))
    return [
        fault.message
        for fault in replay(
            in_revisions(
                (
                    [spec(windows, reservation=calls)],
                    granted(grant),
                    [stored(KEYS.guard(POOL), records.encode_guard(guard))],
                )
            ),
            KEYS.prefix,
        )[POOL].faults
        if fault.kind is FaultKind.CALLED_BACK
    ]


def test_what_windows_call_back_must_be_theirs_to_call() -> None:
    other = replace(g(1), heeds_within=timedelta(seconds=10))
    assert called_back(OPEN, other) == []
    (closed,) = called_back(PLANNED, other)
    assert "none is open that does so" in closed
    (silent,) = called_back(OPEN, other, notice=0)
    assert "none is open that does so" in silent
    (short,) = called_back(OPEN, other, notice=2_001)
    assert "within 12000 ms, under 12001" in short
    (own,) = called_back(OPEN, replace(g(1, "ci"), heeds_within=timedelta(seconds=10)))
    assert "is for its holder" in own
