"""Runs scenarios against a service that is in use, and has what came of it checked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field, replace
from itertools import chain, filterfalse
from typing import Protocol

from seatkeeper.chaos.checks import check_times, check_user_history, unix_ahead
from seatkeeper.chaos.delays import SERVED_SECONDS, Delays
from seatkeeper.chaos.faults import Fault
from seatkeeper.chaos.result import Injected, Outcome, Sample, ScenarioResult
from seatkeeper.chaos.scenario import Calm, Injection, Repeat, Scenario, ScenarioError, Step
from seatkeeper.chaos.worker_pool import WorkerPool
from seatkeeper.oracle.checker import (
    Violation,
    check_beliefs,
    check_punctuality,
    check_waits,
    count_prevented,
)
from seatkeeper.oracle.reclaims import count_reclaims
from seatkeeper.oracle.record import Believed, Record
from seatkeeper.oracle.seen import count_seen
from seatkeeper.oracle.stored import PREFIX
from seatkeeper.oracle.witness import Witness
from seatkeeper.server.store import StoreError

SAMPLE_SECONDS = 0.25
BUSY_SECONDS = 0.5
"""This process, through which all traffic goes, was held up by so much: that counts as a fault."""
TRAFFIC_SECONDS_MAX = 20.0
"""How long to wait for enough traffic before a fault; then the scenario is inconclusive."""
RECLAIM_SECONDS = 3.0
"""How long after the end of its lease a seat may be held: etcd's sweep, a decision, a look."""


class Inconclusive(Exception):
    """The scenario proves nothing; the message says why."""


class Environment(Protocol):
    """A service, and what can be done to it."""

    @property
    def faults(self) -> Mapping[str, Fault]:
        """What can be done to it."""
        ...

    async def trouble(self) -> str:
        """Return why the service is not whole; empty: it is."""
        ...

    async def trouble_at_last(self, pools: Iterable[str]) -> str:
        """Return which node grants no seat of a pool of which none is held; empty: all do."""
        ...

    def lease_restarts(self) -> Sequence[float]:
        """When leases may have been given their whole time again, by a new leader of etcd."""
        ...

    def growth(self) -> Iterator[Violation]:
        """Return what has grown that should not (I10), since this was last asked."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """What counts as a trial."""

    pools: Mapping[str, int]
    """The pools in use, and their seats."""
    ttl_max: float
    """The longest lease of any user, in seconds."""
    rate_min: float = 10.0
    """Answers a second before a fault, below which it proves nothing."""


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Users whom scenarios name; the usual ones have an empty name."""

    begin: Callable[[], None]
    """Has workers that start from now on be these."""
    pools: Mapping[str, int] = field(default_factory=dict)
    """Their pools beside the usual ones, and the most seats of each."""
    settling: float = 0.0
    """Seconds for which these keep or lend seats after all users have finished, at most."""


