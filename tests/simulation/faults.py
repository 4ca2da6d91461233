"""What can go wrong, each with a name and a place."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from tests.simulation.cluster import SimCluster
from tests.simulation.rpc import SimChannel
from tests.simulation.users import kill, process_of
from tests.simulation.world import Process

from seatkeeper.chaos.users import User

REPLAYED = (
    "/seatkeeper.v1.SeatService/OpenSession",
    "/seatkeeper.v1.SeatService/Acquire",
    "/seatkeeper.v1.SeatService/Release",
    "/seatkeeper.v1.SeatService/CloseSession",
    "/seatkeeper.v1.PeerService/Decide",
)
SESSION = "/seatkeeper.v1.SeatService/Session"
COPIES_MAX = 200
COPY_SECONDS = 15.0
"""The deadline of a copy: never sooner than its original's, which bounds how long it may wait."""


@dataclass
class Faults:
    """Injects faults at random moments, until it is stopped; then all is recovered."""

    cluster: SimCluster
    users: Sequence[User]
    rng: random.Random
    kinds: Sequence[Callable[[Faults], str]]
    injected: list[str] = field(default_factory=list)
    disturbed_until: float = 0.0
    """Until when renewals of the dead may be under way, or delayed, because of what was done."""
    is_over: bool = False
    affected: set[str] = field(default_factory=set)
    """Users who were paused."""

    def __post_init__(self) -> None:
        self._world = self.cluster.world
        self._network = self.cluster.network
        self._ghost = self._world.process("ghost")
        self._copies: list[tuple[str, str, tuple[bytes, ...], object]] = []
        self.cluster.board.on_request = self._listen

    def begin(self, until: float, mean_pause: float) -> None:
        """Inject again and again until a moment."""

        def inject() -> None:
            if self._world.now >= until:
                return
            self._inject()
            self._world.call_in(self.rng.expovariate(1 / mean_pause), inject)

        self._world.call_in(self.rng.expovariate(1 / mean_pause), inject)

    def recover(self) -> None:
        """Undo what lasts, and inject no more."""
        self.is_over = True
        self._network.recover_all()
        self.cluster.etcd.lose_answers = 0.0
        self.cluster.etcd.watch_lags.clear()
        for process in tuple(self._world.processes):
            process.resume()
        for node in self.cluster.nodes:
            node.is_kept_up = True  # one may be on its way out
            node.start()
        for pool in self.cluster.capacity:
            self.cluster.resize(pool)

    def _inject(self) -> None:
        fault = self.rng.choice(self.kinds)
        place = fault(self)
        name = f"{fault.__name__.strip('_')}({place})"
        self.injected.append(name)
        self._world.note(f"fault {name}")

    def _later(self, seconds: float, undo: Callable[[], None]) -> None:
        def unless_over() -> None:
            if not self.is_over:
                undo()

        self._world.call_in(seconds, unless_over)

    def _disturb(self, seconds: float) -> None:
        self.disturbed_until = max(self.disturbed_until, self._world.now + seconds)

    # Nodes ---------------------------------------------------------------------------------

    def _kill_node(self) -> str:
        node = self.rng.choice(self.cluster.nodes)
        node.kill()
        self._later(self.rng.uniform(0.1, 5.0), node.start)
        return node.name

    def _pause_node(self) -> str:
        node = self.rng.choice(self.cluster.nodes)
        if node.process is not None:
            self._pause(node.process, self.rng.choice([0.3, 2.0, 8.0]))
        return node.name

    def _drain_node(self) -> str:
        node = self.rng.choice(self.cluster.nodes)
        node.drain()
        self._later(self.rng.uniform(2.0, 6.0), node.start)
        return node.name

    def _pause(self, process: Process, mean: float) -> None:
        seconds = self.rng.expovariate(1 / mean)
        process.pause()
        self._disturb(seconds)
        self._later(seconds, process.resume)

    # Users ---------------------------------------------------------------------------------

    def _kill_user(self) -> str:
        user = self.rng.choice(self.users)
        alive = [each for each in self.users if process_of(each).is_alive]
        if len(alive) > 2:
            kill(user)
        return user.name

    def _pause_user(self) -> str:
        user = self.rng.choice(self.users)
        self.affected.add(user.name)
        self._pause(process_of(user), self.rng.choice([0.5, user.ttl]))
        return user.name

    # The network ---------------------------------------------------------------------------

    def _cut(self) -> str:
        names = [process.name for process in self._world.processes]
        kind = self.rng.choice(["node-etcd", "node-node", "user-node", "any"])
        first = self.rng.choice(self.cluster.nodes).name
        second = {
            "node-etcd": "etcd",
            "node-node": self.rng.choice(self.cluster.nodes).name,
            "user-node": self.rng.choice(self.users).name,
        }.get(kind, self.rng.choice(names))
        ways = self.rng.choice(
            [[(first, second)], [(second, first)], [(first, second), (second, first)]]
        )
        if first == second:
            return "nothing"
        seconds = self.rng.expovariate(1 / self.rng.choice([0.5, 3.0, 8.0]))
        self._disturb(seconds)
        for way in ways:
            self._network.cut(*way)
            self._later(seconds, partial(self._network.recover, *way))
        return " ".join(f"{source}>{target}" for source, target in ways)

    def _answer_late(self) -> str:
        """One user receives everything late, and then nothing more for longer than its lease."""
        user = self.rng.choice(self.users)
        lag, seconds = self.rng.uniform(0.5, 2.0), self.rng.uniform(2.0, 6.0)
        ways = [(node.name, user.name) for node in self.cluster.nodes]
        for way in ways:
            self._network.lags[way] = lag

        def deafen() -> None:
            for way in ways:
                self._network.lags.pop(way, None)
                self._network.cut(*way[::-1])
                self._later(user.ttl + 2.0, partial(self._network.recover, *way[::-1]))

        self._later(seconds, deafen)
        self._disturb(seconds + user.ttl + 2.0 + lag)
        return f"{user.name} {lag:.1f} s"

    def _slow_network(self) -> str:
        factor = self.rng.choice([20.0, 200.0])
        seconds = self.rng.uniform(0.5, 4.0)
        self._network.slowness = factor
        self._disturb(seconds + 2.0)

        def undo() -> None:
            self._network.slowness = 1.0

        self._later(seconds, undo)
        return f"x{factor:g}"

    def _copies_arrive_late(self) -> str:
        """Requests that were sent long ago arrive once more, at any node."""
        count = min(len(self._copies), self.rng.randrange(1, 6))
        for address, path, messages, metadata in self.rng.sample(self._copies, count):
            anywhere = self.rng.choice(self.cluster.nodes).address
            self._send_copy(self.rng.choice([address, anywhere]), path, messages, metadata)
        self._disturb(0.5)
        return str(count)

    def _send_copy(
        self, address: str, path: str, messages: tuple[bytes, ...], metadata: object
    ) -> None:
        def send() -> None:
            channel = SimChannel(self.cluster.board, self._ghost, address)
            if path == SESSION:
                call = channel.stream_stream(path, bytes, bytes)(copied=True)
                for message in messages:
                    call.say(message)
                self._ghost.loop.call_later(3.0, call.cancel)
            else:
                channel.unary_unary(path, bytes, bytes)(
                    messages[0], timeout=COPY_SECONDS, metadata=metadata, copied=True
                )

        self._ghost.call(send)

    def _listen(self, call: object, address: str, path: str, message: bytes) -> None:
        first = getattr(call, "first_message", None)
        messages: tuple[bytes, ...]
        if path in REPLAYED:
            messages = (message,)
        elif path == SESSION and first is not None:
            messages = (first, message)
        else:
            return
        metadata = getattr(call, "metadata", ())
        self._copies.append((address, path, messages, metadata))
        if len(self._copies) > COPIES_MAX:
            self._copies.pop(self.rng.randrange(COPIES_MAX // 2))

    # etcd ----------------------------------------------------------------------------------

    def _elect(self) -> str:
        seconds = self.rng.choice([0.0, 0.3, 1.5, 4.0])
        self.cluster.etcd.elect(seconds)
        self._disturb(seconds)
        return f"{seconds:g} s"

    def _compact(self) -> str:
        self.cluster.etcd.compact()
        return ""

    def _end_watches(self) -> str:
        self.cluster.etcd.end_watches()
        return ""

    def _watch_late(self) -> str:
        """What one node watches reaches it late."""
        node = self.rng.choice(self.cluster.nodes)
        lags = self.cluster.etcd.watch_lags
        lags[node.name] = self.rng.choice([0.05, 0.3, 2.0])
        self._later(self.rng.uniform(1.0, 6.0), partial(lags.update, {node.name: 0.0}))
        return f"{node.name} {lags[node.name]:g} s"

    def _lose_answers(self) -> str:
        share = self.rng.choice([0.05, 0.3, 1.0])
        etcd = self.cluster.etcd
        etcd.lose_answers = share
        seconds = self.rng.uniform(0.2, 2.0)
        self._disturb(seconds + 2.0)

        def undo() -> None:
            etcd.lose_answers = 0.0

        self._later(seconds, undo)
        return f"{share:g}"

    # Administrators ------------------------------------------------------------------------

    def _resize_pool(self) -> str:
        """Take seats from a pool, or close it, for a while: never more than it was made with."""
        pool = self.rng.choice(list(self.cluster.capacity))
        seats = self.rng.randrange(self.cluster.capacity[pool] + 1)
        self.cluster.resize(pool, seats)
        self._later(self.rng.uniform(0.2, 4.0), partial(self.cluster.resize, pool))
        return f"{pool} {seats}"

    # Clocks --------------------------------------------------------------------------------

    def _jump_clock(self) -> str:
        process = self.rng.choice(self._world.processes)
        process.clock_ahead = self.rng.choice([-300.0, -60.0, -6.0, -1.0, 0.0, 1.0, 6.0, 60.0])
        return f"{process.name} {process.clock_ahead:+g} s"

    KINDS = (
        *(_kill_node, _kill_node, _pause_node, _drain_node),
        *(_kill_user, _pause_user),
        *(_cut, _cut, _slow_network, _copies_arrive_late, _copies_arrive_late),
        *(_elect, _compact, _end_watches, _lose_answers, _lose_answers),
        *(_answer_late, _watch_late, _watch_late, _jump_clock, _resize_pool),
    )
    DEATHS = (_kill_user, _pause_user)
    """What others must not feel at all: users who die, and such who come back from the dead."""
