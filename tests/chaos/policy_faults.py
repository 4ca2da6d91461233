"""Deaths in the middle of a policy: of the node that decides, of a holder, of etcd's leader.

A policy's work takes more than one write. A fault waits until the first of them is in etcd, or until
the next one is on its way there, and lets it arrive or not.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from tests.chaos.faults import Injected, member_killed
from tests.chaos.policy_pools import (
    BORROW,
    BURST,
    BURST_SEATS,
    EITHER,
    GANG,
    KEPT,
    LENT,
    POOLS,
    WINDOW,
)
from tests.chaos.service import KEYS, Node

from seatkeeper.chaos.faults import Fault, faults_of
from seatkeeper.chaos.relay import Way
from seatkeeper.chaos.worker import PROJECTS
from seatkeeper.chaos.worker_pool import WorkerPool, WorkerProcess
from seatkeeper.client import LotChange
from seatkeeper.client.admin.reservations import ReservationChange, parse_reservation
from seatkeeper.core.lot_messages import encode_lot
from seatkeeper.core.lots import Lot, LotKind
from seatkeeper.oracle.reclaims import read_reclaims
from seatkeeper.oracle.stays import read_stay
from seatkeeper.oracle.stored import StoredGrant, read_grant, read_lots
from seatkeeper.oracle.windows import OPEN, read_windows

LOOK_SECONDS = 0.01
SEEN_SECONDS_MAX = 30.0
"""How long users may take until what a fault waits for happens."""
COMMIT_SECONDS = 1.0
"""How long etcd takes for a commit, at most; one that is not seen by then, it has refused."""
BEFORE_MAX = 200
"""Changes that may have come since a request was caught, until that is noticed."""
TRIES_MAX = 10
BURST_SECONDS = 6.0
ENDED_SECONDS_MAX = 15.0
MINUTE_SECONDS = 60
SOON_SECONDS = 5
"""A window is made to open in the next minute, but no sooner than this."""
_OURS = tuple(each for name in POOLS for each in (KEYS.pool(name), KEYS.seats(name)))
_PUT = b"\x12"
"""What follows a key in a request to etcd that writes it: the value."""
_ID = rb"([0-9a-f-]{36})"


class Middle:
    """What is under way in the pools that have policies, as etcd has it."""

    def __init__(self, injected: Injected, worker_pool: WorkerPool) -> None:
        self.injected = injected
        self.service = injected.service
        self.worker_pool = worker_pool
        self.rng = random.Random(injected.rng.getrandbits(64))
        self._seen = 0
        self._latest: dict[str, bytes] = {}

    def value(self, key: str) -> bytes | None:
        """Return what is stored now."""
        changes = self.injected.witness.changes
        for change in changes[self._seen :]:
            self._seen += 1
            if change.entry is None:
                self._latest.pop(change.key, None)
            elif change.key.startswith(_OURS):
                self._latest[change.key] = change.entry.value
        return self._latest.get(key)

    def grants(self, pool: str) -> dict[str, StoredGrant]:
        """Return the grants of a pool, by id."""
        below = f"{KEYS.seats(pool)}grants/"
        self.value(below)
        found = ((k.removeprefix(below), v) for k, v in self._latest.items() if below in k)
        return {grant_id: read_grant(grant_id, value) for grant_id, value in found}

    def called_back(self) -> dict[str, float]:
        """Return the grants that are called back, and for how many seconds each."""
        guard = self.value(f"{KEYS.seats(LENT)}guard")
        reclaims = read_reclaims(guard) if guard is not None else {}
        there = self.grants(LENT)
        return {k: each.within_millis / 1000 for k, each in reclaims.items() if k in there}

    def kept(self) -> set[str]:
        """Return the grants whose seats are kept, as their session was lost."""
        below, there = f"{KEYS.seats(KEPT)}stays/", self.grants(KEPT)
        stays = ((k.removeprefix(below), v) for k, v in self._latest.items() if below in k)
        found = {grant_id: read_stay(grant_id, value) for grant_id, value in stays}
        return {k for k, each in found.items() if each.until and k not in there}

    def borrowed(self) -> dict[str, float]:
        """Return until when seats are borrowed, in Unix seconds, by grant."""
        return {
            k: each.borrow.free_at_millis / 1000
            for k, each in self.grants(BORROW).items()
            if each.borrow is not None
        }

    async def until(
        self, condition: Callable[[], object], within: float = SEEN_SECONDS_MAX
    ) -> None:
        """Wait for something that happens all the time. Raises ``TimeoutError``."""
        async with asyncio.timeout(within):
            while not condition():
                await asyncio.sleep(LOOK_SECONDS)

    async def owner(self, pool: str) -> Node:
        """Return the node that decides for a pool. Raises ``TimeoutError``."""
        return await self.injected.owner(pool)

    @asynccontextmanager
    async def caught(
        self, is_wanted: Callable[[bytes], bool], way: Way, within: float = SEEN_SECONDS_MAX
    ) -> AsyncIterator[Node]:
        """Wait until a node sends a request to etcd that is wanted, and hold up what comes then.

        ``way``: the request itself, or etcd's answers. What is held up at the end is lost. Raises
        ``TimeoutError``.
        """
        relays = [(node, relay) for node in self.service.nodes for relay in node.relays]
        for _, relay in relays:
            relay.trap(is_wanted, way)
        try:
            await self.until(lambda: any(relay.caught for _, relay in relays), within)
            caught = next(node for node, relay in relays if relay.caught)
            for node, relay in relays:
                if node is not caught:
                    relay.recover()
            yield caught
        finally:
            for _, relay in relays:
                if relay.caught:
                    relay.cut()
                relay.recover()

    @asynccontextmanager
    async def dies_before(
        self, is_wanted: Callable[[bytes], bool], within: float = SEEN_SECONDS_MAX
    ) -> AsyncIterator[str]:
        """The node dies that sends such a request, which does not arrive."""
        async with self.caught(is_wanted, Way.REQUESTS, within) as node:
            node.process.kill()
        async with started_again(node):
            yield node.name

    @asynccontextmanager
    async def dies_after(
        self, is_wanted: Callable[[bytes], bool], within: float = SEEN_SECONDS_MAX
    ) -> AsyncIterator[str]:
        """The node dies that sends such a request: etcd has done it, and the node does not know."""
        for _ in range(TRIES_MAX):
            async with self.caught(is_wanted, Way.ANSWERS, within) as node:
                if await self._is_committed(node):
                    node.process.kill()
                    break
        else:
            raise TimeoutError("no such request was committed")
        async with started_again(node):
            yield node.name

    async def _is_committed(self, node: Node) -> bool:
        """Return whether etcd has done what was caught, rather than refused it."""
        request = b"".join(relay.caught for relay in node.relays)
        witness = self.injected.witness
        seen = max(0, len(witness.changes) - BEFORE_MAX)

        def is_there() -> bool:
            written = (each.entry for each in witness.changes[seen:] if each.entry is not None)
            return any(each.value and each.value in request for each in written)

        try:
            await self.until(is_there, COMMIT_SECONDS)
        except TimeoutError:
            return False
        return True

    def worker_of(self, grant: StoredGrant) -> WorkerProcess | None:
        """Return the process that holds a grant: its certificate names it."""
        return next((w for w in self.worker_pool.alive if w.name == grant.holder), None)

    async def holder(self, pool: str) -> WorkerProcess:
        """Return a process that holds seats of a pool. Raises ``TimeoutError``."""

        def holding() -> list[WorkerProcess]:
            grants = sorted(self.grants(pool).values(), key=lambda each: each.fence)
            return [worker for each in grants if (worker := self.worker_of(each)) is not None]

        await self.until(holding)
        return self.rng.choice(holding())


@asynccontextmanager
async def started_again(*nodes: Node) -> AsyncIterator[None]:
    """Start nodes that were killed at the end."""
    try:
        yield
    finally:
        for node in nodes:
            await node.start()


@contextmanager
def _standing_still(node: Node) -> Iterator[str]:
    node.process.pause()
    try:
        yield node.name
    finally:
        node.process.resume()


def writes(key: str) -> Callable[[bytes], bool]:
    """Return what says whether a request to etcd writes a key."""
    return lambda data: key.encode() + _PUT in data


def _pools_in(data: bytes, names: tuple[str, ...], kind: bytes, end: bytes) -> set[str]:
    """Return the pools of which records of a kind are in a request; ``end`` follows the key."""
    return {
        name
        for name in names
        if re.search(KEYS.seats(name).encode() + kind + b"/" + _ID + end, data)
    }


def grants_gang(data: bytes) -> bool:
    """Return whether a request to etcd grants seats of several pools of gangs."""
    return len(_pools_in(data, GANG, b"grants", _PUT)) > 1


def grants_one_of(data: bytes) -> bool:
    """Return whether a request grants a seat of an alternative, and is about another one's queue."""
    granting = _pools_in(data, EITHER, b"grants", _PUT)
    return bool(granting) and bool(_pools_in(data, EITHER, b"queue", b"") - granting)


