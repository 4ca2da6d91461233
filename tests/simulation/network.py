"""The network between processes: slow, late, cut in one direction or both.

What is sent on one `Pipe` arrives in order or not at all, as on a TCP connection. While the way is
cut it waits, as TCP's retransmissions do, and arrives when the way is whole again, unless the
process that sent it has given up. Different pipes overtake each other.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.simulation.world import Process, World

DELAY_TYPICAL = 0.0005
DELAY_TAIL = 0.02
TAIL_SHARE = 0.02


class Network:
    """How long things take to arrive, and what does not get through."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self._rng = rng
        self.slowness = 1.0
        """Factor on all delays."""
        self.lags: dict[tuple[str, str], float] = {}
        """Seconds by which everything is later in one direction."""
        self._cuts: dict[tuple[str, str], int] = {}
        self._held: dict[tuple[str, str], list[Callable[[], None]]] = {}

    def cut(self, source: str, target: str) -> None:
        """Let nothing through in one direction. Cuts add up: each must be recovered."""
        way = source, target
        self._cuts[way] = self._cuts.get(way, 0) + 1

    def recover(self, source: str, target: str) -> None:
        """Undo one cut of this direction. What was held arrives soon."""
        way = source, target
        self._cuts[way] -= 1
        if self._cuts[way] == 0:
            del self._cuts[way]
            for send in self._held.pop(way, ()):
                send()

    def recover_all(self) -> None:
        """Undo every cut."""
        for way, count in list(self._cuts.items()):
            for _ in range(count):
                self.recover(*way)
        self.slowness = 1.0
        self.lags.clear()

    def is_cut(self, source: str, target: str) -> bool:
        """Return whether nothing gets through in this direction."""
        return (source, target) in self._cuts

    def answers(self, source: Process, target: Process) -> bool:
        """Return whether a ping would be answered now."""
        return (
            target.runs
            and not self.is_cut(source.name, target.name)
            and not self.is_cut(target.name, source.name)
        )

    def delay(self) -> float:
        """Draw how long a message takes."""
        mean = DELAY_TAIL if self._rng.random() < TAIL_SHARE else DELAY_TYPICAL
        return self._rng.expovariate(1 / mean) * self.slowness

    def hold(self, source: str, target: str, send: Callable[[], None]) -> bool:
        """Keep ``send`` for when the way is whole again, if it is cut; return whether it is."""
        if not self.is_cut(source, target):
            return False
        self._held.setdefault((source, target), []).append(send)
        return True


class Pipe:
    """One direction of one connection."""

    __slots__ = ("_arrived_last", "_network", "_source", "_target", "broken", "lag")

    def __init__(self, network: Network, source: Process, target: Process) -> None:
        self._network = network
        self._source = source
        self._target = target
        self._arrived_last = 0.0
        self.broken = False
        """Nothing arrives any more."""
        self.lag = 0.0
        """Seconds by which everything is later."""

    def send(self, deliver: Callable[[], None]) -> None:
        """Have ``deliver`` called in the target process, after all that was sent before."""
        if self.broken or not self._target.is_alive:
            return
        network = self._network
        if network.hold(self._source.name, self._target.name, lambda: self.send(deliver)):
            return
        way = self._source.name, self._target.name
        delay = network.delay() + network.lags.get(way, 0.0) + self.lag
        arrives = max(self._arrived_last, network.world.now + delay)
        self._arrived_last = arrives

        def arrive() -> None:
            if not self.broken:
                self._target.call(deliver)

        network.world.call_at(arrives, arrive)
