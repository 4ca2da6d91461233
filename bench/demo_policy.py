"""What policies do, on real nodes: two teams, lending, a reclaim, a burst, and a gang.

Three nodes over one etcd serve a pool of four seats, of which two teams are guaranteed two each. One
team borrows what the other leaves idle; the other comes back, and is given its seats after a warning; a
burst adds two seats for a few seconds and ends on time; a job takes seats of three pools at once, while
the node that decides is killed. Then etcd's whole history is read, and what is said at the end is
counted in that alone.

The last line is one JSON object. ``"demo": "failed"`` says ``why``, and the exit code is 1.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta

from bench.demo_evidence import Evidence, evidence
from bench.report import run
from bench.service import Service, running_service
from seatkeeper.client import (
    AsyncGrant,
    AsyncSeatClient,
    ClientConfig,
    HoldingState,
    LotChange,
)
from seatkeeper.client.admin.projects import parse_project
from seatkeeper.client.admin.reclaims import parse_reclaim
from seatkeeper.core.errors import SeatError
from seatkeeper.core.lot_messages import encode_lot
from seatkeeper.core.lots import Lot, LotKind
from seatkeeper.devcluster.etcd_binary import EtcdNotFoundError
from seatkeeper.devcluster.etcd_process import EtcdProcessError
from seatkeeper.oracle.history import read_history
from seatkeeper.server.store import StoreError
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore
from seatkeeper.v1 import pool_service_pb2

SHARED, GANG = "simulator", ("simulator", "solver", "viewer")
SEATS, GUARANTEED = 4, 2
POLL_SECONDS = 0.05
QUICK = ClientConfig(ttl=timedelta(seconds=4), keeper="process")


class StepFailedError(Exception):
    """What a step was to show did not happen."""


FAILURES = (
    StepFailedError,
    SeatError,
    StoreError,
    EtcdNotFoundError,
    EtcdProcessError,
    OSError,
    RuntimeError,
)
"""What ends the demo with a line that says why; ``TimeoutError`` is an ``OSError``."""
STEPS = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """What is tried. Tests leave parts of it out."""

    reclaim: str = "notice=2,minimum_hold=0,hourly=20"
    burst_seconds: float = 4.0
    step_seconds: float = 30.0
    """Longest that a part of a step may take: then it has failed."""


@dataclass
class Job:
    """One job, its seat, and what it learned of it and when."""

    name: str
    seat: AsyncGrant | None = None
    learned: dict[HoldingState, float] = field(default_factory=dict)

    def on_state(self, state: HoldingState) -> None:
        """Note what the holder learns, and when first."""
        self.learned.setdefault(state, time.monotonic())

    @property
    def grant(self) -> AsyncGrant:
        """Its seat, which it has."""
        assert self.seat is not None, f"{self.name} has no seat"
        return self.seat

    def has_learned(self, state: HoldingState) -> bool:
        """Return whether the holder learned that."""
        return state in self.learned

    async def release(self) -> None:
        """Give the seat back."""
        await self.grant.release()


class Demo:
    """The service, and the two teams that use it."""

    def __init__(
        self, service: Service, plan: Plan, vision: AsyncSeatClient, speech: AsyncSeatClient
    ) -> None:
        self.service = service
        self.plan = plan
        self.vision = vision
        self.speech = speech
        self.killed = 0
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Print what happens, and when."""
        print(f"{time.monotonic() - self._began:6.2f} s  {text}", flush=True)

    async def take(self, team: AsyncSeatClient, job: Job) -> Job:
        """Take a seat of the shared pool, as soon as there is one."""
        wait = self.plan.step_seconds
        job.seat = await team.acquire(SHARED, wait=wait, on_state=job.on_state)
        return job

    async def held(self, pool: str = SHARED) -> dict[str, int]:
        """Return how many seats each project holds."""
        found: dict[str, int] = {}
        for grant in (await self.speech.pools.get(pool)).grants:
            found[grant.project] = found.get(grant.project, 0) + grant.seats
        return found

    async def until(self, what: str, is_so: Callable[[], Awaitable[bool]]) -> None:
        """Wait until it is so. Raises `StepFailedError` when it is not in time."""
        deadline = time.monotonic() + self.plan.step_seconds
        while not await is_so():
            if time.monotonic() > deadline:
                raise StepFailedError(f"not within {self.plan.step_seconds:.0f} s: {what}")
            await asyncio.sleep(POLL_SECONDS)

    async def until_queued(self, pool: str, number: int) -> None:
        """Wait until so many requests wait for a pool."""

        async def are_queued() -> bool:
            return (await self.speech.pools.get(pool)).queued == number

        await self.until(f"{number} requests wait for {pool}", are_queued)