class _Group:
    def __init__(self, middle: Middle) -> None:
        self._middle = middle


class Reclaim(_Group):
    """A lent seat is called back."""

    @asynccontextmanager
    async def owner_dies_in_notice(self) -> AsyncIterator[str]:
        """The owner dies when a reclaim is written, before its notice is over."""
        await self._middle.until(self._middle.called_back)
        node = await self._middle.owner(LENT)
        node.process.kill()
        async with started_again(node):
            yield node.name

    @asynccontextmanager
    async def owner_dies_as_it_takes(self) -> AsyncIterator[str]:
        """The owner dies when the end of a grant that is called back is on its way to etcd."""

        def ends_it(data: bytes) -> bool:
            below = f"{KEYS.seats(LENT)}grants/"
            keys = [f"{below}{grant_id}".encode() for grant_id in self._middle.called_back()]
            return any(key in data and key + _PUT not in data for key in keys)

        async with self._middle.dies_before(ends_it) as place:
            yield place

    @asynccontextmanager
    async def owner_stands_still_in_notice(self) -> AsyncIterator[str]:
        """The owner stands still when a reclaim is written."""
        await self._middle.until(self._middle.called_back)
        with _standing_still(await self._middle.owner(LENT)) as place:
            yield place

    @asynccontextmanager
    async def owner_cut_off_in_notice(self) -> AsyncIterator[str]:
        """Nothing gets from the owner to etcd or back, from when a reclaim is written."""
        await self._middle.until(self._middle.called_back)
        node = await self._middle.owner(LENT)
        for relay in node.relays:
            relay.stall()
        try:
            yield node.name
        finally:
            for relay in node.relays:
                relay.recover()

    @asynccontextmanager
    async def holder_dies_in_notice(self) -> AsyncIterator[str]:
        """The process dies that holds what is called back; then others come."""
        found: list[WorkerProcess] = []

        def is_found() -> bool:
            grants = self._middle.grants(LENT)
            holders = (self._middle.worker_of(grants[k]) for k in self._middle.called_back())
            found[:] = [worker for worker in holders if worker is not None]
            return bool(found)

        await self._middle.until(is_found)
        self._middle.worker_pool.kill(found[0])
        yield found[0].name
        await self._middle.worker_pool.replace()

    @asynccontextmanager
    async def etcd_leader_dies_in_notice(self) -> AsyncIterator[str]:
        """The member of etcd that leads dies when a reclaim is written."""
        await self._middle.until(self._middle.called_back)
        async with member_killed(await self._middle.injected.operator.leader()) as place:
            yield place


