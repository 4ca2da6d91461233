"""etcd in simulation: one state machine, and how nodes reach it when it is well and when it is not.

What a cluster of members looks like from outside is kept: one order of changes, elections during
which nothing is decided and after which every lease starts anew, answers that are lost on the way,
requests that take effect long after their sender has given up, watches that fall behind, end, or
stay silent. The members themselves are not simulated; ``tests/chaos`` has real ones. What the state
machine answers is held to a real etcd by ``test_the_same_answers.py``.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import timedelta
from typing import Any

from tests.simulation.network import Network, Pipe
from tests.simulation.world import Process, World

from seatkeeper.server.store import (
    Change,
    Committed,
    Entry,
    LargeWrite,
    Listing,
    MemoryStore,
    OutcomeUnknown,
    StoreHealth,
    StoreStatus,
    StoreUnavailable,
    Unchanged,
    UnwrittenBelow,
    WatchBatch,
    WatchEnded,
    Write,
)

CALL_SECONDS = 2.0
EXPIRY_SECONDS = 0.5
WATCH_SILENCE_SECONDS = 5.0
RESET_SECONDS = 0.05


class RecordingStore(MemoryStore):
    """The state machine; it remembers when everything happened, for checks."""

    def __init__(self, world: World) -> None:
        super().__init__(
            now=lambda: world.now, lease_ttl_min=timedelta(seconds=2), cluster_id=1
        )
        self.changes: list[Change] = []
        """Every change there ever was, in order. Compaction does not touch it."""
        self.changed_at: dict[int, float] = {}
        """When each revision came about."""
        self._world = world

    def _record(self, changes: tuple[Change, ...]) -> None:
        super()._record(changes)
        self.changes += changes
        self.changed_at[changes[0].revision] = self._world.now
        what = " ".join(_short(change) for change in changes)
        self._world.note(f"etcd {changes[0].revision}: {what}")


class SimEtcd:
    """The state machine, in a process of its own."""

    def __init__(self, world: World, network: Network, rng: random.Random) -> None:
        self.world = world
        self.network = network
        self.process = world.process("etcd")
        self.store = RecordingStore(world)
        self.lose_answers = 0.0
        """The share of answers that get lost."""
        self.watch_lags: dict[str, float] = {}
        """Seconds by which watches of a process are behind."""
        self.elections: list[float] = []
        """When a new leader began."""
        self._rng = rng
        self._leaderless_until = 0.0
        self._waiting: list[Callable[[], None]] = []
        self._watches: set[asyncio.Task[None]] = set()
        self.process.start(self._expire_loop())

    def elect(self, seconds: float) -> None:
        """Be without a leader for a while; the new one gives every lease its whole ttl again."""
        self._leaderless_until = max(self._leaderless_until, self.world.now + seconds)
        self.world.call_at(self._leaderless_until, self._lead)

    def compact(self) -> None:
        """Throw away the history before the present revision."""
        present = self.store._revision
        if present > self.store._compacted:
            self.store.compact(present)

    def end_watches(self) -> None:
        """End every watch, as a member that restarts does."""
        self.store.end_watches("the member restarts")

    @property
    def has_leader(self) -> bool:
        """Whether anything can be decided."""
        return self.world.now >= self._leaderless_until

    def _lead(self) -> None:
        if not self.has_leader:
            return
        self.elections.append(self.world.now)
        self.store.restart_leases()
        waiting, self._waiting = self._waiting, []
        for proceed in waiting:
            proceed()

    async def _expire_loop(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_SECONDS)
            if self.has_leader:
                self.store.expire_due()

    # What arrives from nodes ---------------------------------------------------------------

    def receive(
        self,
        name: str,
        arguments: tuple[Any, ...],
        options: dict[str, Any],
        reply: Callable[[Any, BaseException | None], None],
    ) -> None:
        """Serve one call, in etcd's process."""
        if self.has_leader:
            self.process.start(self._serve(name, arguments, options, reply))
            return
        chance = self._rng.random()
        if chance < 0.4:
            reply(None, StoreUnavailable("etcdserver: no leader"))
        elif chance < 0.7:
            # It was proposed, and the new leader finds it in its log.
            self._waiting.append(
                lambda: self.process.call(
                    lambda: self.process.start(self._serve(name, arguments, options, reply))
                )
            )
        # Else it was lost with the old leader, silently.

    async def _serve(
        self,
        name: str,
        arguments: tuple[Any, ...],
        options: dict[str, Any],
        reply: Callable[[Any, BaseException | None], None],
    ) -> None:
        try:
            answer = await getattr(self.store, name)(*arguments, **options)
        except Exception as error:
            reply(None, error)
        else:
            reply(answer, None)

    def loses_answer(self) -> bool:
        """Draw whether an answer gets lost."""
        return self._rng.random() < self.lose_answers

    def watch(
        self,
        prefix: str,
        from_revision: int,
        notify: Callable[[WatchBatch | None], None],
    ) -> Callable[[], None]:
        """Report changes until it is cancelled by what this returns; None: the watch has ended."""
        task = self.process.start(self._watch(prefix, from_revision, notify))
        return lambda: self.process.call(task.cancel)

    async def _watch(
        self, prefix: str, from_revision: int, notify: Callable[[WatchBatch | None], None]
    ) -> None:
        watch = self.store.watch(prefix, from_revision=from_revision)
        try:
            async for batch in watch:
                notify(batch)
        except WatchEnded:
            notify(None)
        finally:
            await watch.aclose()


