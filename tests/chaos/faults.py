"""What can be done to a service that is ours, beside what is done to its users and their network.

Each fault has a name and a place, says what it affected, and recovers what it can; the environment
waits until all is well again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager

from tests.chaos.crowd import CrowdProcess
from tests.chaos.operator import Operator
from tests.chaos.places import NETWORK, Place
from tests.chaos.service import ChaosService, Node

from seatkeeper.chaos.faults import Fault, faults_of
from seatkeeper.chaos.relay import Relay, Way
from seatkeeper.client import AsyncSeatClient, SeatError
from seatkeeper.devcluster.etcd_process import EtcdNotHealthyError, EtcdProcess
from seatkeeper.oracle.witness import Witness

MEMBER_STARTS_SECONDS = 60.0
"""How long a killed member of etcd may take until it serves again, on a busy machine."""
SEEN_SECONDS_MAX = 5.0
"""How long a busy service may take to reach the place in its work where a fault is to be injected."""
COMPACT_SECONDS = 0.2
COMPACT_BEHIND = 20
"""Revisions that are left to watchers."""
JUMPS = (-300, -60, -6, -1, 1, 6, 60, 300)
SLOW_SECONDS = 0.075
SOME_ANSWERS = 0.1
CROWD = 5000


class Injected:
    """The targets of faults: the service, its etcd, and watchers."""

    def __init__(
        self,
        service: ChaosService,
        operator: Operator,
        witness: Witness,
        admin: AsyncSeatClient,
        pool: str,
    ) -> None:
        self.service = service
        self.operator = operator
        self.witness = witness
        self.rng = random.Random(service.rng.getrandbits(64))
        self.admin = admin
        self._pool = pool

    async def owner(self, pool: str = "") -> Node:
        """Return the node that decides for a pool, or for the pool. Raises ``TimeoutError``."""
        by_name = {node.name: node for node in self.service.nodes}
        async with asyncio.timeout(SEEN_SECONDS_MAX):
            while True:
                with contextlib.suppress(SeatError):
                    name = (await self.admin.pools.get(pool or self._pool)).owner
                    if name in by_name:
                        return by_name[name]
                await asyncio.sleep(0.1)

    async def other(self) -> Node:
        """Return a node that does not."""
        owner = await self.owner()
        return self.rng.choice([node for node in self.service.nodes if node is not owner])

    def any(self) -> Node:
        """Return any node."""
        return self.rng.choice(self.service.nodes)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that happens all the time. Raises ``TimeoutError``."""
        async with asyncio.timeout(SEEN_SECONDS_MAX):
            while not condition():
                await asyncio.sleep(0)

    async def until_commit(self) -> None:
        """Wait until etcd has committed one more decision about the pool."""
        prefix, seen = f"{self.witness.prefix}/seats/{self._pool}/", len(self.witness.changes)
        await self.until(
            lambda: any(change.key.startswith(prefix) for change in self.witness.changes[seen:])
        )


class _Group:
    def __init__(self, injected: Injected) -> None:
        self._injected = injected
        self._service = injected.service


class KillNode(_Group):
    """A node dies as in a power cut, and is started again at its address."""

    @asynccontextmanager
    async def owner(self) -> AsyncIterator[str]:
        """The node that decides for the pool dies."""
        async with self._killed(await self._injected.owner()) as place:
            yield place

    @asynccontextmanager
    async def any(self) -> AsyncIterator[str]:
        """Any node dies."""
        async with self._killed(self._injected.any()) as place:
            yield place

    @asynccontextmanager
    async def before_commit(self) -> AsyncIterator[str]:
        """The owner dies when what it decided is on its way to etcd, and does not arrive."""
        node = await self._injected.owner()
        for relay in node.relays:
            relay.stall(Way.REQUESTS)
        with _recovered(node.relays):
            await self._injected.until(lambda: any(relay.held_up for relay in node.relays))
            node.process.kill()
            for relay in node.relays:
                relay.cut()  # else what is held up would arrive once all is well again
        async with self._started_again(node) as place:
            yield place

    @asynccontextmanager
    async def after_commit_before_reply(self) -> AsyncIterator[str]:
        """The owner dies when etcd has committed its decision, and it has not received the answer."""
        node = await self._injected.owner()
        for relay in node.relays:
            relay.stall(Way.ANSWERS)
        with _recovered(node.relays):
            await self._injected.until_commit()
            node.process.kill()
        async with self._started_again(node) as place:
            yield place

    @asynccontextmanager
    async def after_reply(self) -> AsyncIterator[str]:
        """The owner dies when a decision is committed, and users are being notified."""
        node = await self._injected.owner()
        await self._injected.until_commit()
        async with self._killed(node) as place:
            yield place

    @asynccontextmanager
    async def _killed(self, node: Node) -> AsyncIterator[str]:
        node.process.kill()
        async with self._started_again(node) as place:
            yield place

    @asynccontextmanager
    async def _started_again(self, node: Node) -> AsyncIterator[str]:
        try:
            yield node.name
        finally:
            await node.start()


