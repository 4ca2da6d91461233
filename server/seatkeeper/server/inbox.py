"""The commands of one pool that wait to be decided."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from seatkeeper.server.audience import Listener
from seatkeeper.server.clock import Clock
from seatkeeper.server.decide import Command


@dataclass(slots=True)
class Ask:
    """A command, and who hears its outcome."""

    command: Command
    listener: Listener
    deadline: float
    """When it has waited too long, by the monotonic clock."""
    patient: bool
    """Whether it may wait a little for company. See ``Inbox.gather``."""


class Inbox:
    """A bounded queue, in the order of arrival."""

    def __init__(
        self, clock: Clock, *, commands_max: int, timeout: timedelta, company_pause: timedelta
    ) -> None:
        self._clock = clock
        self._company_pause = company_pause.total_seconds()
        self._commands_max = commands_max
        self._timeout = timeout.total_seconds()
        self._asks: deque[Ask] = deque()
        self._haste = asyncio.Event()

    def __len__(self) -> int:
        return len(self._asks)

    def add(self, command: Command, listener: Listener, *, patient: bool) -> bool:
        """Add a command; return False, and do nothing, when there are too many."""
        if len(self._asks) >= self._commands_max:
            return False
        deadline = self._clock.monotonic() + self._timeout
        self._asks.append(Ask(command, listener, deadline, patient))
        if not patient:
            self._haste.set()
        return True

    async def gather(self) -> None:
        """Wait a little for company, unless something in here is in haste.

        A commit, and waking up for its answers, cost the same for one command as for many. So a crowd
        of calls, and requests that will only join a queue, get faster when each waits for the others,
        and what is in haste finds the store free.
        """
        if self._asks and self._company_pause and not self._haste.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._haste.wait(), self._company_pause)

    def take(self, count_max: int) -> list[Ask]:
        """Remove and return the oldest commands."""
        asks = [self._asks.popleft() for _ in range(min(len(self._asks), count_max))]
        if all(ask.patient for ask in self._asks):
            self._haste.clear()
        return asks

    def put_back(self, asks: Sequence[Ask]) -> None:
        """Put commands that were not decided back in front."""
        self._asks.extendleft(reversed(asks))
        if asks:
            self._haste.set()

    def take_late(self) -> list[Ask]:
        """Remove and return the commands that have waited too long."""
        now = self._clock.monotonic()
        if not self._asks or self._asks[0].deadline > now:
            return []
        late = [ask for ask in self._asks if ask.deadline <= now]
        self._asks = deque(ask for ask in self._asks if ask.deadline > now)
        return late
