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
from typing import Protocol

from seatkeeper.chaos.faults import Fault
from seatkeeper.chaos.result import Injected, Outcome, Sample, ScenarioResult
from seatkeeper.chaos.scenario import Calm, Injection, Repeat, Scenario, ScenarioError, Step
from seatkeeper.chaos.worker_pool import WorkerPool
from seatkeeper.oracle.checker import (
    Violation,
    check_answers,
    check_beliefs,
    check_history,
    check_published,
    check_punctuality,
    check_reclaim,
    check_waits,
    count_prevented,
    lives,
)
from seatkeeper.oracle.reclaims import count_reclaims
from seatkeeper.oracle.record import Believed, Denied, Record
from seatkeeper.oracle.stored import concerning
from seatkeeper.oracle.witness import Witness
from seatkeeper.server.store import StoreError

SAMPLE_SECONDS = 0.25
SERVED_SECONDS = 10.0
"""How long after a fault is recovered everything must work again, and who waited has an answer (I8)."""
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
    _began: float = field(default_factory=time.monotonic)
    _known: set[str] = field(default_factory=set)
    _disturbed: list[tuple[float, float]] = field(default_factory=list)
    """When renewals of the dead may have been on their way because of a fault."""

    async def run(self, scenarios: Sequence[Scenario]) -> None:
        """Run them. Raises ``ScenarioError``, before anything is done, for faults there are not."""
        for scenario in scenarios:
            check_faults(scenario, self.stage.faults)
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
            await asyncio.sleep(self.config.ttl_max + RECLAIM_SECONDS)
            if trouble := await self.stage.trouble_at_last(self.config.pools):
                left.append(f"I8 when all is over, a seat is not to be had: {trouble}")
        reported = [*left, *await self._check_history(at_rest=True)]
        self.outcome.prevented = self._prevented()
        if self.witness is not None:
            self.outcome.called_back, self.outcome.taken_back = count_reclaims(
                list(self.witness.changes), self.witness.prefix
            )
        self._correct_samples()
        for violation in reported:
            self.notify(f"  VIOLATION {violation}")
        if self.outcome.scenario_results:
            self.outcome.scenario_results[-1].violations += reported

    def _prevented(self) -> dict[str, int]:
        prevented = self.worker_pool.record.prevented
        if self.witness is None:
            return count_prevented(prevented, ())
        return count_prevented(prevented, list(self.witness.changes), self.witness.prefix)

    async def _run(self, scenario: Scenario) -> None:
        scenario_result = ScenarioResult(
            *(scenario.name, scenario.sentence, scenario.row, scenario.promises),
            began=self._now(),
        )
        self.outcome.scenario_results.append(scenario_result)
        self.notify(f"{scenario.name}: {scenario.sentence}")
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
        )

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
            self._disturbed.append((self._began + since, time.monotonic()))
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
        while True:
            heartbeats = self.worker_pool.heartbeats
            acknowledged = self.worker_pool.record.acknowledged
            self.outcome.samples.append(
                Sample(self._now(), heartbeats.held, heartbeats.asking, acknowledged)
            )
            await asyncio.sleep(SAMPLE_SECONDS)

    def _correct_samples(self) -> None:
        """Say what users counted on at each moment as it is known now.

        While they work, what each of them says is older or newer than what the others say.
        """
        samples = self.outcome.samples
        times = [self._began + sample.at for sample in samples]
        held = held_at(list(self.worker_pool.beliefs.values()), times)
        samples[:] = [
            replace(sample, held=seats) for sample, seats in zip(samples, held, strict=True)
        ]

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
            *check_beliefs(beliefs, self.config.pools),
            *check_waits(record.denied),
            *check_punctuality(filter(self._was_calm, record.denied)),
            *self.stage.growth(),
        ]
        if self.witness is not None:
            found += check_user_history(
                *(self.witness, record, self.config),
                at_rest=at_rest,
                deadline=self._deadline,
                now=now,
            )
        return found

    def _was_calm(self, denied: Denied) -> bool:
        """Return whether no fault, nor what had to be made good after one, may have held it up."""
        return not any(
            began <= denied.at and denied.asked_at <= ended + SERVED_SECONDS
            for began, ended in self._disturbed
        )

    def _deadline(self, user: str, killed_at: float) -> float:
        """Return when a killed user's seats must be free.

        After its lease, etcd's sweep and a decision. What keeps etcd or nodes from working counts as
        if the user had been alive until then, and a new leader of etcd gives all leases their whole
        time again.
        """
        # A process of users has the longest lease of all of them.
        ttl = self.worker_pool.record.ttls.get(user, self.config.ttl_max)
        time_limit = ttl + RECLAIM_SECONDS
        deadline = killed_at + time_limit
        restarts = [(at, at) for at in self.stage.lease_restarts()]
        for began, ended in sorted([*self._disturbed, *restarts]):
            if began <= deadline and ended >= killed_at:
                deadline = max(deadline, ended + time_limit)
        return deadline

    def _now(self) -> float:
        return time.monotonic() - self._began


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


def check_user_history(
    witness: Witness,
    record: Record,
    config: TrialConfig,
    *,
    at_rest: bool,
    deadline: Callable[[str, float], float],
    now: float,
) -> Iterator[Violation]:
    """Hold what users observed against etcd's history; pools of others are passed over.

    ``now``: a moment up to which the witness has caught up.
    """
    prefix = witness.prefix
    changes = list(concerning(list(witness.changes), config.pools, prefix))
    found = lives(changes, witness.changed_at, prefix)
    yield from check_history(changes, prefix, at_rest=at_rest)
    yield from check_answers(found, record)
    yield from check_reclaim(found, record, deadline, now=now)
    yield from check_published(changes, record, prefix, pools=config.pools)


def check_faults(scenario: Scenario, faults: Collection[str]) -> None:
    """Raise ``ScenarioError`` for a fault that cannot be injected here."""
    for step in scenario.injections:
        if step.fault not in faults:
            raise ScenarioError(
                f"{scenario.name}, line {step.line}: {step.fault} cannot be done here; what can: "
                + ", ".join(sorted(faults))
            )