class Freeze(_Group):
    """A process stands still, then goes on as if nothing had been."""

    @asynccontextmanager
    async def owner(self) -> AsyncIterator[str]:
        """The node that decides for the pool stands still."""
        node = await self._injected.owner()
        node.process.pause()
        try:
            yield node.name
        finally:
            node.process.resume()

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[str]:
        """The build agent stands still."""
        agent = self._service.agent
        assert agent is not None
        agent.pause()
        try:
            yield agent.name
        finally:
            agent.resume()


class Etcd(_Group):
    """Its members, and what its operator does."""

    @asynccontextmanager
    async def kill_leader(self) -> AsyncIterator[str]:
        """The member that leads dies, and is started again on its data."""
        async with member_killed(await self._injected.operator.leader()) as place:
            yield place

    @asynccontextmanager
    async def kill_follower(self) -> AsyncIterator[str]:
        """A member that does not lead dies, and is started again on its data."""
        async with member_killed(await self._injected.operator.follower()) as place:
            yield place

    @asynccontextmanager
    async def freeze_leader(self) -> AsyncIterator[str]:
        """The member that leads stands still."""
        with _member_paused(await self._injected.operator.leader()) as place:
            yield place

    @asynccontextmanager
    async def freeze_follower(self) -> AsyncIterator[str]:
        """A member that does not lead stands still."""
        with _member_paused(await self._injected.operator.follower()) as place:
            yield place

    @asynccontextmanager
    async def restart_all(self) -> AsyncIterator[str]:
        """All members die at once, and are started again on their data."""
        etcd = self._service.etcd
        etcd.kill()
        try:
            yield "all members"
        finally:
            for member in etcd.members:
                member.launch()
            await asyncio.gather(*(member.wait_healthy() for member in etcd.members))

    @asynccontextmanager
    async def move_leader(self) -> AsyncIterator[str]:
        """Another member leads, as before maintenance."""
        yield await self._injected.operator.move_leader()

    @asynccontextmanager
    async def compact(self) -> AsyncIterator[str]:
        """History is thrown away all the time, up to a moment ago."""
        compacting = asyncio.create_task(self._compact_always())
        try:
            yield f"every {COMPACT_SECONDS:g} s"
        finally:
            compacting.cancel()
            await asyncio.gather(compacting, return_exceptions=True)

    @asynccontextmanager
    async def nospace(self) -> AsyncIterator[str]:
        """It says that it is full: it reads and deletes, and writes nothing."""
        await self._injected.operator.raise_alarm()
        try:
            yield "the cluster"
        finally:
            await self._injected.operator.end_alarm()

    @asynccontextmanager
    async def nodes_lose_their_rights(self) -> AsyncIterator[str]:
        """The nodes' user may do nothing any more."""
        await self._injected.operator.run("user", "revoke-role", "node", "ours")
        try:
            yield "user node"
        finally:
            await self._injected.operator.run("user", "grant-role", "node", "ours")

    async def _compact_always(self) -> None:
        witness = self._injected.witness
        while True:
            with contextlib.suppress(TimeoutError):
                revision = witness.revision - COMPACT_BEHIND
                await self._injected.operator.run("compact", str(revision))
            await asyncio.sleep(COMPACT_SECONDS)


class Disk(_Group):
    """Room for data."""

    @asynccontextmanager
    async def full(self) -> AsyncIterator[str]:
        """The disk of an etcd member is full; it dies of it, and is started when there is room."""
        member = self._service.member_on_small_disk
        filler = member.data_folder / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
        try:
            yield member.name
        finally:
            filler.unlink()
            member.launch()
            await member.wait_healthy()