class Burst(_Group):
    """A burst of some seconds, which an administrator starts, ends."""

    def __init__(self, middle: Middle) -> None:
        super().__init__(middle)
        self._count = 0

    @asynccontextmanager
    async def owner_dies_before_the_end(self) -> AsyncIterator[str]:
        """The owner dies when the end of a burst is on its way to etcd, and does not arrive."""
        await self._start()
        async with self._middle.dies_before(writes(KEYS.pool(BURST))) as place:
            yield place

    @asynccontextmanager
    async def owner_dies_after_the_end(self) -> AsyncIterator[str]:
        """The owner dies when etcd has the end of a burst, and the owner has not the answer."""
        await self._start()
        async with self._middle.dies_after(writes(KEYS.pool(BURST))) as place:
            yield place

    @asynccontextmanager
    async def owner_stands_still_at_the_end(self) -> AsyncIterator[str]:
        """The owner stands still from a second before the end of a burst until another ended it."""
        ends = await self._start()
        await self._middle.until(lambda: time.time() > ends - 1.0)
        with _standing_still(await self._middle.owner(BURST)) as place:
            await self._middle.until(self._is_over)
            yield place

    @asynccontextmanager
    async def no_node_lives_at_the_end(self) -> AsyncIterator[str]:
        """All nodes die before the end of a burst, and are started after it."""
        ends = await self._start()
        nodes = list(self._middle.service.nodes)
        for node in nodes:
            node.process.kill()
        async with started_again(*nodes):
            await self._middle.until(lambda: time.time() > ends)
            yield "all nodes"
        await self._middle.until(self._is_over, ENDED_SECONDS_MAX)

    async def _start(self) -> float:
        """Start a burst; return when it ends, in Unix seconds."""
        self._count += 1
        ends = time.time() + BURST_SECONDS
        name = f"rush-{self._count}-{int(ends)}"
        burst = Lot(name=name, seats=BURST_SEATS, ends=int(ends * 1000), kind=LotKind.BURST)
        await self._middle.injected.admin.pools.update(
            BURST, lots=LotChange([encode_lot(burst)])
        )
        await self._middle.until(lambda: not self._is_over())
        return ends

    def _is_over(self) -> bool:
        value = self._middle.value(KEYS.pool(BURST))
        assert value is not None
        return all(lot.ends is None or lot.state == 2 for lot in read_lots(value).values())


