"""How far a build is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from seatkeeper.v1 import build_service_pb2

STEP_CHARS_MAX = 200

RECEIVING = build_service_pb2.BUILD_PHASE_RECEIVING
CHECKING = build_service_pb2.BUILD_PHASE_CHECKING
CONVERTING = build_service_pb2.BUILD_PHASE_CONVERTING
PARSING = build_service_pb2.BUILD_PHASE_PARSING
BUILDING = build_service_pb2.BUILD_PHASE_BUILDING


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One thing that a build has to say about itself."""

    phase: build_service_pb2.BuildPhase.ValueType
    """What the build is at, in the words of the wire."""
    step: str = ""
    """What the compiler says it is doing; empty when it does not say."""
    steps_done: int = 0
    """Steps done of ``steps``. The compiler may go back, and may be silent for long."""
    steps: int = 0
    """Steps in all; zero when unknown."""

    def to_message(self, elapsed: timedelta) -> build_service_pb2.BuildProgress:
        """Return this as it goes over the wire, ``elapsed`` after the build began."""
        return build_service_pb2.BuildProgress(
            phase=self.phase,
            step=self.step,
            steps_done=self.steps_done,
            steps=self.steps,
            elapsed_millis=elapsed // timedelta(milliseconds=1),
        )


class PhaseTimes:
    """How long a build was in each phase, as far as its progress says."""

    def __init__(self, began: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = began
        self._phase: int | None = None
        self._spent: dict[int | None, float] = {}

    def enter(self, phase: int) -> None:
        """Note that the build is in ``phase`` now."""
        now = self._clock()
        self._spent[self._phase] = self._spent.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now

    def spent_in(self, phase: int) -> float:
        """Return the seconds until now."""
        running = self._clock() - self._since if phase == self._phase else 0.0
        return self._spent.get(phase, 0.0) + running


OnProgress = Callable[[Progress], None]
"""Receives progress. An exception that it raises ends the build."""
