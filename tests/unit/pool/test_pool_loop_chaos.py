"""Many clients on several loops at once, while commits fail in every way and sessions die.

Each run has a seed, which its test's name shows: run that one test again to replay its choices.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from tests.unit.faults import Fault
from tests.unit.kit import KEYS, POOL, Ear, acquire, eventually, release, uuid7
from tests.unit.loops import SESSIONS, Loops

from seatkeeper.oracle.history import read_history
from seatkeeper.server.domain import Command, Denied, Grant, Limits, Refusal, Released
from seatkeeper.server.pool.subscribers import SeatsGranted, SeatsLost, Update
from seatkeeper.server.store import records

SEATS = 3
CYCLES = 10
CLIENTS = 12


@dataclass
class Client:
    """Takes seats and gives them back; sends again, anywhere, what is not answered soon."""

    loops: Loops
    rng: random.Random
    session: str
    numbers: list[int]
    granted: list[Grant] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    """Grant ids that were refused, and the store's revision then."""
    resent: int = 0
    has_ended: bool = False

    async def run(self) -> None:
        """Go through all cycles, or as far as the session lives."""
        for number in self.numbers:
            if not self.has_ended:
                await self._cycle(number)

    async def _cycle(self, number: int) -> None:
        may_wait = self.rng.random() < 0.8
        seats = self.rng.choice([1, 1, 2])
        command = acquire(number, self.session, seats=seats, may_wait=may_wait)
        match await self._ask(command):
            case SeatsGranted(grant):
                assert (grant.grant_id, grant.session_id) == (uuid7(number), self.session)
                assert grant.seats == seats
                self.granted.append(grant)
                await turns(self.rng.randrange(30))
            case Denied(reason=Refusal.NO_SEAT_FREE):
                assert not may_wait
                self._note_refusal(number)
                return
            case Denied(reason=Refusal.FINISHED):
                # Denied on another node, or so late that nothing is known of it any more.
                self._note_refusal(number)
                return
            case other:
                self._note_end(other)
                return
        match await self._ask(release(number, self.session)):
            case Released():
                self._check_gone(number)
            case other:
                self._note_end(other)

    async def _ask(self, command: Command) -> Update:
        """Return a certain answer; the answers to earlier copies are dropped."""
        while True:
            node = self.rng.choice(self.loops.nodes)
            ear = node.submit(command, Ear())
            for _ in range(self.rng.choice([20, 200, 100_000])):
                if ear.answers:
                    break
                await turns(1)
            if ear.answers:
                answer = ear.answers[0]
                if not (isinstance(answer, Denied) and answer.reason is Refusal.UNAVAILABLE):
                    return answer
            self.resent += 1

    def _note_refusal(self, number: int) -> None:
        self._check_gone(number)
        self.refused[uuid7(number)] = self.loops.store._revision

    def _check_gone(self, number: int) -> None:
        entries = self.loops.store._entries
        assert KEYS.grant(POOL, uuid7(number)) not in entries
        assert KEYS.ticket(POOL, uuid7(number)) not in entries

    def _note_end(self, answer: Update) -> None:
        is_lost = isinstance(answer, SeatsLost)
        assert is_lost or (
            isinstance(answer, Denied) and answer.reason is Refusal.SESSION_LOST
        ), answer
        self.has_ended = True


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def trouble(loops: Loops, rng: random.Random) -> None:
    """One session dies, and watches break now and then, until cancelled."""
    await turns(rng.randrange(200, 2000))
    await loops.end_session(rng.choice(SESSIONS))
    while True:
        await turns(rng.randrange(100, 2000))
        loops.store.end_watches("cut")


@pytest.mark.parametrize("seed", range(16))
async def test_whatever_fails_no_seat_is_granted_twice_and_no_request_is_forgotten(
    seed: int, loops: Loops
) -> None:
    rng = random.Random(seed)
    await loops.pool(seats=SEATS)
    for number in range(1 + seed % 3):
        limits = Limits(writes_max=rng.choice([7, 127]))
        node = await loops.node(
            rng=random.Random(f"{seed}/{number}"),
            limits=limits,
            pause=timedelta(milliseconds=rng.choice([0, 1])),
        )
        node.store.fault_rate = rng.choice([0.0, 0.1, 0.4])
        node.store.watch_lag = rng.choice([0, 30])
    clients = [
        Client(
            loops,
            random.Random(f"{seed}/client/{number}"),
            SESSIONS[number % len(SESSIONS)],
            [1 + cycle * CLIENTS + number for cycle in range(CYCLES)],
        )
        for number in range(CLIENTS)
    ]
    troubles = asyncio.create_task(trouble(loops, rng))
    async with asyncio.timeout(60):
        await asyncio.gather(*(client.run() for client in clients))
    troubles.cancel()

    for node in loops.nodes:
        node.store.fault_rate = 0.0
        await eventually(lambda node=node: not node.loop.state.tickets)
        await eventually(lambda node=node: not node.loop.state.grants)
    judgement = await loops.checked()
    assert (judgement.out, judgement.waiting) == (0, 0)
    assert judgement.max_out <= SEATS
    assert judgement.grants >= CLIENTS * CYCLES / 4, "little was granted, so little was tested"
    await check_against_history(loops, clients)


async def check_against_history(loops: Loops, clients: list[Client]) -> None:
    """What clients received is what the store remembers."""
    made: dict[str, tuple[int, int]] = {}
    reading = asyncio.create_task(read_history(loops.store, KEYS.prefix))
    while not reading.done():
        await turns(1)
        loops.store.expire_due()
    prefix = KEYS.grant(POOL, "")
    for change in await reading:
        if change.entry is not None and change.key.startswith(prefix):
            grant = records.decode_grant(change.key.removeprefix(prefix), change.entry.value)
            made[grant.grant_id] = (grant.fence, change.revision)
    for client in clients:
        for grant in client.granted:
            assert made[grant.grant_id][0] == grant.fence, "a grant that never was"
        for grant_id, revision in client.refused.items():
            granted_at = made.get(grant_id, (0, 0))[1]
            assert granted_at <= revision, "granted after it was refused"


async def test_the_faults_of_these_tests_do_happen(loops: Loops) -> None:
    """A run without conflicts, lost answers and repeated requests would prove nothing."""
    await loops.pool(seats=SEATS)
    for number in range(2):
        node = await loops.node(rng=random.Random(number))
        node.store.fault_rate = 0.5
        node.store.watch_lag = 100
    clients = [
        Client(loops, random.Random(n), SESSIONS[n % 4], [1 + c * 8 + n for c in range(CYCLES)])
        for n in range(8)
    ]
    async with asyncio.timeout(60):
        await asyncio.gather(*(client.run() for client in clients))

    assert {fault for node in loops.nodes for fault in node.store.injected} == set(Fault)
    assert sum(node.tally.conflicts for node in loops.nodes) > 0
    assert sum(node.tally.unknown for node in loops.nodes) > 0
    assert sum(client.resent for client in clients) > 0
