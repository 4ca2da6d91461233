"""Users of pools that call seats back, keep them after a loss, and lend them to machines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import cached_property, partial

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from seatkeeper.chaos.users import Belief, LibraryUser, StubUser
from seatkeeper.client import AsyncGrant, BorrowRefused, HoldingState, NotYours, SeatError
from seatkeeper.client.session.driver import SessionDriver
from seatkeeper.client.session.holdings import Holdings
from seatkeeper.client.session.requests import Held
from seatkeeper.core.machine_statement import BORROW_KIND, RETURN_KIND, signed_statement
from seatkeeper.oracle.record import Acquired, Believed, Returned
from seatkeeper.v1 import seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb

WAIT_SECONDS = 30.0
LOOK_SECONDS = 0.05
KEEPS_SECONDS = (8.0, 60.0)
DRIFT_SECONDS = 0.1
"""A machine stops so long before its day: rates of clocks differ, and a pool may have a skew of 0."""
AGAIN_MAX = 3
"""How often the same seats are used, at most."""
GONE_SECONDS = (0.0, 4.0)
"""How long after the end of its lease one that was lost comes back."""


class Hoarder(LibraryUser):
    """Takes seats, and keeps them until they are lost, or for long.

    Half of them do not give back what is called back: the service has to take it.
    """

    def _set_up(self) -> None:
        super()._set_up()
        self._is_stubborn = self._rng.random() < 0.5

    def _choose(self) -> tuple[str, int, float]:
        pool, capacity = self._rng.choice(self._pools)
        wait = min(WAIT_SECONDS, self.habits.wait_max)
        return pool, self._rng.choice([1, 1, min(2, capacity)]), wait

    async def _use(
        self, pool: str, seats: int, grant_id: str, fence: int, is_safe: Callable[[], bool]
    ) -> None:
        here = self.surroundings
        here.note(f"{self.name}: keeps {grant_id} of {pool} under {fence}")
        now = here.now()
        self.user_record.note(Acquired(self.name, pool, grant_id, fence, seats, now))
        belief = Belief(here, pool, grant_id, seats, is_safe, since=now, until=now)
        self.user_record.beliefs.append(belief)
        self.asking_since = None
        if self._is_stubborn:
            driver = self._client._session.driver()
            assert isinstance(driver, SessionDriver)
            tables = driver._machine.tables
            setattr(tables, "give_up", _lose(tables.holdings))  # noqa: B010  # a method
        until = now + self._rng.choice(KEEPS_SECONDS)
        while is_safe() and here.now() < min(until, self.stop_at):
            await asyncio.sleep(LOOK_SECONDS)
        belief.end()


def _lose(holdings: Holdings) -> Callable[[Held, str, float], None]:
    """Return what ends a grant for its holder alone."""
    return lambda held, why, _: holdings.lose(held, why)


class Returner(StubUser):
    """Takes a seat, lets its session end, and asks for the same grant in a new one."""

    async def _cycle(self) -> None:
        await self._open()
        credentials = self._credentials
        if credentials is None:
            return
        pool, seats, wait = self._choose()
        acquire = seat_pb2.Acquire(pool=pool, grant_id=self._new_id(), seats=seats)
        acquire.wait.FromTimedelta(timedelta(seconds=wait))
        self._note_asking()
        for _ in range(self._rng.choice([2, 3])):
            request = pb.AcquireRequest(credentials=credentials, acquire=acquire)
            timeout = wait + 2.0
            answer = await self._insist(
                lambda stub, request=request, timeout=timeout: stub.Acquire(  # type: ignore[misc]  # mypy infers no type for a default of a lambda
                    request, timeout=timeout
                )
            )
            if answer is None:
                return
            here, now = self.surroundings, self.surroundings.now()
            self.asking_since = None
            note = f"{self.name}: has {acquire.grant_id} of {pool} under {answer.granted.fence}"
            here.note(note)
            self.user_record.operations += 1
            await asyncio.sleep(self._rng.uniform(0.0, 1.0))
            if self._renewing is not None:
                self._renewing.cancel()
            self._credentials, self._safe_until = None, 0.0
            await asyncio.sleep(self.ttl + self._rng.uniform(*GONE_SECONDS))
            if now > self.stop_at:
                return
            await self._open()
            credentials = self._credentials
            if credentials is None:
                return
            acquire.wait.FromTimedelta(timedelta(0))
            wait = 0.0
        await self._end()
        self._credentials, self._safe_until = None, 0.0


class Again(LibraryUser):
    """Takes the same grant again where its session was lost, as a program that stood still does."""

    async def _cycle(self) -> None:
        here, (pool, seats, wait) = self.surroundings, self._choose()
        self._note_asking()
        try:
            grant = await self._client.acquire(pool, seats=seats, wait=wait)
            for _ in range(AGAIN_MAX):
                await self._use(
                    *(pool, seats, grant.grant_id, grant.fence), partial(_is_held, grant)
                )
                if _is_held(grant):
                    break
                self._note_asking()
                grant = await self._client.take_again(grant, wait=wait)
                here.note(f"{self.name}: has {grant.grant_id} of {pool} again")
            self.user_record.operations += 1
            await grant.release()
        except SeatError as error:
            here.note(f"{self.name}: failed: {type(error).__name__}")


def _is_held(grant: AsyncGrant) -> bool:
    return grant.state is not HoldingState.LOST


class Borrower(LibraryUser):
    """Takes a seat along. Half of the time it gives it back before its day, sometimes twice."""

    @cached_property
    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self._rng.randbytes(32))

    async def _cycle(self) -> None:
        here, (pool, _) = self.surroundings, self._rng.choice(self._pools)
        self._note_asking()
        try:
            wait = min(self._rng.choice([0.0, 3.0, 10.0]), self.habits.wait_max)
            grant = await self._client.acquire(pool, wait=wait)
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
        return here.now() + left / 1000 - DRIFT_SECONDS

    async def _use_borrowed(self, grant: AsyncGrant, until: float) -> None:
        here, since = self.surroundings, self.surroundings.now()
        used = self._rng.uniform(0.0, 4.0)
        gives_back = self._rng.random() < 0.5
        ends = min(until, since + used) if gives_back else until
        # Switched off meanwhile or not: it is the machine's until then, and no session's.
        self.user_record.count_on(
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