@dataclass
class Trial:
    """Users at work, their environment, and somebody who watches. Runs one scenario after the other."""

    stage: Environment
    worker_pool: WorkerPool
    witness: Witness | None
    config: TrialConfig
    outcome: Outcome
    notify: Callable[[str], None] = field(default=lambda text: None)
    before_end: Callable[[], Awaitable[None]] | None = None
    """What has to be done before users finish."""
    mixes: Mapping[str, Mix] = field(default_factory=dict)
    """Who may be at work, by the names that scenarios give."""
    _began: float = field(default_factory=time.monotonic)
    _at_work: str = ""
    _worked: set[str] = field(default_factory=set)
    """The mixes that took the place of others."""
    _known: set[str] = field(default_factory=set)
    _delays: Delays = field(init=False)

    def __post_init__(self) -> None:
        witness = self.witness
        self._delays = Delays(
            self.stage.lease_restarts,
            (lambda: witness.slow) if witness is not None else (lambda: ()),
        )

    async def run(self, scenarios: Sequence[Scenario]) -> None:
        """Run them. Raises ``ScenarioError``, before anything is done, for faults there are not."""
        for scenario in scenarios:
            check_faults(scenario, self.stage.faults)
            check_users(scenario, self.mixes)
        sampling = asyncio.create_task(self._sample())
        try:
            for scenario in scenarios:
                await self._run(scenario)
        finally:
            sampling.cancel()

    async def conclude(self) -> None:
        """Have users finish, wait until nothing is held, and check everything once more.

        What is found now counts for the last scenario.
        """
        if self.before_end is not None:
            await self.before_end()
        unfinished = await self.worker_pool.stop()
        left = [f"I8 {user} had not finished" for user in unfinished]
        if self.witness is not None:
            settling = max((self.mixes[name].settling for name in self._worked), default=0.0)
            await asyncio.sleep(max(self.config.ttl_max, settling) + RECLAIM_SECONDS)
            if trouble := await self.stage.trouble_at_last(self._pools):
                left.append(f"I8 when all is over, a seat is not to be had: {trouble}")
            if settling:  # what was tried just now may be kept after its release
                await asyncio.sleep(RECLAIM_SECONDS)
        reported = [*left, *await self._check_history(at_rest=True)]
        changes = list(self.witness.changes) if self.witness is not None else []
        prefix = self.witness.prefix if self.witness is not None else PREFIX
        prevented = self.worker_pool.record.prevented
        self.outcome.prevented = count_prevented(prevented, changes, prefix)
        self.outcome.called_back, self.outcome.taken_back = count_reclaims(changes, prefix)
        correct(self.outcome.samples, list(self.worker_pool.beliefs.values()), self._began)
        for violation in reported:
            self.notify(f"  VIOLATION {violation}")
        if self.outcome.scenario_results:
            self.outcome.scenario_results[-1].violations += reported

    async def _run(self, scenario: Scenario) -> None:
        scenario_result = ScenarioResult(
            *(scenario.name, scenario.sentence, scenario.row, scenario.promises),
            began=self._now(),
        )
        self.outcome.scenario_results.append(scenario_result)
        self.notify(f"{scenario.name}: {scenario.sentence}")
        await self._employ(scenario.users, scenario_result)
        first = len(self.witness.changes) if self.witness is not None else 0
        before = self.worker_pool.heartbeats
        acknowledged = self.worker_pool.record.acknowledged
        try:
            await self._whole(scenario_result)
            await self._play(scenario.steps, scenario_result)
            await self._whole(scenario_result)
        except Inconclusive as inconclusive:
            scenario_result.inconclusive = str(inconclusive)
        scenario_result.injected.sort(key=lambda injected: injected.since)
        scenario_result.ended = self._now()
        after = self.worker_pool.heartbeats
        scenario_result.requests = after.operations - before.operations
        scenario_result.acknowledged = self.worker_pool.record.acknowledged - acknowledged
        scenario_result.unanswered = after.unknown - before.unknown
        scenario_result.violations += await self._check_history(at_rest=False)
        scenario_result.seen = await asyncio.to_thread(self._seen_since, first)
        if missing := [each for each in scenario.needs if each not in scenario_result.seen]:
            why = f"it did not happen meanwhile: {', '.join(missing)}"
            scenario_result.inconclusive = scenario_result.inconclusive or why
        outcome = (
            f"inconclusive: {scenario_result.inconclusive}"
            if scenario_result.inconclusive
            else "kept"
        )
        for violation in scenario_result.violations:
            self.notify(f"  VIOLATION {violation}")
        self.notify(
            f"  {len(scenario_result.injected)} faults, "
            f"{scenario_result.acknowledged} answers checked: "
            + (
                f"violations: {len(scenario_result.violations)}"
                if scenario_result.violations
                else outcome
            )
            + (f"; {seen_text(scenario_result.seen)}" if scenario_result.seen else "")
        )

    async def _employ(self, users: str, scenario_result: ScenarioResult) -> None:
        """Have those work who are wanted; the others finish before."""
        if users == self._at_work:
            return
        self.mixes[users].begin()
        self._at_work = users
        self._worked.add(users)
        scenario_result.violations += [
            f"I8 {user} had not finished" for user in await self.worker_pool.change()
        ]

    def _seen_since(self, first: int) -> dict[str, int]:
        if self.witness is None:
            return {}
        counted = count_seen(self.witness.changes[first:], self.witness.prefix)
        return {kind: times for kind, times in counted.items() if times}

    async def _play(
        self, steps: Sequence[Step], scenario_result: ScenarioResult, *, inside: bool = False
    ) -> None:
        for step in steps:
            self.worker_pool.check()
            match step:
                case Calm(seconds):
                    await asyncio.sleep(seconds)
                case Repeat(times, inner):
                    for _ in range(times):
                        await self._play(inner, scenario_result, inside=inside)
                case Injection():
                    await self._inject(step, scenario_result, inside=inside)

    async def _inject(
        self, step: Injection, scenario_result: ScenarioResult, *, inside: bool
    ) -> None:
        """Inject a fault. Unless it comes on top of another, all must be well before and after."""
        if not inside:
            await self._whole(scenario_result)
            await self._busy()
        since = self._now()
        try:
            async with self.stage.faults[step.fault]() as place:
                if step.during:
                    await self._play(step.during, scenario_result, inside=True)
                else:
                    await asyncio.sleep(step.seconds)
        except TimeoutError as error:
            why = f": {error}" if str(error) else ""
            raise Inconclusive(f"{step.fault} could not be done in time{why}") from error
        finally:
            self._delays.add(self._began + since, time.monotonic())
        scenario_result.injected.append(Injected(step.fault, place, since, self._now()))
        if not inside:
            await self._served(scenario_result)

    async def _whole(self, scenario_result: ScenarioResult) -> None:
        """Wait until the service is whole, which it must be in time."""
        deadline = time.monotonic() + SERVED_SECONDS
        while trouble := await self.stage.trouble():
            if time.monotonic() > deadline:
                scenario_result.violations.append(
                    f"I8 not whole after {SERVED_SECONDS:g} s: {trouble}"
                )
                raise Inconclusive(trouble)
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _served(self, scenario_result: ScenarioResult) -> None:
        """Wait until everybody has an answer who waited when the fault was recovered."""
        recovered = time.monotonic()
        await self._whole(scenario_result)
        while (longest := self.worker_pool.heartbeats.longest) > time.monotonic() - recovered:
            if time.monotonic() > recovered + SERVED_SECONDS:
                message = f"I8 a request has been under way for {longest:.1f} s"
                scenario_result.violations.append(
                    f"{message}, {SERVED_SECONDS:g} s of them after {_last(scenario_result)}"
                )
                return
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _busy(self) -> None:
        """Wait until there is enough traffic for a fault to mean something."""
        deadline = time.monotonic() + TRAFFIC_SECONDS_MAX
        while (rate := self.worker_pool.rate) < self.config.rate_min:
            if time.monotonic() > deadline:
                raise Inconclusive(
                    f"{rate:.1f} answers a second before a fault, {self.config.rate_min:g} needed"
                )
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _sample(self) -> None:
        loop = asyncio.get_running_loop()
        looked = loop.time()
        while True:
            before, looked = looked, loop.time()
            if looked - before > SAMPLE_SECONDS + BUSY_SECONDS:
                now = time.monotonic()
                self._delays.add(now - (looked - before), now)
            heartbeats = self.worker_pool.heartbeats
            acknowledged = self.worker_pool.record.acknowledged
            self.outcome.samples.append(
                Sample(self._now(), heartbeats.held, heartbeats.asking, acknowledged)
            )
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _check_history(self, *, at_rest: bool) -> list[str]:
        """Return what is wrong with all that has happened so far, and was not known."""
        # Of what is answered or due from now on, etcd's history may not have been seen yet.
        now = time.monotonic()
        record, beliefs = (
            self.worker_pool.record.copy(),
            list(self.worker_pool.beliefs.values()),
        )
        if self.witness is not None:
            try:
                await self.witness.catch_up()
            except (TimeoutError, StoreError) as error:
                return [f"I8 etcd's history cannot be read: {str(error) or 'no answer'}"]
            if self.witness.lost:
                return [f"nothing can be checked any more: {self.witness.lost}"]
        violations = await asyncio.to_thread(self._found, record, beliefs, at_rest, now)
        fresh = {
            violation.key: str(violation)
            for violation in violations
            if violation.key not in self._known
        }
        self._known.update(fresh)
        return list(fresh.values())

    def _found(
        self, record: Record, beliefs: Sequence[Believed], at_rest: bool, now: float
    ) -> list[Violation]:
        found = [
            *check_beliefs(beliefs, self._pools),
            *check_waits(record.denied),
            *check_punctuality(filterfalse(self._delays.explains, record.denied)),
            *self.stage.growth(),
        ]
        if self.witness is not None:
            found += check_user_history(
                *(self.witness, record, self._pools),
                at_rest=at_rest,
                deadline=self._deadline,
                now=now,
            )
            found += check_times(
                self.witness,
                self._pools,
                self._delays.latest,
                now=now,
                unix_ahead=unix_ahead(),
            )
        return found

    def _deadline(self, user: str, killed_at: float) -> float:
        """Return when a killed user's seats must be free.

        After its lease, etcd's sweep and a decision. What keeps etcd or nodes from working counts as
        if the user had been alive until then.
        """
        # A process of users has the longest lease of all of them.
        ttl = self.worker_pool.record.ttls.get(user, self.config.ttl_max)
        return self._delays.latest(killed_at, ttl + RECLAIM_SECONDS)

    @property
    def _pools(self) -> Mapping[str, int]:
        """The pools that have been in use, and the most seats of each."""
        theirs = (self.mixes[name].pools.items() for name in self._worked)
        return dict(chain(self.config.pools.items(), *theirs))

    def _now(self) -> float:
        return time.monotonic() - self._began