class SimStore:
    """One process's way to etcd: a ``Store``."""

    def __init__(self, etcd: SimEtcd, process: Process) -> None:
        self._etcd = etcd
        self._process = process
        self._network = etcd.network

    async def get(self, key: str) -> Entry | None:
        found: Entry | None = await self._ask("get", key)
        return found

    async def list(self, prefix: str) -> Listing:
        listing: Listing = await self._ask("list", prefix)
        return listing

    async def commit(
        self,
        writes: Sequence[Write],
        *,
        only_if: Sequence[Unchanged] = (),
        else_read: Sequence[str] = (),
        timeout: timedelta | None = None,
    ) -> Committed:
        committed: Committed = await self._ask(
            "commit",
            tuple(writes),
            changes=bool(writes),
            only_if=tuple(only_if),
            else_read=tuple(else_read),
        )
        return committed

    async def commit_large(
        self,
        writes: Sequence[LargeWrite],
        *,
        only_if: Sequence[Unchanged] = (),
        unwritten_below: UnwrittenBelow,
    ) -> Committed:
        committed: Committed = await self._ask(
            "commit_large",
            tuple(writes),
            changes=True,
            only_if=tuple(only_if),
            unwritten_below=unwritten_below,
        )
        return committed

    async def grant_lease(self, lease_id: int, ttl: timedelta) -> timedelta:
        granted: timedelta = await self._ask("grant_lease", lease_id, ttl, changes=True)
        return granted

    async def keep_alive(self, lease_id: int) -> timedelta:
        ttl: timedelta = await self._ask("keep_alive", lease_id, changes=True)
        return ttl

    async def revoke_lease(self, lease_id: int) -> None:
        await self._ask("revoke_lease", lease_id, changes=True)

    async def lease_remaining(self, lease_id: int) -> timedelta | None:
        left: timedelta | None = await self._ask("lease_remaining", lease_id)
        return left

    async def status(self) -> StoreStatus:
        status: StoreStatus = await self._ask("status")
        return status

    async def health(self) -> StoreHealth:
        return StoreHealth(members=())

    async def close(self) -> None:
        """Leave the shared store open."""

    async def watch(
        self, prefix: str, *, from_revision: int
    ) -> AsyncGenerator[WatchBatch, None]:
        etcd, network = self._etcd, self._network
        batches: deque[WatchBatch | None] = deque()
        more = asyncio.Event()
        there = Pipe(network, self._process, etcd.process)
        back = Pipe(network, etcd.process, self._process)
        cancel: list[Callable[[], None]] = []

        def take(batch: WatchBatch | None) -> None:
            batches.append(batch)
            more.set()

        def notify(batch: WatchBatch | None) -> None:
            back.lag = etcd.watch_lags.get(self._process.name, 0.0)
            back.send(lambda: take(batch))

        there.send(lambda: cancel.append(etcd.watch(prefix, from_revision, notify)))
        try:
            while True:
                try:
                    async with asyncio.timeout(WATCH_SILENCE_SECONDS):
                        while not batches:
                            more.clear()
                            await more.wait()
                except TimeoutError:
                    raise WatchEnded("silent") from None
                batch = batches.popleft()
                if batch is None:
                    raise WatchEnded("ended by etcd")
                yield batch
        finally:
            back.broken = True
            there.send(lambda: cancel[0]() if cancel else None)

    async def _ask(
        self,
        name: str,
        *arguments: Any,
        changes: bool = False,
        **options: Any,
    ) -> Any:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        etcd = self._etcd
        there = Pipe(self._network, self._process, etcd.process)
        back = Pipe(self._network, etcd.process, self._process)

        def settle(result: Any, error: BaseException | None) -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)

        def reply(result: Any, error: BaseException | None) -> None:
            if etcd.loses_answer():
                result, error = None, OutcomeUnknown("the connection was reset")
                if not changes:
                    error = StoreUnavailable("the connection was reset")
            back.send(lambda: settle(result, error))

        there.send(lambda: etcd.receive(name, arguments, options, reply))
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await answer
        except TimeoutError:
            if changes:
                raise OutcomeUnknown("no answer in time") from None
            raise StoreUnavailable("no answer in time") from None
        finally:
            back.broken = True


def _short(change: Change) -> str:
    return ("+" if change.entry else "-") + change.key.partition("/")[2]