class Window(_Group):
    """A window of a reservation, of one minute, opens and closes."""

    @asynccontextmanager
    async def owner_dies_before_it_opens(self) -> AsyncIterator[str]:
        """The owner dies when it writes that a window opens, which does not arrive."""
        await self._plan()
        async with self._middle.dies_before(
            writes(KEYS.pool(WINDOW)), 2 * MINUTE_SECONDS
        ) as place:
            yield place

    @asynccontextmanager
    async def owner_dies_after_it_closes(self) -> AsyncIterator[str]:
        """The owner dies when etcd has that the open window closes, and it has not the answer."""
        await self._middle.until(self._is_open)
        async with self._middle.dies_after(
            writes(KEYS.pool(WINDOW)), 2 * MINUTE_SECONDS
        ) as place:
            yield place

    async def _plan(self) -> None:
        """Have the next minute be a window."""
        opens = (int(time.time()) + SOON_SECONDS) // MINUTE_SECONDS + 1
        at = [time.strftime("%H:%M", time.gmtime(60 * minute)) for minute in (opens, opens + 1)]
        said = f"name=nights,seats=2,for=project:{PROJECTS[0]},when=daily,at={at[0]}-{at[1]}"
        change = ReservationChange([parse_reservation(said)])
        await self._middle.injected.admin.pools.update(WINDOW, reservations=change)

        def is_planned() -> bool:
            value = self._middle.value(KEYS.pool(WINDOW))
            windows = read_windows(value).values() if value is not None else ()
            return any(each.begins == opens * 60_000 for each in windows)

        await self._middle.until(is_planned)

    def _is_open(self) -> bool:
        value = self._middle.value(KEYS.pool(WINDOW))
        windows = read_windows(value).values() if value is not None else ()
        return any(each.state == OPEN for each in windows)


class Gang(_Group):
    """Seats of two pools that different nodes decide for are granted to one request."""

    @asynccontextmanager
    async def coordinator_dies_before_commit(self) -> AsyncIterator[str]:
        """The node that coordinates a gang dies when its grants are on their way, and do not arrive."""
        async with self._middle.dies_before(grants_gang) as place:
            yield place

    @asynccontextmanager
    async def coordinator_dies_after_commit(self) -> AsyncIterator[str]:
        """The node that coordinates a gang dies when etcd has its grants, and it has not the answer."""
        async with self._middle.dies_after(grants_gang) as place:
            yield place

    @asynccontextmanager
    async def members_owner_dies(self) -> AsyncIterator[str]:
        """Owners of a gang's pools die while its grants are on their way, which arrive."""
        middle, witness = self._middle, self._middle.injected.witness
        owners = [await middle.owner(pool) for pool in GANG]
        async with middle.caught(grants_gang, Way.REQUESTS) as node:
            dead = [each for each in owners if each is not node]
            for each in dead:
                each.process.kill()
            seen = len(witness.changes)
            for relay in node.relays:  # what is held up arrives
                relay.recover()
            async with started_again(*dead):
                await middle.until(lambda: len(witness.changes) > seen)
                yield ", ".join(each.name for each in dead)


class OneOf(_Group):
    """A seat of one of two pools is granted, and the request leaves the other queue."""

    @asynccontextmanager
    async def owner_dies_before_commit(self) -> AsyncIterator[str]:
        """The node dies whose grant of one alternative is on its way to etcd, and does not arrive."""
        async with self._middle.dies_before(grants_one_of) as place:
            yield place

    @asynccontextmanager
    async def owner_dies_after_commit(self) -> AsyncIterator[str]:
        """The node dies whose grant of one alternative etcd has, and which has not the answer."""
        async with self._middle.dies_after(grants_one_of) as place:
            yield place


