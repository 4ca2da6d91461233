"""What becomes of a command when it arrives, before any decision: refused, or batched with others."""

from __future__ import annotations

from datetime import timedelta

from seatkeeper.server.decide import admission
from seatkeeper.server.domain import Acquire, Command, PoolState
from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.pool.background import BackgroundWork
from seatkeeper.server.pool.context import LoopConfig

NO_DELAY = timedelta(0)


class Intake:
    """Checks commands by the view and the latest plan, so that a flood of them costs little."""

    def __init__(
        self, state: PoolState, work: BackgroundWork, config: LoopConfig, clock: Clock
    ) -> None:
        self._state = state
        self._work = work
        self._config = config
        self._clock = clock

    def early_refusal(self, command: Acquire, *, ahead: int) -> str | None:
        """Return why a request cannot even join the queue; None: it can, or may be served at once.

        ``ahead``: commands that wait to be decided before it.
        """
        if not self._state.tickets or admission.is_known(self._state, command):
            return None
        limits = self._config.limits
        why = admission.queue_refusal(
            self._state, command, limits, ahead=ahead, ahead_of_holder=0
        )
        return why if why is not None and self._will_wait(command) else None

    def batch_delay(self, command: Command, *, is_one_of_many: bool) -> timedelta:
        """Return how long a command may wait for others to share its commit."""
        if is_one_of_many:
            return self._config.crowd_pause
        if not self._state.tickets or not isinstance(command, Acquire):
            return NO_DELAY
        return self._config.queue_pause if self._will_wait(command) else NO_DELAY

    def _will_wait(self, command: Acquire) -> bool:
        """Return whether a request can only join the queue that there is already."""
        return admission.will_wait(self._state, command, self._work.plan, self._clock.now())