def require(is_so: bool, what: str) -> None:
    """Raise `StepFailedError` with what is not so."""
    if not is_so:
        raise StepFailedError(what)


async def make_pools(demo: Demo) -> None:
    """Create the pool that the teams share, and the two others of the gang."""
    shares = [parse_project(f"{name}:guaranteed={GUARANTEED}") for name in ("vision", "speech")]
    rule = parse_reclaim(demo.plan.reclaim)
    await demo.speech.pools.create(SHARED, seats=SEATS, projects=shares, reclaim=rule)
    for name in GANG[1:]:
        await demo.speech.pools.create(name, seats=1)


async def lend(demo: Demo) -> list[Job]:
    """Let one team use all seats while the other asks for none."""
    jobs = [
        await demo.take(demo.speech, Job(f"speech-{number}")) for number in range(1, SEATS + 1)
    ]
    held = (await demo.held())["speech"]
    demo.say(
        f"speech holds {held} of {SEATS} seats: its {GUARANTEED}, and {held - GUARANTEED} that "
        "vision is guaranteed and leaves idle"
    )
    return jobs


async def call_back(demo: Demo, lent: list[Job]) -> list[Job]:
    """Let the other team come back: it gets its guarantee, after a warning to those who have it."""
    asked_at = time.monotonic()
    demo.say(f"vision comes back, and asks for its {GUARANTEED} seats")
    asking = [
        asyncio.create_task(demo.take(demo.vision, Job(f"vision-{number}")))
        for number in range(1, GUARANTEED + 1)
    ]
    try:

        async def are_warned() -> bool:
            return sum(job.has_learned(HoldingState.RECLAIMING) for job in lent) >= GUARANTEED

        await demo.until(f"{GUARANTEED} holders of lent seats are warned", are_warned)
        warned = [job for job in lent if job.has_learned(HoldingState.RECLAIMING)]
        require(len(warned) == GUARANTEED, f"{len(warned)} holders were warned, for 2 seats")
        require(warned == lent[GUARANTEED:], "others were warned than the two that came last")
        for job in warned:
            called = job.grant.reclaim
            demo.say(f"{job.name} is warned: {called.message if called else 'no reason'}")
        prompt, deaf = warned
        await prompt.release()
        demo.say(f"{prompt.name} saves what it did, and gives its seat back")

        async def is_lost() -> bool:
            return deaf.has_learned(HoldingState.LOST)

        await demo.until(f"{deaf.name}, which does not listen, loses its seat", is_lost)
        notice = deaf.learned[HoldingState.LOST] - deaf.learned[HoldingState.RECLAIMING]
        demo.say(f"{deaf.name} does not listen: {notice:.1f} s later its seat is lost")
        returned = list(await asyncio.gather(*asking))
    finally:
        for task in asking:
            task.cancel()
    demo.say(f"vision has both, {time.monotonic() - asked_at:.1f} s after it asked")
    first_kept = all(job.grant.state is HoldingState.SAFE for job in lent[:GUARANTEED])
    require(first_kept, "speech lost a seat that it is guaranteed")
    return returned


async def burst(demo: Demo) -> None:
    """Give the pool two more seats for some seconds, and see them end without ending anyone."""
    waiting = [
        asyncio.create_task(demo.take(demo.speech, Job(f"speech-{number}")))
        for number in (5, 6)
    ]
    try:
        await demo.until_queued(SHARED, len(waiting))
        demo.say("all seats are held, and two more jobs of speech wait")
        length = demo.plan.burst_seconds
        ends = int((time.time() + length) * 1000)
        lot = Lot(name="burst-1", seats=2, ends=ends, kind=LotKind.BURST, owner="the demo")
        await demo.speech.pools.update(SHARED, lots=LotChange([encode_lot(lot)]))
        demo.say(f"burst start: 2 more seats for {length:.0f} s")
        jobs = list(await asyncio.gather(*waiting))
    finally:
        for task in waiting:
            task.cancel()
    demo.say("both jobs run, on seats that are marked as the burst's")

    async def is_over() -> bool:
        pool = await demo.speech.pools.get(SHARED)
        return pool.spec.lots.lots[0].state == pool_service_pb2.LOT_STATE_ENDED

    await demo.until("the burst ends", is_over)
    pool = await demo.speech.pools.get(SHARED)
    late = pool.spec.lots.lots[0].ended_at.ToMilliseconds() - ends
    demo.say(
        f"the burst has ended, {late} ms after its time: {pool.spec.seats} seats in force, "
        f"{pool.held} held, and both jobs go on"
    )
    alive = all(job.grant.state is HoldingState.SAFE for job in jobs)
    require(alive and pool.held == SEATS + 2, "the end of the burst ended a job")
    late_comer = asyncio.create_task(demo.take(demo.speech, Job("speech-7")))
    try:
        await demo.until_queued(SHARED, 1)
        await jobs[0].release()
        await jobs[1].release()
        # A grant would have been decided in the transaction of one of the two releases.
        require((await demo.held())["speech"] == GUARANTEED, "a surplus seat was granted again")
        demo.say("both finish; their seats are not granted again, though a job waits")
    finally:
        late_comer.cancel()
        await asyncio.gather(late_comer, return_exceptions=True)