class Kept(_Group):
    """Seats are kept after a release or a loss, and their holder comes back."""

    @asynccontextmanager
    async def holder_dies(self) -> AsyncIterator[str]:
        """A process dies that holds seats which are kept then; others come."""
        worker = await self._middle.holder(KEPT)
        self._middle.worker_pool.kill(worker)
        yield worker.name
        await self._middle.worker_pool.replace()

    @asynccontextmanager
    async def owner_dies_before_they_are_kept(self) -> AsyncIterator[str]:
        """The owner dies when it writes that seats are kept, which does not arrive."""

        def keeps(data: bytes) -> bool:
            below = KEYS.seats(KEPT).encode()
            stays, grants = (
                set(re.findall(below + kind + b"/" + _ID + _PUT, data))
                for kind in (b"stays", b"grants")
            )
            return bool(stays - grants)

        async with self._middle.dies_before(keeps) as place:
            yield place

    @asynccontextmanager
    async def holder_comes_back(self) -> AsyncIterator[str]:
        """A process stands still until its seats are kept, and goes on: it takes them again."""
        async with self._lost() as worker:
            yield worker.name

    @asynccontextmanager
    async def holder_comes_back_as_the_owner_dies(self) -> AsyncIterator[str]:
        """A process stands still until its seats are kept; it goes on, and the owner dies."""
        async with self._lost() as worker:
            node = await self._middle.owner(KEPT)
            node.process.kill()
        async with started_again(node):
            yield f"{worker.name} and {node.name}"

    @asynccontextmanager
    async def _lost(self) -> AsyncIterator[WorkerProcess]:
        middle = self._middle
        worker = await middle.holder(KEPT)
        worker.pause()
        theirs = {k for k, each in middle.grants(KEPT).items() if each.holder == worker.name}
        try:
            await middle.until(lambda: theirs & middle.kept() or not theirs)
            yield worker
        finally:
            worker.resume()


class Borrow(_Group):
    """A machine borrows seats, and gives them back or has them until a day."""

    @asynccontextmanager
    async def owner_dies_as_they_are_taken(self) -> AsyncIterator[str]:
        """The owner dies when it writes that a machine has seats, which does not arrive."""
        async with self._middle.dies_before(self._lends) as place:
            yield place

    @asynccontextmanager
    async def owner_dies_when_they_are_taken(self) -> AsyncIterator[str]:
        """The owner dies when etcd has that a machine has seats, and the owner has not the answer."""
        async with self._middle.dies_after(self._lends) as place:
            yield place

    @asynccontextmanager
    async def owner_dies_as_they_come_back(self) -> AsyncIterator[str]:
        """The owner dies when it writes that borrowed seats are free again, which does not arrive."""
        async with self._middle.dies_before(self._frees) as place:
            yield place

    @asynccontextmanager
    async def owner_dies_when_they_are_back(self) -> AsyncIterator[str]:
        """The owner dies when etcd has that borrowed seats are free, and it has not the answer."""
        async with self._middle.dies_after(self._frees) as place:
            yield place

    @asynccontextmanager
    async def no_node_lives_on_the_day(self) -> AsyncIterator[str]:
        """All nodes die while seats are borrowed, and are started when their day is over."""
        middle = self._middle

        def days() -> list[float]:
            return [day for day in middle.borrowed().values() if day > time.time() + 1.0]

        await middle.until(days)
        day, nodes = max(days()), list(middle.service.nodes)
        for node in nodes:
            node.process.kill()
        async with started_again(*nodes):
            await middle.until(lambda: time.time() > day)
            yield "all nodes"

    def _lends(self, data: bytes) -> bool:
        grants = self._middle.grants(BORROW)
        below = f"{KEYS.seats(BORROW)}grants/"
        theirs = [k for k, each in grants.items() if each.borrow is None]
        return any(f"{below}{k}".encode() + _PUT in data for k in theirs)

    def _frees(self, data: bytes) -> bool:
        below = f"{KEYS.seats(BORROW)}grants/"
        keys = [f"{below}{k}".encode() for k in self._middle.borrowed()]
        return any(key in data and key + _PUT not in data for key in keys)


GROUPS = (Reclaim, Burst, Window, Gang, OneOf, Kept, Borrow)


def policy_faults(injected: Injected, worker_pool: WorkerPool) -> dict[str, Fault]:
    """Return all faults in the middle of policies, by name."""
    middle = Middle(injected, worker_pool)
    return faults_of(*(group(middle) for group in GROUPS))
