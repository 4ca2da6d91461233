"""The commands of one pool that wait to be decided."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from seatkeeper.server.domain import Acquire, Command, Release
from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.pool.subscribers import Listener


@dataclass(slots=True)
class PendingCommand:
    """A command, and the listener for its outcome."""

    command: Command
    listener: Listener
    asked_at: float
    """When it came, by the monotonic clock."""
    deadline: float
    """When it has waited too long to be decided, by that clock."""
    batch_delay: float
    """Batch delay in seconds; 0: it is urgent. See ``Inbox.gather``."""


class Inbox:
    """A bounded queue, in the order of arrival.

    A release is owed a place, however many commands wait: it is what the others wait for. Owed one is
    the first for each ticket, each grant and each request that waits in here. So they are bounded by
    what is held and asked for. Any other release is one of the ``commands_max``.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        commands_max: int,
        timeout: timedelta,
        is_held: Callable[[Release], bool],
    ) -> None:
        """Be empty. ``is_held``: whether there is a ticket or grant that a release gives up."""
        self._clock = clock
        self._is_held = is_held
        self._waiting: set[tuple[type[Command], str, str]] | None = None
        """Which commands wait, by kind, session and grant id; None: not needed, as there is room."""
        self._releases = 0
        self._enough: tuple[int, asyncio.Future[None]] | None = None
        """How many releases are waited for, and what says that they are there."""
        self._commands_max = commands_max
        self._timeout = timeout.total_seconds()
        self._asks: deque[PendingCommand] = deque()
        self._is_urgent = False
        self._batch_full: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._asks)

    def add(self, command: Command, listener: Listener, *, batch_delay: timedelta) -> bool:
        """Add a command; return False, and do nothing, when there are too many."""
        if len(self._asks) >= self._commands_max and not self._is_owed_a_place(command):
            return False
        now = self._clock.monotonic()
        self._asks.append(
            PendingCommand(
                command, listener, now, now + self._timeout, batch_delay.total_seconds()
            )
        )
        if self._waiting is not None:
            self._waiting.add(_key(command))
        if type(command) is Release:
            self._releases += 1
            if self._enough is not None and self._releases >= self._enough[0]:
                _set(self._enough[1])
        if not batch_delay:
            self._urgent()
        return True

    async def releases(self, enough: int, *, within: float) -> None:
        """Wait until so many releases are in here, or so many seconds are over."""
        if self._releases >= enough or within <= 0:
            return
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._enough = enough, future
        timer = loop.call_later(within, _set, future)
        try:
            await future
        finally:
            timer.cancel()
            self._enough = None

    async def gather(self) -> None:
        """Wait for the batch delay, unless a command in here is urgent.

        A commit, and waking up for its answers, cost the same for one command as for many. So a crowd
        of calls, and requests that will only join a queue, get faster when each waits for the others,
        and an urgent command finds the store idle.
        """
        if not self._asks or self._is_urgent:
            return
        # By hand: ``wait_for`` takes several turns of the event loop to end.
        loop = asyncio.get_running_loop()
        batch_full = self._batch_full = loop.create_future()
        timer = loop.call_later(min(ask.batch_delay for ask in self._asks), self._urgent)
        try:
            await batch_full
        finally:
            timer.cancel()
            self._batch_full = None

    def take(self, count_max: int) -> list[PendingCommand]:
        """Remove and return the oldest commands."""
        asks = [self._asks.popleft() for _ in range(min(len(self._asks), count_max))]
        self._is_urgent = not all(ask.batch_delay for ask in self._asks)
        self._changed(-1, asks)
        return asks

    def put_back(self, asks: Sequence[PendingCommand]) -> None:
        """Put commands that were not decided back in front."""
        self._asks.extendleft(reversed(asks))
        self._changed(1, asks)
        if asks:
            self._urgent()

    def _urgent(self) -> None:
        self._is_urgent = True
        if self._batch_full is not None:
            _set(self._batch_full)

    def take_late(self) -> list[PendingCommand]:
        """Remove and return the commands that have waited too long."""
        now = self._clock.monotonic()
        if not self._asks or self._asks[0].deadline > now:
            return []
        late = [ask for ask in self._asks if ask.deadline <= now]
        self._asks = deque(ask for ask in self._asks if ask.deadline > now)
        self._changed(-1, late)
        return late

    def _is_owed_a_place(self, command: Command) -> bool:
        """Return whether a command is accepted although there is no room. Only asked then."""
        if not isinstance(command, Release):
            return False
        if self._waiting is None:
            self._waiting = {_key(ask.command) for ask in self._asks}
        if _key(command) in self._waiting:
            return False
        asked = (Acquire, command.session_id, command.grant_id)
        return asked in self._waiting or self._is_held(command)

    def _changed(self, by: int, asks: Iterable[PendingCommand]) -> None:
        """Note that commands are in here no more, or again."""
        self._waiting = None
        self._releases += by * sum(type(ask.command) is Release for ask in asks)


def _key(command: Command) -> tuple[type[Command], str, str]:
    return type(command), command.session_id, command.grant_id


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