async def gang(demo: Demo, held: list[Job]) -> None:
    """Take seats of three pools at once, and none before; the node that decides dies meanwhile."""
    blocker = await demo.speech.acquire("viewer", wait=demo.plan.step_seconds)
    asking = asyncio.create_task(
        demo.vision.gang(dict.fromkeys(GANG, 1), wait=demo.plan.step_seconds).take()
    )
    try:
        for pool in GANG:
            await demo.until_queued(pool, 1)
        demo.say(f"a job waits for a seat of {', '.join(GANG)} at once; viewer's one is held")
        require(not await demo.held("solver"), "the gang holds a seat while it waits")
        owner = (await demo.speech.pools.get(GANG[0])).owner
        for node in demo.service.nodes:
            if node.name == owner:
                node.kill()
                demo.killed += 1
                demo.say(f"kill -9 of {owner}, which decides about {GANG[0]}")
        await held.pop().release()
        require(not asking.done(), "the gang was granted while viewer was held")
        await blocker.release()
        grants = await asking
    finally:
        asking.cancel()
    fences = ", ".join(f"{pool} under fence {each.fence}" for pool, each in grants.items())
    demo.say(f"viewer's seat is given back, and the job has all three: {fences}")
    for each in grants.values():
        await each.release()


async def show(demo: Demo) -> None:
    """Show all of it. Raises `StepFailedError`, or what a client raises."""
    demo.say(
        f"[2/7] A pool of {SEATS} seats; vision and speech are guaranteed {GUARANTEED} each."
    )
    await make_pools(demo)
    demo.say("[3/7] Lending: what one team leaves idle, the other uses.")
    jobs = await lend(demo)
    demo.say("[4/7] Reclaim: lent seats are called back, with a warning.")
    returned = await call_back(demo, jobs)
    demo.say("[5/7] A burst: two more seats, for a while, and without ending anyone.")
    await burst(demo)
    demo.say("[6/7] A gang: seats of three pools at once, or none of them.")
    await gang(demo, returned)


async def tried(plan: Plan) -> tuple[Evidence, int, str]:
    """Run it; return what etcd's history has of it, the nodes killed, and why it failed, if it did."""
    print("[1/7] Starting etcd and three nodes, as processes on loopback.", flush=True)
    why = ""
    async with AsyncExitStack() as stack:
        flags = ("--stop-grace", "1")
        service = await stack.enter_async_context(running_service(nodes=3, flags=flags))
        teams = [
            await stack.enter_async_context(
                AsyncSeatClient(service.addresses, holder=name, project=name, config=QUICK)
            )
            for name in ("vision", "speech")
        ]
        demo = Demo(service, plan, *teams)
        try:
            async with asyncio.timeout(plan.step_seconds * STEPS):
                await show(demo)
        except FAILURES as error:
            why = reason(error)
            demo.say(f"FAILED: {why}")
        demo.say("[7/7] Reading etcd's whole history, and checking it revision by revision.")
        store = EtcdStore(EtcdConfig(endpoints=service.etcd.endpoints))
        try:
            found = evidence(await read_history(store))
        finally:
            await store.close()
    return found, demo.killed, why


def result_of(found: Evidence, killed: int, why: str) -> dict[str, object]:
    """Return the last line: what the history has, and whether that is all that was to be shown."""
    faults = [*([why] if why else []), *found.missing()]
    return {
        "demo": "failed" if faults else "ok",
        "lent": found.lent,
        "reclaimed": found.reclaimed,
        "burst_seats": found.burst_seats,
        "burst_end_late_ms": found.burst_late_ms,
        "gang": found.gang,
        "max_over_capacity": found.max_over_capacity,
        "drained_after_burst": found.draining,
        "grants": found.grants,
        "nodes_killed": killed,
        **({"why": "; ".join(faults)} if faults else {}),
    }


def reason(error: Exception) -> str:
    """Return why it failed, for people."""
    return str(error) or type(error).__name__


async def main(plan: Plan = Plan()) -> None:
    """Show it, and end with the line, whatever happens."""
    try:
        result = result_of(*await tried(plan))
    except FAILURES as error:  # not even a service, or no history
        result = result_of(Evidence(), 0, reason(error))
    print(json.dumps(result), flush=True)
    sys.exit(0 if result["demo"] == "ok" else 1)


if __name__ == "__main__":
    run(main)
