"""A trial runs its scenarios, and reports what each proves, once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from textwrap import dedent

import pytest
from tests.unit.kit import KEYS, NOW, POOL, a_grant, create_pool, uuid7

from seatkeeper.chaos import trial as trial_module
from seatkeeper.chaos.faults import Fault
from seatkeeper.chaos.result import Outcome, ScenarioResult
from seatkeeper.chaos.scenario import Scenario, ScenarioError, parse
from seatkeeper.chaos.trial import Mix, Trial, TrialConfig, held_at
from seatkeeper.chaos.worker import WorkerConfig
from seatkeeper.chaos.worker_pool import Heartbeat, WorkerPool, WorkerPoolError
from seatkeeper.oracle import witness as witness_module
from seatkeeper.oracle.checker import Invariant, Violation
from seatkeeper.oracle.record import Acquired, Attack, Believed, Denied, Prevented
from seatkeeper.oracle.witness import Witness
from seatkeeper.server.domain import Instant, Stay
from seatkeeper.server.store import Delete, MemoryStore, Put, StoreRefused, records, stays

LONG = 1000.0
"""Seconds that a request has been under way without an answer: since before every fault."""
TTL = 8.0


@dataclass
class RunningClock:
    """Every look at it takes a quarter of a second, unless it is set to stand still."""

    seconds: float = field(default_factory=time.monotonic)
    look: float = 0.25

    def monotonic(self) -> float:
        self.seconds += self.look
        return self.seconds


class FakeWorkerPool(WorkerPool):
    """Users who are what a test says they are."""

    def __init__(self) -> None:
        super().__init__(_no_worker, workers=0, folder=Path())
        self.heartbeat = Heartbeat()
        self.answers_a_second = 100.0
        self.looks_until_served = 0
        self.unfinished: list[str] = []
        self.changes = 0
        self.ended = ""

    @property
    def heartbeats(self) -> Heartbeat:
        self.looks_until_served -= self.looks_until_served > 0
        return replace(self.heartbeat, longest=LONG if self.looks_until_served else 0.0)

    @property
    def rate(self) -> float:
        return self.answers_a_second

    def check(self) -> None:
        if self.ended:
            raise WorkerPoolError(self.ended)

    async def stop(self) -> list[str]:
        return self.unfinished

    async def change(self) -> list[str]:
        self.changes += 1
        return self.unfinished


def _no_worker(name: str, number: int) -> WorkerConfig:
    raise AssertionError("no worker starts here")


@dataclass
class FakeEnvironment:
    """Faults that are only written down."""

    events: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    """What is wrong, look after look; then nothing is."""
    broken: str = ""
    """What is wrong at every look."""
    at_last: str = ""
    """What is wrong when all is over."""
    on_injection: dict[str, Callable[[], Awaitable[None] | None]] = field(default_factory=dict)
    restarts: list[float] = field(default_factory=list)
    grown: list[Violation] = field(default_factory=list)

    @property
    def faults(self) -> Mapping[str, Fault]:
        return {name: partial(self._inject, name) for name in ("Rain.falls", "Lock.sticks")}

    @asynccontextmanager
    async def _inject(self, name: str) -> AsyncIterator[str]:
        self.events.append(name)
        if name in self.on_injection and (awaitable := self.on_injection[name]()) is not None:
            await awaitable
        try:
            yield f"where {name}"
        finally:
            self.events.append(f"{name} is over")

    async def trouble(self) -> str:
        return self.broken or (self.troubles.pop(0) if self.troubles else "")

    async def trouble_at_last(self, pools: Iterable[str]) -> str:
        return f"{' '.join(pools)} {self.at_last}" if self.at_last else ""

    def lease_restarts(self) -> Sequence[float]:
        return self.restarts

    def growth(self) -> Iterator[Violation]:
        while self.grown:
            yield self.grown.pop()


@dataclass
class Play:
    """What a trial is made of, and how to run it."""

    clock: RunningClock
    stage: FakeEnvironment = field(default_factory=FakeEnvironment)
    worker_pool: FakeWorkerPool = field(default_factory=FakeWorkerPool)
    witness: Witness | None = None
    said: list[str] = field(default_factory=list)
    ttl_max: float = TTL
    before_end: Callable[[], Awaitable[None]] | None = None
    at_work: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.outcome = Outcome(target="a stage", checked_by="a test", capacity=1)

    @property
    def trial(self) -> Trial:
        config = TrialConfig(pools={POOL: 1}, ttl_max=self.ttl_max)
        worker_pool, notify = self.worker_pool, self.said.append
        return Trial(
            self.stage,
            *(worker_pool, self.witness, config, self.outcome, notify, self.before_end),
            mixes={
                each: Mix(begin=partial(self.at_work.append, each)) for each in ("", "policy")
            },
        )

    async def run(self, *scenarios: Scenario, conclude: bool = False) -> list[ScenarioResult]:
        trial = self.trial
        await trial.run(scenarios)
        if conclude:
            await trial.conclude()
        return self.outcome.scenario_results

    async def run_one(self, text: str) -> ScenarioResult:
        (scenario_result,) = await self.run(user_record(text))
        return scenario_result


def user_record(text: str, name: str = "mine") -> Scenario:
    return parse(name, f"About this.\n\n{dedent(text)}")


NOTHING = user_record("calm for 0 s", "nothing")
RAIN = user_record("Rain.falls", "rain")


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """A stage that is whole, and busy users."""
    clock = RunningClock()
    monkeypatch.setattr(trial_module, "time", clock)
    monkeypatch.setattr(trial_module, "SAMPLE_SECONDS", 0.001)
    return Play(clock)


@pytest.fixture
async def store(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MemoryStore]:
    """A store with a pool of one seat."""
    monkeypatch.setattr(witness_module, "LOOK_SECONDS", 0.005)
    monkeypatch.setattr(witness_module, "RETRY_SECONDS", 0.005)
    store = MemoryStore()
    store.start_expiry(timedelta(milliseconds=5))
    await create_pool(store, seats=1)
    yield store
    await store.close()


@pytest.fixture
async def watched(play: Play, store: MemoryStore) -> AsyncIterator[Play]:
    """The same, with a witness."""
    play.witness = Witness(store, KEYS.prefix)
    await play.witness.start()
    yield play
    await play.witness.stop()


async def grant(store: MemoryStore, *numbers: int, session: str = "anna") -> None:
    grants = [a_grant(number, fence=number, session=session) for number in numbers]
    await store.commit(
        [Put(KEYS.grant(POOL, each.grant_id), records.encode_grant(each)) for each in grants]
    )


async def end(store: MemoryStore, *numbers: int) -> None:
    await store.commit([Delete(KEYS.grant(POOL, uuid7(number))) for number in numbers])


# The scenario ------------------------------------------------------------------------------


async def test_faults_are_injected_in_the_order_of_the_scenario(play: Play) -> None:
    scenario_result = await play.run_one(
        """\
        2 times
            Rain.falls while
                Lock.sticks
            calm for 0 s
        Lock.sticks for 0.001 s
        """
    )

    rain = ["Rain.falls", "Lock.sticks", "Lock.sticks is over", "Rain.falls is over"]
    assert play.stage.events == [*rain, *rain, "Lock.sticks", "Lock.sticks is over"]
    assert [each.fault for each in scenario_result.injected] == [
        *("Rain.falls", "Lock.sticks") * 2,
        "Lock.sticks",
    ]
    assert scenario_result.injected[1].place == "where Lock.sticks"
    assert (scenario_result.inconclusive, scenario_result.violations) == ("", [])
    assert play.outcome.faults == 5


async def test_each_fault_has_the_times_of_its_injection_and_its_end(
    play: Play,
) -> None:
    scenario_result = await play.run_one("Rain.falls while\n    Lock.sticks\n")
    rain, service = scenario_result.injected
    times = [
        scenario_result.began,
        rain.since,
        service.since,
        service.until,
        rain.until,
        scenario_result.ended,
    ]
    assert times == sorted(times)
    assert scenario_result.began >= 0.0


async def test_a_result_counts_what_happened_in_it(play: Play) -> None:
    def work() -> None:
        play.worker_pool.heartbeat.operations += 7
        play.worker_pool.heartbeat.unknown += 2
        play.worker_pool.record.acquired.append(Acquired("anna", POOL, uuid7(1), 1, 1, 0.0))

    play.stage.on_injection = {"Rain.falls": work}
    scenario_results = await play.run(
        user_record("3 times\n    Rain.falls", "thrice"), NOTHING, RAIN
    )

    counts = [(each.requests, each.acknowledged, each.unanswered) for each in scenario_results]
    assert counts == [(21, 3, 6), (0, 0, 0), (7, 1, 2)]
    assert play.said == [
        "thrice: About this.",
        "  3 faults, 3 answers checked: kept",
        "nothing: About this.",
        "  0 faults, 0 answers checked: kept",
        "rain: About this.",
        "  1 faults, 1 answers checked: kept",
    ]


async def test_what_users_see_is_sampled_as_long_as_it_runs(play: Play) -> None:
    play.worker_pool.heartbeat = Heartbeat(held=3, asking=2)
    await play.run(NOTHING, RAIN)
    samples = list(play.outcome.samples)
    assert {(each.held, each.asking, each.acknowledged) for each in samples} == {(3, 2, 0)}
    assert [each.at for each in samples] == sorted(each.at for each in samples)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_unknown_fault_is_reported_before_the_run(play: Play) -> None:
    unknown = user_record("Rain.falls\nKillNode.owner", "unknown")
    with pytest.raises(ScenarioError) as caught:
        await play.run(RAIN, unknown)
    assert str(caught.value) == (
        "unknown, line 4: KillNode.owner cannot be done here; what can: Lock.sticks, Rain.falls"
    )
    assert play.stage.events == []
    assert play.outcome.scenario_results == []


async def test_others_are_at_work_where_a_scenario_says_so(play: Play) -> None:
    theirs = user_record("users: policy\ncalm for 0 s", "theirs")
    play.worker_pool.unfinished = ["bob"]
    results = await play.run(NOTHING, theirs, theirs, NOTHING)
    assert play.at_work == ["policy", ""]
    assert play.worker_pool.changes == 2
    said = [each.violations for each in results]
    assert said == [[], ["I8 bob had not finished"], [], ["I8 bob had not finished"]]


async def test_unknown_users_are_reported_before_the_run(play: Play) -> None:
    with pytest.raises(ScenarioError, match=r"users robots are not to be had here; .*: policy"):
        await play.run(RAIN, user_record("users: robots\ncalm for 0 s"))
    assert play.stage.events == []


async def test_a_scenario_in_which_nothing_happened_that_it_needs_proves_nothing(
    watched: Play, store: MemoryStore
) -> None:
    lots = user_record("needs: kept\nRain.falls")
    (without,) = await watched.run(lots)
    assert without.inconclusive == "it did not happen meanwhile: kept"

    async def keep() -> None:
        value = stays.encode_stay(Stay(a_grant(1), Instant(NOW), Instant(NOW + 1000)))
        await store.commit([Put(KEYS.stay(POOL, uuid7(1)), value)])

    watched.stage.on_injection["Rain.falls"] = keep
    *_, seen = await watched.run(lots)
    assert (seen.inconclusive, seen.seen) == ("", {"kept": 1})
    assert any("kept 1" in line for line in watched.said)


async def test_faults_recover_when_users_end_by_themselves_during_them(play: Play) -> None:
    def end_by_themselves() -> None:
        play.worker_pool.ended = "users-1 ended: a bug"

    play.stage.on_injection = {"Lock.sticks": end_by_themselves}
    text = "Rain.falls while\n    Lock.sticks while\n        calm for 1000 s\n"
    with pytest.raises(WorkerPoolError, match="users-1 ended: a bug"):
        await play.run_one(text)
    assert play.stage.events == [
        *("Rain.falls", "Lock.sticks"),
        *("Lock.sticks is over", "Rain.falls is over"),
    ]
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize(
    ("error", "reported"), [(TimeoutError(), ""), (TimeoutError("stuck"), ": stuck")]
)
async def test_a_fault_that_cannot_be_injected_in_time_makes_the_result_inconclusive(
    play: Play, error: TimeoutError, reported: str
) -> None:
    def hang() -> None:
        raise error

    play.stage.on_injection = {"Lock.sticks": hang}
    scenario_results = await play.run(
        user_record("Rain.falls while\n    Lock.sticks\nRain.falls"), RAIN
    )
    assert (
        scenario_results[0].inconclusive == f"Lock.sticks could not be done in time{reported}"
    )
    assert play.stage.events == [
        *("Rain.falls", "Lock.sticks", "Rain.falls is over"),
        *("Rain.falls", "Rain.falls is over"),
    ]
    assert scenario_results[1].inconclusive == ""


# What a scenario proves --------------------------------------------------------------------


async def test_an_unhealthy_service_makes_a_result_inconclusive_and_breaks_a_promise(
    play: Play,
) -> None:
    play.stage.broken = "node-2 does not answer"
    scenario_result = await play.run_one("Rain.falls")
    assert scenario_result.inconclusive == "node-2 does not answer"
    assert scenario_result.violations == ["I8 not whole after 10 s: node-2 does not answer"]
    assert play.stage.events == []
    assert (play.outcome.inconclusive, play.outcome.violations) == (1, 1)
    assert play.said[1:] == [
        "  VIOLATION I8 not whole after 10 s: node-2 does not answer",
        "  0 faults, 0 answers checked: violations: 1",
    ]


async def test_after_a_fault_the_service_must_be_whole_before_the_next(play: Play) -> None:
    def break_it() -> None:
        play.stage.broken = "no leader"

    play.stage.on_injection = {"Rain.falls": break_it}
    scenario_result = await play.run_one("Rain.falls\nLock.sticks")
    assert scenario_result.inconclusive == "no leader"
    assert scenario_result.violations == ["I8 not whole after 10 s: no leader"]
    assert play.stage.events == ["Rain.falls", "Rain.falls is over"]
    assert [each.fault for each in scenario_result.injected] == ["Rain.falls"]


async def test_a_service_may_take_a_while_to_be_whole(play: Play) -> None:
    play.stage.troubles = ["not yet"] * 5
    play.stage.on_injection = {"Rain.falls": lambda: play.stage.troubles.extend(["wet"] * 5)}
    scenario_result = await play.run_one("Rain.falls\nLock.sticks")
    assert (scenario_result.inconclusive, scenario_result.violations) == ("", [])
    assert play.stage.troubles == []
    assert len(scenario_result.injected) == 2


async def test_during_a_fault_the_service_need_not_be_healthy(play: Play) -> None:
    def break_it() -> None:
        play.stage.broken = "no leader"

    def repair_it() -> None:
        play.stage.broken = ""

    play.stage.on_injection = {"Rain.falls": break_it, "Lock.sticks": repair_it}
    scenario_result = await play.run_one("Rain.falls while\n    Lock.sticks")
    assert (scenario_result.inconclusive, scenario_result.violations) == ("", [])


async def test_a_fault_without_traffic_proves_nothing(play: Play) -> None:
    play.worker_pool.answers_a_second = 9.9
    scenario_results = await play.run(RAIN, NOTHING)
    assert scenario_results[0].inconclusive == "9.9 answers a second before a fault, 10 needed"
    assert scenario_results[0].violations == []
    assert play.stage.events == []
    assert scenario_results[1].inconclusive == ""
    assert (
        play.said[1]
        == f"  0 faults, 0 answers checked: inconclusive: {scenario_results[0].inconclusive}"
    )


async def test_what_comes_on_top_of_a_fault_needs_no_traffic(play: Play) -> None:
    def silence() -> None:
        play.worker_pool.answers_a_second = 0.0

    play.stage.on_injection = {"Rain.falls": silence}
    text = "Rain.falls while\n    2 times\n        Lock.sticks\n"
    scenario_results = await play.run(
        user_record(text, "on-top"), user_record("Lock.sticks", "alone")
    )

    assert [each.fault for each in scenario_results[0].injected] == [
        "Rain.falls",
        *("Lock.sticks", "Lock.sticks"),
    ]
    assert scenario_results[0].inconclusive == ""
    assert "0.0 answers a second" in scenario_results[1].inconclusive


async def test_a_request_that_stays_under_way_after_a_fault_breaks_a_promise(
    play: Play,
) -> None:
    def hang() -> None:
        play.worker_pool.looks_until_served = 1_000_000

    play.stage.on_injection = {"Rain.falls": hang}
    scenario_result = await play.run_one("Rain.falls")
    reported = "I8 a request has been under way for 1000.0 s, 10 s of them after Rain.falls"
    assert set(scenario_result.violations) == {reported}
    assert scenario_result.inconclusive == ""


async def test_a_request_that_is_served_at_last_breaks_none(play: Play) -> None:
    def hang() -> None:
        play.worker_pool.looks_until_served = 6

    play.stage.on_injection = {"Rain.falls": hang}
    scenario_result = await play.run_one("Rain.falls")
    assert (scenario_result.inconclusive, scenario_result.violations) == ("", [])
    assert play.worker_pool.looks_until_served == 0


# What is checked ----------------------------------------------------------------------------


async def test_one_seat_too_many_is_reported_once_and_in_the_scenario_where_it_was_found(
    watched: Play, store: MemoryStore
) -> None:
    watched.stage.on_injection = {"Rain.falls": lambda: grant(store, 1, 2)}
    scenario_results = await watched.run(
        NOTHING, RAIN, NOTHING, user_record("Lock.sticks", "lock")
    )
    assert [len(each.violations) for each in scenario_results] == [0, 1, 0, 0]
    assert scenario_results[1].violations[0].startswith(f"I1 {POOL}, revision 3: ")


async def test_each_seat_too_many_is_reported(watched: Play, store: MemoryStore) -> None:
    numbers = iter(range(2, 10))
    await grant(store, 1)
    watched.stage.on_injection = {"Rain.falls": lambda: grant(store, next(numbers))}
    scenario_results = await watched.run(
        RAIN, NOTHING, user_record("2 times\n    Rain.falls", "twice")
    )
    assert [len(each.violations) for each in scenario_results] == [1, 0, 2]


async def test_an_inconclusive_scenario_is_checked_as_well(
    watched: Play, store: MemoryStore
) -> None:
    await grant(store, 1, 2)
    watched.worker_pool.answers_a_second = 0.0
    (scenario_result,) = await watched.run(RAIN)
    assert scenario_result.inconclusive
    assert [violation[:2] for violation in scenario_result.violations] == ["I1"]


async def test_pools_of_others_are_not_checked(watched: Play, store: MemoryStore) -> None:
    await create_pool(store, seats=1, name=f"{POOL}-of-others")
    for number in (1, 2):
        theirs = a_grant(number)
        key = KEYS.grant(f"{POOL}-of-others", theirs.grant_id)
        await store.commit([Put(key, records.encode_grant(theirs))])
    (scenario_result,) = await watched.run(RAIN)
    assert scenario_result.violations == []


class LateAnswers(Witness):
    """While it catches up, a user is notified of a grant."""

    worker_pool: FakeWorkerPool

    async def catch_up(self) -> None:
        await super().catch_up()
        self.worker_pool.record.acquired[:] = [Acquired("anna", POOL, uuid7(7), 7, 1, 0.0)]


async def test_answers_that_come_during_a_check_are_checked_next_time(
    play: Play, store: MemoryStore
) -> None:
    """Of those, the history may not have been seen yet."""
    witness = play.witness = LateAnswers(store, KEYS.prefix)
    witness.worker_pool = play.worker_pool
    await witness.start()
    scenario_results = await play.run(NOTHING, NOTHING)
    await witness.stop()

    assert scenario_results[0].violations == []
    (violation,) = scenario_results[1].violations
    assert violation.startswith("I3 Acquired(user='anna'")
    assert violation.endswith("is in no revision")


class Unreadable(Witness):
    """Cannot catch up."""

    error: Exception

    async def catch_up(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "reported"),
    [(TimeoutError(), "no answer"), (StoreRefused("wrong password"), "wrong password")],
)
async def test_a_history_that_cannot_be_read_breaks_a_promise(
    play: Play, store: MemoryStore, error: Exception, reported: str
) -> None:
    play.witness = witness = Unreadable(store, KEYS.prefix)
    witness.error = error
    (scenario_result,) = await play.run(NOTHING)
    assert scenario_result.violations == [f"I8 etcd's history cannot be read: {reported}"]


async def test_a_history_with_a_gap_is_not_checked_and_that_is_reported(
    watched: Play,
) -> None:
    assert watched.witness is not None
    watched.witness.lost = "etcd has thrown it away"
    scenario_results = await watched.run(NOTHING, NOTHING)
    reported = ["nothing can be checked any more: etcd has thrown it away"]
    assert [each.violations for each in scenario_results] == [reported, reported]


async def test_beliefs_are_checked_also_without_a_witness(play: Play) -> None:
    for user in ("anna", "boris"):
        play.worker_pool.beliefs[user, POOL, 1.0] = Believed(user, POOL, 1, 1.0, 2.0)
    scenario_results = await play.run(NOTHING, NOTHING)
    assert [violation[:2] for violation in scenario_results[0].violations] == ["I5"]
    assert scenario_results[1].violations == []


async def test_what_has_grown_is_reported(play: Play) -> None:
    play.stage.grown = [Violation(Invariant.I10, "node-1 has 900 open files")]
    scenario_results = await play.run(NOTHING, NOTHING)
    assert scenario_results[0].violations == ["I10 node-1 has 900 open files"]
    assert scenario_results[1].violations == []


# Seats of the dead -------------------------------------------------------------------------

DEAD = "anna@host"
GRACE = TTL + trial_module.RECLAIM_SECONDS


@pytest.fixture
async def dead(watched: Play, store: MemoryStore) -> Play:
    """A user has been dead for longer than its lease may take, and still holds a seat."""
    await grant(store, 1)
    watched.clock.look = 0.0
    watched.worker_pool.record.killed[DEAD] = watched.clock.seconds - GRACE - 0.5
    return watched


async def invariants(play: Play, *scenarios: Scenario) -> list[list[str]]:
    return [
        [violation[:2] for violation in scenario_result.violations]
        for scenario_result in await play.run(*scenarios)
    ]


async def test_what_the_dead_hold_for_too_long_breaks_a_promise(dead: Play) -> None:
    assert await invariants(dead, NOTHING) == [["I7"]]


async def test_the_dead_may_hold_seats_until_their_lease_is_over(dead: Play) -> None:
    dead.worker_pool.record.killed[DEAD] += 1.0
    assert await invariants(dead, NOTHING) == [[]]


async def test_a_death_before_a_fault_recovers_counts_from_then(dead: Play) -> None:
    dead.worker_pool.record.killed[DEAD] += 1.0
    assert await invariants(dead, user_record("Rain.falls\ncalm for 1 s")) == [[]]


async def test_a_fault_does_not_excuse_what_was_overdue_before_it(dead: Play) -> None:
    assert await invariants(dead, RAIN) == [["I7"]]


async def test_a_fault_that_was_given_up_has_disturbed_as_well(dead: Play) -> None:
    def hang() -> None:
        raise TimeoutError

    dead.worker_pool.record.killed[DEAD] += 1.0
    dead.stage.on_injection = {"Lock.sticks": hang}
    scenario_results = (
        user_record("Rain.falls while\n    Lock.sticks"),
        user_record("calm for 1 s"),
    )
    assert await invariants(dead, *scenario_results) == [[], []]


async def test_what_the_dead_hold_is_reported_once(dead: Play) -> None:
    assert await invariants(dead, NOTHING, RAIN) == [["I7"], []]


@pytest.mark.parametrize(
    ("ago", "reported"), [((1.0,), []), ((GRACE + 1, 2.0), []), ((GRACE + 0.25,), ["I7"])]
)
async def test_a_new_leader_gives_the_dead_their_whole_time_again(
    dead: Play, ago: Sequence[float], reported: list[str]
) -> None:
    dead.stage.restarts = [dead.clock.seconds - seconds for seconds in ago]
    assert await invariants(dead, NOTHING) == [reported]


class SlowToRead(Witness):
    """By the time it has been read, deadlines have passed that had not when it was begun."""

    clock: RunningClock

    async def catch_up(self) -> None:
        await super().catch_up()
        self.clock.seconds += 1.0


async def test_deadlines_that_pass_during_a_check_are_checked_next_time(
    play: Play, store: MemoryStore
) -> None:
    """Until then, the history may say nothing of what became of the seat."""
    await grant(store, 1)
    play.clock.look = 0.0
    witness = play.witness = SlowToRead(store, KEYS.prefix)
    witness.clock = play.clock
    await witness.start()
    play.worker_pool.record.killed[DEAD] = play.clock.seconds - GRACE + 0.5
    assert await invariants(play, NOTHING, NOTHING) == [[], ["I7"]]
    await witness.stop()


# The end -----------------------------------------------------------------------------------


async def test_at_the_end_nothing_may_be_left(
    watched: Play, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_module, "RECLAIM_SECONDS", 0.0)
    watched.ttl_max = 0.0
    watched.stage.on_injection = {"Rain.falls": lambda: grant(store, 1)}
    watched.worker_pool.unfinished = ["users-1-2"]
    scenario_results = await watched.run(RAIN, NOTHING, conclude=True)
    assert [each.violations for each in scenario_results] == [
        [],
        [
            "I8 users-1-2 had not finished",
            f"I8 {POOL}: 1 seats out and 0 tickets at the end",
        ],
    ]


async def test_at_the_end_every_node_must_give_out_seats(
    watched: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_module, "RECLAIM_SECONDS", 0.0)
    watched.ttl_max = 0.0
    watched.stage.at_last = "are not to be had at node-2"
    (scenario_result,) = await watched.run(NOTHING, conclude=True)
    (violation,) = scenario_result.violations
    assert violation.startswith("I8 when all is over")
    assert f"{POOL} are not to be had at node-2" in violation


async def test_an_end_at_which_nothing_is_left_is_well(
    watched: Play, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def close() -> None:
        await end(store, 1)

    monkeypatch.setattr(trial_module, "RECLAIM_SECONDS", 0.0)
    watched.ttl_max = 0.0
    watched.stage.on_injection = {"Rain.falls": lambda: grant(store, 1)}
    watched.before_end = close
    (scenario_result,) = await watched.run(RAIN, conclude=True)
    assert scenario_result.violations == []


async def test_the_end_reports_attempts_that_were_refused(play: Play) -> None:
    for user in ("anna", "bert"):
        play.worker_pool.record.note(
            Prevented(user, Attack.THEFT.value, "pool", uuid7(1), 1, 1.0)
        )
    await play.run(RAIN, conclude=True)
    assert play.outcome.prevented == {Attack.THEFT.value: 2}


@pytest.mark.parametrize(("asked_ago", "caught"), [(30.0, 0), (9.0, 0), (0.0, 1)])
async def test_a_late_answer_is_a_violation_where_no_fault_explains_it(
    play: Play, asked_ago: float, caught: int
) -> None:
    """What a fault leaves behind is made good within ten seconds of it."""
    trial = play.trial
    await trial.run([RAIN])
    asked_at = play.clock.seconds + 10.1 - asked_ago
    play.worker_pool.record.note(Denied("anna", "pool", asked_at, asked_at + 60.0, 1.0))
    await trial.conclude()
    assert len(play.outcome.scenario_results[-1].violations) == caught


async def test_without_a_history_the_end_does_not_wait_for_leases(
    play: Play,
) -> None:
    play.ttl_max = 1_000_000.0
    (scenario_result,) = await play.run(RAIN, conclude=True)
    assert scenario_result.violations == []


def test_what_users_counted_on_is_known_at_any_moment() -> None:
    beliefs = [
        Believed("anna", "pool", 2, 1.0, 3.0),
        Believed("boris", "pool", 1, 2.0, 2.5),
        Believed("clara", "pool", 1, 3.0, 4.0),
    ]
    assert held_at(beliefs, [0.5, 1.0, 2.2, 2.7, 3.0, 9.0]) == [0, 2, 3, 2, 1, 0]