class EtcdLink(_Group):
    """Between nodes and etcd, where relays stand."""

    @asynccontextmanager
    async def slow(self) -> AsyncIterator[str]:
        """Everything between nodes and etcd takes 75 ms longer, each way."""
        with _recovered(self._all()) as relays:
            for relay in relays:
                relay.slow(SLOW_SECONDS)
            yield "all nodes"

    @asynccontextmanager
    async def answers_lost(self) -> AsyncIterator[str]:
        """Etcd commits, and instead of its answer comes the end of the connection."""
        with _recovered(self._all()) as relays:
            for relay in relays:
                relay.lose_answers(1.0)
            yield "all nodes"

    @asynccontextmanager
    async def some_answers_lost(self) -> AsyncIterator[str]:
        """One answer of etcd in ten is the end of its connection instead."""
        with _recovered(self._all()) as relays:
            for relay in relays:
                relay.lose_answers(SOME_ANSWERS)
            yield "all nodes"

    @asynccontextmanager
    async def owner_cut_off(self) -> AsyncIterator[str]:
        """Nothing gets from the owner to etcd or back, silently."""
        node = await self._injected.owner()
        with _recovered(node.relays):
            for relay in node.relays:
                relay.stall()
            yield node.name

    @asynccontextmanager
    async def owner_hears_nothing(self) -> AsyncIterator[str]:
        """What the owner sends to etcd arrives; what etcd sends to it does not."""
        node = await self._injected.owner()
        with _recovered(node.relays):
            for relay in node.relays:
                relay.stall(Way.ANSWERS)
            yield node.name

    def _all(self) -> list[Relay]:
        return [relay for node in self._service.nodes for relay in node.relays]


class Watch(_Group):
    """What nodes learn of each other's commits by."""

    @asynccontextmanager
    async def ends(self) -> AsyncIterator[str]:
        """Every connection between nodes and etcd breaks, and with it every watch."""
        for node in self._service.nodes:
            for relay in node.relays:
                relay.cut()
        yield "all nodes"

    @asynccontextmanager
    async def half_open(self) -> AsyncIterator[str]:
        """The connections of a node that does not decide carry nothing; new ones work."""
        node = await self._injected.other()
        with _recovered(node.relays):
            for relay in node.relays:
                relay.strand()
            yield node.name


class Partition(_Group):
    """Packets are thrown away where they arrive. Takes places of their own."""

    @asynccontextmanager
    async def node_from_etcd(self) -> AsyncIterator[str]:
        """No packet gets from etcd to the owner."""
        node = await self._injected.owner()
        with ExitStack() as undo:
            for relay in node.relays:
                port = relay.endpoint.rpartition(":")[2]
                self._drop(undo, node.place, "-p", "tcp", "--sport", port)
            yield node.name

    @asynccontextmanager
    async def isolate_one_etcd_member(self) -> AsyncIterator[str]:
        """No packet gets to a member that does not lead."""
        with self._isolated(await self._injected.operator.follower()) as place:
            yield place

    @asynccontextmanager
    async def isolate_etcd_leader(self) -> AsyncIterator[str]:
        """No packet gets to the member that leads."""
        with self._isolated(await self._injected.operator.leader()) as place:
            yield place

    @asynccontextmanager
    async def etcd_in_a_row(self) -> AsyncIterator[str]:
        """The leader and one member receive nothing from each other; the third receives from both."""
        first, last = (
            await self._injected.operator.leader(),
            await self._injected.operator.follower(),
        )
        with ExitStack() as undo:
            self._drop(undo, _place(first), "-s", last.place.host)
            self._drop(undo, _place(last), "-s", first.place.host)
            yield f"{first.name} and {last.name}"

    @asynccontextmanager
    async def nobody_reaches_owner(self) -> AsyncIterator[str]:
        """The owner's packets reach everybody, and no node's reach the owner."""
        node = await self._injected.owner()
        with ExitStack() as undo:
            for other in self._service.nodes:
                if other is not node:
                    self._drop(undo, node.place, "-s", other.place.host)
            yield node.name

    @asynccontextmanager
    async def half_is_lost(self) -> AsyncIterator[str]:
        """Every second packet to the owner, and to etcd's leader, is lost."""
        node, leader = await self._injected.owner(), await self._injected.operator.leader()
        half = ("-m", "statistic", "--mode", "random", "--probability", "0.5")
        with ExitStack() as undo:
            self._drop(undo, node.place, *half)
            self._drop(undo, _place(leader), *half)
            yield f"{node.name} and {leader.name}"

    @contextmanager
    def _isolated(self, member: EtcdProcess) -> Iterator[str]:
        with ExitStack() as undo:
            self._drop(undo, _place(member), "-s", f"{NETWORK}.0/24")
            yield member.name

    def _drop(self, undo: ExitStack, place: Place, *rule: str) -> None:
        self._service.places.drop(undo, place, *rule)


