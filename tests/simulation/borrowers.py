"""Machines that borrow seats in simulation: switched off, given back or not; and what they are held to.

Draws of their own, so that what happens in seeds without any stays as it is.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.simulation.cluster import KEYS, SimCluster
from tests.simulation.users import SimSurroundings
from tests.simulation.world import EPOCH

from seatkeeper.chaos.users import LibraryUser, UserRecord
from seatkeeper.client import AsyncGrant, BorrowRefused, NotYours, SeatError
from seatkeeper.core.borrowing import BorrowRule
from seatkeeper.core.machine_statement import BORROW_KIND, RETURN_KIND, signed_statement
from seatkeeper.internal.v1 import state_pb2
from seatkeeper.oracle.record import Acquired, Believed, Returned
from seatkeeper.oracle.stored import StoredGrant, located, read_grant
from seatkeeper.server.store import Change
from seatkeeper.v1 import seat_service_pb2 as pb

BORROWS_SHARE = 0.3
"""Share of the seeds in which pools lend seats to machines."""
LONGEST = timedelta(seconds=6)
DRIFT_MILLIS = 100
"""How much clocks differ by their rates, at most, in the time of a borrowed seat."""
SETTLING_SECONDS = LONGEST.total_seconds() + 2.0 + 12.0
"""When every seat is free after all has recovered: its day, the skew, and a node's longest pause."""


def borrows_of(seed: int) -> random.Random | None:
    """Return what draws the rules of a seed's pools; None: they lend nothing."""
    own = random.Random(f"borrows of {seed}")
    return own if own.random() < BORROWS_SHARE else None


def drawn_borrow(own: random.Random, seats: int) -> BorrowRule:
    """Draw a rule, also such that lets nothing be borrowed."""
    return BorrowRule(
        longest=LONGEST,
        seats=own.choice([None, 1, 1, max(0, seats - 1)]),
        skew=timedelta(seconds=own.choice([0.0, 0.5, 2.0])),
        low_water=own.choice([0, 0, 1]),
    )


class Borrower(LibraryUser):
    """Takes a seat along. Half of the time it gives it back before its day, sometimes twice."""

    def _set_up(self) -> None:
        super()._set_up()
        self.believed: list[Believed] = []

    @cached_property
    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self._rng.randbytes(32))

    async def _cycle(self) -> None:
        here, (pool, _) = self.surroundings, self._rng.choice(self._pools)
        self._note_asking()
        try:
            grant = await self._client.acquire(pool, wait=self._rng.choice([0.0, 3.0, 10.0]))
        except SeatError as error:
            here.note(f"{self.name}: failed: {type(error).__name__}")
            return
        self.user_record.note(
            Acquired(self.name, pool, grant.grant_id, grant.fence, grant.seats, here.now())
        )
        self.asking_since = None
        try:
            until = await self._borrow(grant)
        except SeatError as error:
            here.note(f"{self.name}: not borrowed: {type(error).__name__} {error}")
            with suppress(SeatError):
                await grant.release()
            if not isinstance(error, BorrowRefused):
                await self._give_back(grant)  # it may be borrowed, for all that is known
            return
        await self._use_borrowed(grant, until)

    async def _borrow(self, grant: AsyncGrant) -> float:
        """Borrow a grant; return until when, by the time of records."""
        here = self.surroundings
        self.user_record.operations += 1
        answer = await self._client.borrowing.borrow(
            await self._client.session(),
            pb.GrantRef(pool=grant.pool, grant_id=grant.grant_id),
            length=timedelta(seconds=self._rng.choice([2.0, 4.0, 6.0, 6.0, 9.0])),
            machine_key=self._key.public_key().public_bytes_raw(),
            proof=self._signed(grant, BORROW_KIND),
        )
        here.note(f"{self.name}: borrowed {grant.grant_id} of {grant.pool}")
        left = answer.grant.borrowed.until.ToMilliseconds() - here.unix_millis()
        return here.now() + left / 1000

    async def _use_borrowed(self, grant: AsyncGrant, until: float) -> None:
        here, since = self.surroundings, self.surroundings.now()
        used = self._rng.uniform(0.0, 4.0)
        gives_back = self._rng.random() < 0.5
        ends = min(until, since + used) if gives_back else until
        # Switched off meanwhile or not: it is the machine's until then, and no session's.
        self.believed.append(
            Believed(self.name, grant.pool, grant.seats, since, ends, grant.grant_id)
        )
        if gives_back:
            await asyncio.sleep(max(0.0, ends - here.now()))
            await self._give_back(grant)

    async def _give_back(self, grant: AsyncGrant) -> None:
        pool, grant_id = grant.pool, grant.grant_id
        with suppress(SeatError):
            for _ in range(self._rng.choice([1, 1, 2])):
                self.user_record.operations += 1
                await self._try_another_key(grant)
                statement = self._signed(grant, RETURN_KIND)
                await self._client.borrowing.return_grant(pool, grant_id, statement=statement)
                self.user_record.note(
                    Returned(self.name, pool, grant_id, self.surroundings.now())
                )

    async def _try_another_key(self, grant: AsyncGrant) -> None:
        """Have somebody else give it back, who cannot."""
        if self._rng.random() < 0.7:
            return
        other = Ed25519PrivateKey.from_private_bytes(self._rng.randbytes(32))
        said = signed_statement(other, RETURN_KIND, grant.pool, grant.grant_id, grant.fence)
        try:
            free = await self._client.borrowing.return_grant(
                grant.pool, grant.grant_id, statement=said
            )
        except NotYours:
            return
        assert free is None, "it was given back with another key"

    def _signed(self, grant: AsyncGrant, kind: str) -> str:
        return signed_statement(self._key, kind, grant.pool, grant.grant_id, grant.fence)


