"""Users that keep what they hold, in pools that call seats back: without them few are lent for long.

Draws of its own, so that what happens in seeds without any stays as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from seatkeeper.chaos.users import Belief, LibraryUser
from seatkeeper.client.session.driver import SessionDriver
from seatkeeper.client.session.holdings import Holdings
from seatkeeper.client.session.requests import Held
from seatkeeper.oracle.record import Acquired

WAIT_SECONDS = 30.0
LOOK_SECONDS = 0.05
KEEPS_SECONDS = (8.0, 60.0)


class Hoarder(LibraryUser):
    """Takes seats, and keeps them until they are lost, or for long.

    Half of them do not give back what is called back: the service has to take it.
    """

    def _set_up(self) -> None:
        super()._set_up()
        self._is_stubborn = self._rng.random() < 0.5

    def _choose(self) -> tuple[str, int, float]:
        pool, capacity = self._rng.choice(self._pools)
        return pool, self._rng.choice([1, 1, min(2, capacity)]), WAIT_SECONDS

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
        until = min(self.stop_at, now + self._rng.choice(KEEPS_SECONDS))
        while is_safe() and here.now() < until:
            await asyncio.sleep(LOOK_SECONDS)
        belief.end()


def _lose(holdings: Holdings) -> Callable[[Held, str, float], None]:
    """Return what ends a grant for its holder alone."""
    return lambda held, why, _: holdings.lose(held, why)