class Clock(_Group):
    """What a machine takes for the time."""

    @asynccontextmanager
    async def jump(self) -> AsyncIterator[str]:
        """A node's clock jumps by up to five minutes, and back."""
        node, seconds = self._injected.any(), self._injected.rng.choice(JUMPS)
        node.jump(seconds)
        try:
            yield f"{node.name} {seconds:+d} s"
        finally:
            node.jump(0)


class Cert(_Group):
    """Certificates."""

    @asynccontextmanager
    async def rotate(self) -> AsyncIterator[str]:
        """Every node gets a new certificate, and is restarted to use it, one after the other."""
        for node in self._service.nodes:
            self._service.issue(node.name, node.place)
        await _restart_each(self._service)
        yield "all nodes"


class Restart(_Group):
    """The same version anew; `tests/compat` puts another one in its place."""

    @asynccontextmanager
    async def rolling(self) -> AsyncIterator[str]:
        """Each node is asked to end, and started again, one after the other."""
        await _restart_each(self._service)
        yield "all nodes"


class Ring(_Group):
    """Which nodes there are."""

    @asynccontextmanager
    async def grows_and_shrinks(self) -> AsyncIterator[str]:
        """A node more comes, and goes again."""
        node = await self._service.add_node()
        try:
            yield node.name
        finally:
            await self._service.remove_node(node)


class Crowd(_Group):
    """Thousands of sessions in one process."""

    @asynccontextmanager
    async def dies_and_returns(self) -> AsyncIterator[str]:
        """Thousands of sessions open, die at once, and as many open, at once."""
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(self._crowd())
            first.kill()
            yield f"{CROWD} sessions"
            await stack.enter_async_context(self._crowd())

    def _crowd(self) -> contextlib.AbstractAsyncContextManager[CrowdProcess]:
        return CrowdProcess.running(
            self._service.addresses, self._service.tls, CROWD, self._service.folder
        )


ON_LOOPBACK = (*(KillNode, Freeze, Etcd, EtcdLink, Watch, Clock, Cert, Restart, Ring, Crowd),)
WITH_PLACES = (Partition, Disk)


def service_faults(
    service: ChaosService,
    operator: Operator,
    witness: Witness,
    admin: AsyncSeatClient,
    pool: str,
    *,
    with_places: bool = False,
) -> dict[str, Fault]:
    """Return all faults of a service by name; those of an owner are about ``pool``."""
    injected = Injected(service, operator, witness, admin, pool)
    groups = [*ON_LOOPBACK, *(WITH_PLACES if with_places else ())]
    return faults_of(*(group(injected) for group in groups))


async def _restart_each(service: ChaosService) -> None:
    for node in service.nodes:
        await node.process.stop()
        await node.start()


@contextmanager
def _recovered(relays: list[Relay]) -> Iterator[list[Relay]]:
    try:
        yield relays
    finally:
        for relay in relays:
            relay.recover()


@asynccontextmanager
async def member_killed(member: EtcdProcess) -> AsyncIterator[str]:
    member.kill()
    try:
        yield member.name
    finally:
        try:
            await member.start(MEMBER_STARTS_SECONDS)
        except EtcdNotHealthyError as error:
            raise TimeoutError(str(error)) from error


@contextmanager
def _member_paused(member: EtcdProcess) -> Iterator[str]:
    member.pause()
    try:
        yield member.name
    finally:
        member.resume()


def _place(member: EtcdProcess) -> Place:
    """Return where a member runs, as the harness made it."""
    return Place(member.name, member.place.host, tuple(member.place.command))
