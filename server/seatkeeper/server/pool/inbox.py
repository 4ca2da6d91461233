"""The commands of one pool that wait to be decided."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
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
        self._waiting: Counter[tuple[type[Command], str, str]] = Counter()
        """How many commands of each kind wait, by session and grant id."""
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
        self._waiting[_key(command)] += 1
        if not batch_delay:
            self._urgent()
        return True

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
        self._gone(asks)
        return asks

    def put_back(self, asks: Sequence[PendingCommand]) -> None:
        """Put commands that were not decided back in front."""
        self._asks.extendleft(reversed(asks))
        self._waiting.update(_key(ask.command) for ask in asks)
        if asks:
            self._urgent()

    def _urgent(self) -> None:
        self._is_urgent = True
        if self._batch_full is not None and not self._batch_full.done():
            self._batch_full.set_result(None)

    def take_late(self) -> list[PendingCommand]:
        """Remove and return the commands that have waited too long."""
        now = self._clock.monotonic()
        if not self._asks or self._asks[0].deadline > now:
            return []
        late = [ask for ask in self._asks if ask.deadline <= now]
        self._asks = deque(ask for ask in self._asks if ask.deadline > now)
        self._gone(late)
        return late

    def _is_owed_a_place(self, command: Command) -> bool:
        if not isinstance(command, Release) or self._waiting[_key(command)]:
            return False
        asked = (Acquire, command.session_id, command.grant_id)
        return bool(self._waiting[asked]) or self._is_held(command)

    def _gone(self, asks: Iterable[PendingCommand]) -> None:
        for ask in asks:
            key = _key(ask.command)
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]


def _key(command: Command) -> tuple[type[Command], str, str]:
    return type(command), command.session_id, command.grant_id