def borrowers(
    cluster: SimCluster, user_record: UserRecord, pools: dict[str, int], seed: int
) -> list[Borrower]:
    """Return those of a seed."""
    own = random.Random(f"borrowers of {seed}")
    lending = [
        (name, n) for name, n in pools.items() if cluster.shared[name].borrow is not None
    ]
    return [
        Borrower(SimSurroundings(cluster, f"borrower-{n}", own), user_record, lending, own)
        for n in range(own.randrange(1, 4))
        if lending
    ]


def set_clocks_right(cluster: SimCluster) -> None:
    """Set the clocks of nodes right, as an operator does: days are over by these."""
    for node in cluster.nodes:
        if node.process is not None:
            node.process.clock_ahead = 0.0


def check_borrowed(
    changes: Iterable[Change], changed_at: Mapping[int, float], *, are_clocks_right: bool
) -> Iterator[str]:
    """Yield what is borrowed still at the end, and what was freed before its day by true time (I7).

    ``are_clocks_right``: none jumped; otherwise the day is what the clocks of nodes said.
    """
    changes = list(changes)
    there: dict[tuple[str, str], StoredGrant] = {}
    returned: set[tuple[str, int]] = set()
    for pool, kind, _, change in located(changes, KEYS.prefix):
        if kind == "guard" and change.entry is not None:
            returned |= {(pool, fence) for fence in _ended_early(change.entry.value)}
    for pool, kind, name, change in located(changes, KEYS.prefix):
        if kind != "grants":
            continue
        if change.entry is not None:
            there[pool, name] = read_grant(name, change.entry.value)
            continue
        gone = there.pop((pool, name), None)
        if gone is None or gone.borrow is None or (pool, gone.fence) in returned:
            continue
        at_millis = (EPOCH + changed_at[change.revision]) * 1000
        if are_clocks_right and at_millis + DRIFT_MILLIS < gone.borrow.free_at_millis:
            yield f"I7 {name} of {pool} was freed before its day, at {at_millis:.0f}"
    for (pool, name), grant in there.items():
        if grant.borrow is not None:
            yield f"I7 {name} of {pool} is borrowed still, and its day is over"


def _ended_early(guard: bytes) -> set[int]:
    record = state_pb2.GuardRecord.FromString(guard)
    facts = state_pb2.DecisionFacts.FromString(record.facts)
    return {*facts.returned_fences, *facts.reclaimed_fences}