def correct(samples: list[Sample], beliefs: Sequence[Believed], began: float) -> None:
    """Have samples say what users counted on at each moment as it is known now.

    While they work, what each of them says is older or newer than what the others say.
    """
    held = held_at(beliefs, [began + sample.at for sample in samples])
    samples[:] = [
        replace(sample, held=seats) for sample, seats in zip(samples, held, strict=True)
    ]


def held_at(beliefs: Sequence[Believed], times: Sequence[float]) -> list[int]:
    """Return how many seats users counted on at each of these times, which must be in order."""
    steps = sorted(
        step
        for belief in beliefs
        for step in ((belief.since, belief.seats), (belief.until, -belief.seats))
    )
    found: list[int] = []
    held = at = 0
    for time_ in times:
        while at < len(steps) and steps[at][0] <= time_:
            held += steps[at][1]
            at += 1
        found.append(held)
    return found


def _last(scenario_result: ScenarioResult) -> str:
    return scenario_result.injected[-1].fault if scenario_result.injected else "the beginning"


def seen_text(seen: Mapping[str, int]) -> str:
    """Return what happened, and how often, in one line."""
    return ", ".join(f"{kind} {times}" for kind, times in seen.items())


def check_users(scenario: Scenario, mixes: Collection[str]) -> None:
    """Raise ``ScenarioError`` for users who cannot be had here."""
    if scenario.users and scenario.users not in mixes:
        there_are = ", ".join(each for each in mixes if each) or "none but the usual ones"
        raise ScenarioError(
            f"{scenario.name}: users {scenario.users} are not to be had here; there are: {there_are}"
        )


def check_faults(scenario: Scenario, faults: Collection[str]) -> None:
    """Raise ``ScenarioError`` for a fault that cannot be injected here."""
    for step in scenario.injections:
        if step.fault not in faults:
            raise ScenarioError(
                f"{scenario.name}, line {step.line}: {step.fault} cannot be done here; what can: "
                + ", ".join(sorted(faults))
            )
