"""What a pool would have done with a demand: tables and properties."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatkeeper.server.domain import (
    HoldRule,
    Instant,
    Limits,
    PoolPolicy,
    PoolSpec,
    ProjectShare,
    ReclaimRule,
    Refusal,
    Ticket,
)
from seatkeeper.server.policy.fifo import FIFO
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.snapshot import PoolSnapshot
from seatkeeper.server.replay.demand import ARRIVALS_MAX, Arrival, Beginning, fault_of
from seatkeeper.server.replay.outcome import Outcome
from seatkeeper.server.replay.replay import HEEDS_WITHIN, replay
from seatkeeper.server.replay.request import Request

BEGIN = 86_400_000


def a(
    at: float, project: str, hold: float, *, wait: float | None = None, **more: int | str
) -> Arrival:
    """An arrival, in seconds."""
    return Arrival(
        at=Instant(BEGIN + round(at * 1000)),
        project=project,
        hold_millis=round(hold * 1000),
        wait_millis=None if wait is None else round(wait * 1000),
        **more,  # type: ignore[arg-type]  # seats, priority, holder, work_key
    )


def pool(seats: int, *shares: ProjectShare, half_life: float | None = None) -> PoolSpec:
    of = None if half_life is None else timedelta(seconds=half_life)
    return PoolSpec("pool", seats, policy=PoolPolicy(shares, of))


def share(
    project: str, guaranteed: int = 0, limit: int | None = None, parent: str = ""
) -> ProjectShare:
    return ProjectShare(project=project, guaranteed=guaranteed, limit=limit, parent=parent)


def grants(outcome: Outcome) -> list[tuple[str, float]]:
    """Who got seats, and when, in order."""
    served = [each for each in outcome.requests if each.granted_at is not None]
    served.sort(key=lambda each: each.granted_at or 0)
    return [(each.arrival.project, ((each.granted_at or 0) - BEGIN) / 1000) for each in served]


def test_a_team_alone_waits_for_its_own_seats() -> None:
    outcome = replay(pool(1), [a(0, "cv", 10), a(2, "cv", 10), a(3, "cv", 5), a(100, "cv", 1)])
    assert grants(outcome) == [("cv", 0), ("cv", 10), ("cv", 20), ("cv", 100)]
    assert (outcome.used, outcome.idle, outcome.seconds) == (26, 75, 101)
    assert (outcome.held_max, outcome.waiting_max, outcome.idle_while_waited) == (1, 2, 0)
    cv = outcome.projects["cv"]
    assert (cv.requests, cv.served, cv.waiting, cv.refused) == (4, 4, 0, {})
    assert (cv.waits.mean, cv.waits.p50, cv.waits.p95, cv.waits.max) == (6.25, 0, 17, 17)
    assert (cv.waited, cv.waited_for) == (25, {})


def test_idle_guarantees_are_lent_and_the_owner_gets_the_next_seat() -> None:
    """``b`` takes all four at 0; ``a`` is guaranteed two of them, and waits for the first to end."""
    demand = [*(a(0, "b", 10 + n) for n in range(4)), a(1, "b", 5), a(5, "a", 3)]
    outcome = replay(pool(4, share("a", 2), share("b", 1)), demand)
    assert grants(outcome)[4:] == [("a", 10), ("b", 11)]
    # For 10 s b has both of a's; then a has one of them, until b has but two: its own, and a free one.
    assert outcome.lent == 2 * 10 + 1 * (12 - 10)
    of_a, of_b = outcome.projects["a"], outcome.projects["b"]
    assert (of_a.above, of_a.waited_for) == (0, {"b": 5})
    assert of_b.waited_for == {"a": 0} or of_b.waited_for == {}, (
        "a has nothing above its guarantee"
    )
    assert of_b.above == 3 * 10 + 2 * 1 + 2 * 1 + 1 * 1 + 0


def test_a_limit_keeps_a_project_from_idle_seats_and_that_is_not_the_others_fault() -> None:
    demand = [a(0, "a", 10), a(0, "a", 10), a(1, "b", 4)]
    outcome = replay(pool(3, share("a", limit=1)), demand)
    assert grants(outcome) == [("a", 0), ("b", 1), ("a", 10)]
    of_a = outcome.projects["a"]
    assert (of_a.waited, of_a.held_back, of_a.waited_for) == (10, 10, {})
    assert outcome.idle_while_waited == 0


def test_seats_that_are_kept_for_a_large_request_are_idle_while_it_waits() -> None:
    outcome = replay(pool(3), [a(0, "a", 10), a(1, "b", 1, seats=3), a(2, "c", 1)])
    assert grants(outcome) == [("a", 0), ("b", 10), ("c", 11)]
    assert outcome.idle_while_waited == 2 * 9


def test_priority_goes_first_within_a_project() -> None:
    demand = [a(0, "a", 10), a(1, "a", 10), a(2, "a", 10, priority=5)]
    outcome = replay(pool(1), demand)
    assert [each.wait_millis for each in outcome.requests] == [0, 19_000, 8_000]


def test_refusals_have_the_words_of_the_service() -> None:
    demand = [
        a(0, "a", 10),
        a(1, "a", 1, wait=0),
        a(2, "a", 1, wait=3),
        a(3, "b", 1),
        a(3, "a", 1, seats=2),
    ]
    outcome = replay(pool(1, share("b", limit=0)), demand)
    reasons = [each.refusal for each in outcome.requests]
    no_seat, too_many = Refusal.NO_SEAT_FREE, Refusal.TOO_MANY_SEATS
    assert reasons == [None, no_seat, no_seat, too_many, too_many]
    ended = [((each.ended_at or 0) - BEGIN) / 1000 for each in outcome.requests]
    assert ended == [10, 1, 5, 3, 3], "a wait that is over ends then"
    assert "no seat became free in time" in outcome.requests[2].message
    assert (
        "project b may hold no seat of pool pool (rule `limit`)" in outcome.requests[3].message
    )
    assert outcome.projects["a"].refused == {"NO_SEAT_FREE": 2, "TOO_MANY_SEATS": 1}
    assert sum(outcome.refusals.values()) == 4


def test_a_full_queue_refuses_as_a_node_does() -> None:
    demand = [a(n, "a", 100) for n in range(4)]
    outcome = replay(pool(1), demand, limits=Limits(queue_max=2))
    assert [each.refusal for each in outcome.requests] == [None, None, None, Refusal.OVERLOADED]


def test_who_waits_for_the_same_work_is_answered_by_its_end() -> None:
    outcome = replay(pool(2), [a(0, "a", 10, work_key="w"), a(1, "b", 10, work_key="w")])
    first, second = outcome.requests
    assert (first.refusal, second.refusal) == (None, Refusal.WORK_ENDED)
    assert second.ended_at == BEGIN + 10_000
    assert outcome.projects["b"].waited_for == {}
    assert outcome.projects["b"].held_back == 9


def test_a_closed_pool_serves_none_and_the_replay_ends() -> None:
    outcome = replay(pool(0), [a(0, "a", 1), a(5, "a", 1), a(6, "a", 1, wait=0)])
    assert [each.is_waiting for each in outcome.requests] == [True, True, False]
    assert (outcome.projects["a"].waiting, outcome.seconds) == (2, 6)
    assert not outcome.keeps(50, 10**9)


def test_no_demand_is_no_time() -> None:
    outcome = replay(pool(3, share("a", 1)), [])
    assert (outcome.seconds, outcome.used, outcome.idle) == (0, 0, 0)
    assert outcome.projects["a"].requests == 0
    assert outcome.keeps(95, 0)


def test_parts_count_for_the_project_that_they_are_in() -> None:
    """``sub`` holds two of the two that ``top`` is guaranteed: nothing of it is lent."""
    shares = (share("top", 2), share("sub", parent="top"), share("other", 1))
    outcome = replay(pool(3, *shares), [a(0, "sub", 10), a(0, "sub", 10), a(0, "sub", 10)])
    sub = outcome.projects["sub"]
    assert (sub.used, sub.above, outcome.lent) == (30, 10, 10)


def test_what_was_used_counts_where_the_pool_says_so() -> None:
    """``a`` has had the seat for long: with a half-life, ``b`` gets it twice in a row."""
    shares = (share("a"), share("b"))
    demand = [a(0, "a", 100), *(a(n, "a", 1) for n in (1, 2)), *(a(n, "b", 1) for n in (3, 4))]
    held = [name for name, _ in grants(replay(pool(1, *shares), demand))]
    used = [name for name, _ in grants(replay(pool(1, *shares, half_life=1000), demand))]
    assert held == ["a", "a", "a", "b", "b"]
    assert used == ["a", "b", "b", "a", "a"]


def test_more_at_once_than_a_transaction_holds_is_decided_in_several() -> None:
    demand = [a(0, f"p{n % 3}", 1) for n in range(1000)]
    outcome = replay(pool(400), demand)
    assert Counter(each.wait_millis for each in outcome.requests) == {
        0: 400,
        1000: 400,
        2000: 200,
    }


def test_a_policy_whose_plan_changes_with_time_is_asked_again_then() -> None:
    class Later:
        """Serves from the tenth second of the day on."""

        def plan(self, pool: PoolSnapshot, now: Instant) -> Plan:
            opens = Instant(BEGIN + 10_000)
            if now >= opens:
                return FIFO.plan(pool, now)

            def hold_back(ticket: Ticket) -> bool:
                return True

            return Plan(order=pool.by_acceptance, hold_back=hold_back, next_wake=opens)

    outcome = replay(pool(1), [a(1, "a", 2)], policy=Later())
    assert grants(outcome) == [("a", 10)]
    assert outcome.projects["a"].held_back == 9


def test_a_replay_goes_on_from_a_pool_as_it_stands() -> None:
    """Two hold, one of them for too long already; two wait, of which the guaranteed one came last."""
    begin = Beginning(
        at=a(100, "", 0).at,
        holders=[a(50, "b", 60), a(0, "b", 90)],
        queue=[a(60, "b", 10), a(70, "a", 20)],
    )
    spec = pool(2, share("a", 1))
    outcome = replay(spec, [a(105, "a", 1)], begin=begin)
    assert grants(outcome) == [("a", 100), ("b", 110), ("a", 120)]
    assert [each.wait_millis for each in outcome.requests] == [50_000, 30_000, 15_000]
    assert outcome.waited_before == 2
    assert (outcome.began_at, outcome.seconds) == (BEGIN + 100_000, 21)
    assert outcome.used == 10 + 20 + 10 + 1
    assert outcome.projects["b"].requests == 1, "holders are no requests"
    assert outcome == replay(spec, [a(105, "a", 1)], begin=begin)


def test_free_seats_are_given_to_those_who_wait_at_the_beginning() -> None:
    """As when a pool is opened, or gets more seats than it had when it was looked at."""
    begin = Beginning(at=a(100, "", 0).at, queue=[a(1, "a", 5), a(2, "b", 5, wait=3)])
    outcome = replay(pool(1), [], begin=begin)
    assert grants(outcome) == [("a", 100)]
    assert outcome.requests[1].refusal is Refusal.NO_SEAT_FREE
    assert outcome.requests[1].ended_at == BEGIN + 103_000, "a wait counts from the beginning"


def test_more_held_than_there_is_drains_first() -> None:
    begin = Beginning(at=a(0, "", 0).at, holders=[a(0, "a", n) for n in (10, 20, 30)])
    outcome = replay(pool(1), [a(1, "b", 1)], begin=begin)
    assert grants(outcome) == [("b", 30)]
    assert (outcome.held_max, outcome.idle) == (3, 0)


def test_nothing_comes_before_the_beginning() -> None:
    with pytest.raises(ValueError, match="before the beginning"):
        replay(pool(1), [a(1, "a", 1)], begin=Beginning(at=a(2, "", 0).at))


def test_more_arrivals_than_stated_are_refused() -> None:
    demand = [a(0, "a", 1)] * (ARRIVALS_MAX + 1)
    with pytest.raises(ValueError, match="at most 200000"):
        replay(pool(1), demand)


@pytest.mark.parametrize(
    ("arrival", "field"),
    [
        (a(0, "a", 1, seats=0), "seats"),
        (a(0, "a", 1, seats=100_001), "seats"),
        (a(0, "a", -1), "hold"),
        (a(0, "a", 367 * 86_400), "hold"),
        (a(0, "a", 1, wait=-1), "wait"),
        (a(0, "a", 1, priority=1001), "priority"),
        (a(-100_000, "a", 1), "arrival"),
        (a(0, "a", 0), None),
    ],
)
def test_what_an_arrival_may_say(arrival: Arrival, field: str | None) -> None:
    fault = fault_of(arrival)
    assert (fault and fault[0]) == field


arrivals = st.builds(
    a,
    st.integers(0, 60),
    st.sampled_from("abc"),
    st.integers(0, 20),
    wait=st.sampled_from([None, None, 0, 5]),
    seats=st.integers(1, 5),
    priority=st.sampled_from([0, 0, 1]),
    work_key=st.sampled_from(["", "", "", "w"]),
)
shares_ = st.sampled_from(
    [
        (),
        (share("a", 1), share("b", 2, limit=3)),
        (share("a", 1), share("b", limit=2, parent="a"), share("c", 1)),
    ]
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(arrivals, max_size=40), shares_, st.integers(3, 6), st.sampled_from([None, 30.0])
)
def test_every_request_ends_and_no_seat_is_there_twice(
    demand: list[Arrival], shares: tuple[ProjectShare, ...], seats: int, half_life: float | None
) -> None:
    spec = pool(seats, *shares, half_life=half_life if shares else None)
    outcome = replay(spec, demand)
    assert outcome == replay(spec, demand), "the same arguments, the same outcome"
    assert len(outcome.requests) == len(demand)
    for each in outcome.requests:
        is_served = each.granted_at is not None and each.ended_at is not None
        assert is_served + (each.refusal is not None) + each.is_waiting == 1
        if is_served:
            assert each.arrival.at <= (each.granted_at or 0)
            assert (each.ended_at or 0) - (each.granted_at or 0) == each.arrival.hold_millis
        assert not each.is_waiting, "in the end all seats are free, and what can be served is"
    _check_seats(outcome)
    _check_order(outcome.requests)
    held = sum(
        each.arrival.seats * each.arrival.hold_millis
        for each in outcome.requests
        if each.granted_at is not None
    )
    assert outcome.used * 1000 == pytest.approx(held)
    assert outcome.used + outcome.idle == pytest.approx(outcome.seconds * seats)
    assert outcome.lent <= sum(each.above for each in outcome.projects.values()) + 1e-6


def _check_seats(outcome: Outcome) -> None:
    """Sweep over all grants: never more than there are, nor than a limit."""
    changes: list[tuple[int, int, str]] = []
    for each in outcome.requests:
        if each.granted_at is not None and each.ended_at is not None:
            changes.append((each.granted_at, each.arrival.seats, each.arrival.project))
            changes.append((each.ended_at, -each.arrival.seats, each.arrival.project))
    held: Counter[str] = Counter()
    for _, seats, project in sorted(changes):
        held[project] += seats
        assert held.total() <= outcome.spec.seats
        for name, share_ in outcome.spec.policy.shares.items():
            parts = (name, *outcome.spec.policy.parts.get(name, ()))
            assert share_.limit is None or sum(held[part] for part in parts) <= share_.limit


def _check_order(requests: Sequence[Request]) -> None:
    """Within a project and priority, by arrival: but for work, and what does not wait."""
    latest: dict[tuple[str, int], int] = {}
    for each in requests:
        arrival = each.arrival
        if each.granted_at is None or arrival.work_key or arrival.wait_millis == 0:
            continue
        key = (arrival.project, arrival.priority)
        assert each.granted_at >= latest.get(key, 0)
        latest[key] = each.granted_at


def recalling(notice: float, minimum_hold: float = 0, hourly: int = 60) -> PoolSpec:
    rule = ReclaimRule(timedelta(seconds=notice), timedelta(seconds=minimum_hold), hourly)
    shares = (ProjectShare(project="cv", guaranteed=1), ProjectShare(project="nlp"))
    return PoolSpec("pool", 2, policy=PoolPolicy(shares, reclaim=rule))


def test_lent_seats_are_called_back_and_taken_when_the_notice_is_over() -> None:
    lent = [a(0, "nlp", 1_000), a(1, "nlp", 1_000)]
    outcome = replay(recalling(notice=30), [*lent, a(10, "cv", 50)])
    first, second, asker = outcome.requests
    within = 30 + HEEDS_WITHIN.total_seconds()
    assert asker.wait_millis == within * 1000, "at the end of the notice, and not before"
    assert (first.is_reclaimed, second.is_reclaimed) == (False, True), "the youngest"
    assert second.ended_at == BEGIN + (10 + within) * 1000
    assert outcome.reclaimed == 1
    assert outcome.projects["nlp"].reclaimed == 1


def test_nothing_is_taken_that_comes_back_by_itself_in_time() -> None:
    outcome = replay(
        recalling(notice=30), [a(0, "nlp", 1_000), a(1, "nlp", 20), a(10, "cv", 5)]
    )
    assert outcome.requests[2].wait_millis == 11_000
    assert outcome.reclaimed == 0


def test_a_minimum_hold_and_a_bound_put_it_off() -> None:
    lent = [a(0, "nlp", 9_000), a(0, "nlp", 9_000)]
    outcome = replay(recalling(notice=30, minimum_hold=100), [*lent, a(10, "cv", 5)])
    within = 30 + HEEDS_WITHIN.total_seconds()
    assert outcome.requests[2].wait_millis == (100 - 10 + within) * 1000
    asks = [a(10, "cv", 5), a(200, "nlp", 9_000), a(400, "cv", 5)]
    outcome = replay(recalling(notice=30, hourly=1), [*lent, *asks])
    last = outcome.requests[4]
    assert last.granted_at == BEGIN + (10 + 3_600 + within) * 1000, "an hour after the first"


def test_what_is_held_for_too_long_ends_whether_anybody_waits_or_not() -> None:
    hold = HoldRule(timedelta(seconds=20), longest=timedelta(seconds=100))
    spec = PoolSpec("pool", 1, policy=PoolPolicy(hold=hold))
    alone = replay(spec, [a(0, "nlp", 1_000)])
    (held,) = alone.requests
    assert held.is_reclaimed
    assert held.ended_at == BEGIN + 100_000
    outcome = replay(spec, [a(0, "nlp", 1_000), a(10, "cv", 50)])
    first, second = outcome.requests
    assert first.ended_at == BEGIN + 100_000
    assert second.granted_at == BEGIN + 100_000
    assert (second.is_reclaimed, second.ended_at) == (False, BEGIN + 150_000)


def test_what_counts_once_takes_one_seat_and_waits_for_none() -> None:
    spec = PoolSpec("pool", 1, policy=PoolPolicy(count_once=("holder", "host")))
    asked = [(0, 10, "ada"), (2, 20, "ada"), (3, 5, "bo"), (4, 1, "ada")]
    arrivals = [a(at, "cv", hold, holder=who, host="ws1") for at, hold, who in asked]
    outcome = replay(spec, arrivals)
    assert grants(outcome) == [("cv", 0), ("cv", 2), ("cv", 4), ("cv", 22)]
    assert (outcome.used, outcome.held_max) == (27, 1)


def test_who_shared_a_seat_before_goes_on_sharing_it() -> None:
    spec = PoolSpec("pool", 1, policy=PoolPolicy(count_once=("label:display",)))
    group = (("project", "cv"), ("label:display", ":0"))
    holders = [replace(a(0, "cv", hold), group=group) for hold in (10, 20)]
    waits = replace(a(0, "cv", 5), labels=(("display", ":0"),))
    begin = Beginning(at=Instant(BEGIN), holders=holders, queue=[waits])
    outcome = replay(spec, [a(1, "cv", 1)], begin=begin)
    assert outcome.held_max == 1
    assert grants(outcome) == [("cv", 0), ("cv", 20)]
