"""What a round of turns shows, and what the rounds of all peers show together.

A turn is: take the lock or a seat, hold it, give it back. The same bookkeeping serves coroutines and
threads, because some peers' libraries have only the latter. Pure, but for the clock that is given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from time import perf_counter

from bench.report import median, percentile

OURS = "seatkeeper"


@dataclass(frozen=True)
class Case:
    """One kind of work."""

    name: str
    """``alone``, ``lock`` or ``seats``: what keys of the output begin with, after the peer's name."""
    pool: str
    """``lock``: one at a time; ``seats``: several."""
    clients: int
    hold_seconds: float


@dataclass
class Round:
    """One case at one peer, for a while."""

    clients: int
    ends: float
    """Turns that begin later are those of clients that waited; they count as waits alone."""
    seconds: float
    """Its length, up to ``ends``."""
    now: Callable[[], float] = perf_counter
    waits: list[float] = field(default_factory=list)
    """Seconds from each request to its turn."""
    handoffs: list[float] = field(default_factory=list)
    """Seconds from a return to the next turn. Returns and turns are paired in order."""
    turns: list[int] = field(default_factory=list)
    """How many each client had."""
    held_max: int = 0
    _held: int = 0
    _returned: deque[float] = field(default_factory=deque)
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self.turns = [0] * self.clients

    def took(self, client: int, requested_at: float) -> None:
        """Count that a client's turn begins."""
        with self._lock:
            now = self.now()
            self.waits.append(now - requested_at)
            self._held += 1
            self.held_max = max(self.held_max, self._held)
            returned_at = self._returned.popleft() if self._returned else None
            if now < self.ends:
                self.turns[client] += 1
                if returned_at is not None:
                    self.handoffs.append(now - returned_at)

    def returns(self) -> None:
        """Count that a turn ends: call it before the lock is given back."""
        with self._lock:
            self._held -= 1
            self._returned.append(self.now())

    @property
    def cycles_per_s(self) -> float:
        """Turns a second, of all clients together."""
        return sum(self.turns) / self.seconds

    @property
    def least_share(self) -> float:
        """Turns of the client that had fewest, over an even share: 1 is even, 0 is starved."""
        return min(self.turns) * self.clients / max(1, sum(self.turns))


Rounds = Mapping[tuple[str, Case], Sequence[Round]]
"""By peer and case, each with as many rounds, in the order in which they were measured."""


def figures(rounds: Rounds) -> dict[str, float]:
    """Return the medians of each peer's rounds, and the medians of the ratios within a round."""
    results: dict[str, float] = {}
    for (peer, case), measured in rounds.items():
        ours = rounds[OURS, case]
        for name, value in _figures_of(case).items():
            key = f"{peer}_{case.name}_{name}"
            results[key] = median([value(each) for each in measured])
            if peer != OURS and name in RATIOS:
                results[f"{peer}_{case.name}_{RATIOS[name]}_over_seatkeeper"] = median(
                    [
                        value(theirs) / value(mine)
                        for theirs, mine in zip(measured, ours, strict=True)
                    ]
                )
        held = max(each.held_max for each in measured)
        results[f"{peer}_{case.name}_held_max"] = max(
            held, results.get(f"{peer}_{case.name}_held_max", 0)
        )
    return results


RATIOS = {
    "cycles_per_s": "cycles",
    "handoff_p50_ms": "handoff_p50",
    "acquire_p50_ms": "acquire_p50",
}
"""Figures that are compared with ours, and how the ratio is called."""


def _figures_of(case: Case) -> dict[str, Callable[[Round], float]]:
    """Return what is reported of a case, by the end of its key."""
    if case.clients == 1:
        return {
            f"acquire_p{percent}_ms": _percentile_ms("waits", percent) for percent in (50, 99)
        }
    if case.hold_seconds:
        return {
            **{
                f"handoff_p{percent}_ms": _percentile_ms("handoffs", percent)
                for percent in (50, 99)
            },
            "wait_p99_ms": _percentile_ms("waits", 99),
            "least_share": lambda each: each.least_share,
        }
    return {"cycles_per_s": lambda each: each.cycles_per_s}


def _percentile_ms(times: str, percent: int) -> Callable[[Round], float]:
    return lambda each: 1000 * percentile(getattr(each, times), percent)
