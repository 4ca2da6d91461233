"""The node's core: every service (stream, unary call) asks here for seats.

It knows which pools this node serves and passes commands to their loops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator, Iterable
from datetime import timedelta

from seatkeeper.core.validate import check_id_age
from seatkeeper.server.decide import Forecast, HoldStats, forecast
from seatkeeper.server.domain import (
    Command,
    Denied,
    Instant,
    PoolState,
    Refusal,
    Release,
)
from seatkeeper.server.domain.attribution import Attribution
from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.events.observer import Observer, PoolCount
from seatkeeper.server.events.usage import command_refused, unread_refusal
from seatkeeper.server.policy.snapshot import PoolSnapshot
from seatkeeper.server.pool.asked import asked
from seatkeeper.server.pool.borrow_keeper import BorrowKeeper
from seatkeeper.server.pool.burst_rules import BurstStarter
from seatkeeper.server.pool.catalogue import PoolCatalogue
from seatkeeper.server.pool.confirmed import Confirmed, confirmed_grants
from seatkeeper.server.pool.context import LoopConfig, PoolContext
from seatkeeper.server.pool.forwarder import Forwarder
from seatkeeper.server.pool.gangs import GangKeeper
from seatkeeper.server.pool.grant_notes import GrantNotes
from seatkeeper.server.pool.loop import PoolLoop
from seatkeeper.server.pool.lot_counts import lot_counts
from seatkeeper.server.pool.lots import LotKeeper
from seatkeeper.server.pool.subscribers import Listener, deliver, peer_of
from seatkeeper.server.sessions.sessions import Session
from seatkeeper.server.store import Store
from seatkeeper.server.store.keys import Keys
from seatkeeper.server.wire.denials import decode_work_end, denial_name
from seatkeeper.server.wire.validate import (
    check_grant_ref,
    check_work_end,
)
from seatkeeper.v1 import seat_pb2, seat_service_pb2

IDLE_SWEEP = timedelta(minutes=1)
"""How often pools that no client of this node uses are looked for, to stop following them."""


class _Done(Awaitable[None]):
    """What has been done already, as something that can be awaited."""

    def __await__(self) -> Generator[None, None, None]:
        return iter(())  # type: ignore[return-value]  # an iterator will do for `await`


DONE = _Done()


class PoolRouter:
    """Takes commands to the loops of their pools."""

    def __init__(
        self,
        store: Store,
        keys: Keys,
        catalogue: PoolCatalogue,
        clock: Clock,
        *,
        config: LoopConfig,
        observer: Observer,
        forwarder: Forwarder | None = None,
    ) -> None:
        """Serve pools; ``forwarder``: how to have other nodes decide; None: decide everything here."""
        self.catalogue = catalogue
        self._store = store
        self._keys = keys
        self._clock = clock
        self._config = config
        self._observer = observer
        self._forwarder = forwarder
        self._loops: dict[str, PoolLoop] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._idle: set[str] = set()
        """The pools that were idle at the latest sweep."""
        self.lots = LotKeeper(store, keys, catalogue, clock, self._is_elsewhere)
        self._gangs = GangKeeper(store, clock, self.loop, self._is_elsewhere)
        self.bursts = BurstStarter(store, keys, catalogue, clock, self._is_elsewhere)
        self._borrowed = BorrowKeeper(catalogue, self.loop, self._is_elsewhere)
        self.notes = GrantNotes(store, catalogue, self._submit)
        catalogue.on_change = self._spec_changed

    async def start(self) -> None:
        """Begin to follow the pools that exist; returns when they are known."""
        self.catalogue.start()
        await self.catalogue.ready()
        self._sweeper = asyncio.create_task(self._sweep_loop())
        self.lots.start()
        self.bursts.start()
        self._borrowed.start()

    async def stop(self) -> None:
        """Stop every loop; commands under way are answered ``UNAVAILABLE``."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        await self._gangs.stop()
        await self._borrowed.stop()
        await self.bursts.stop()
        await self.lots.stop()
        await self.catalogue.stop()
        await asyncio.gather(*(loop.stop() for loop in self._loops.values()))
        self._loops.clear()

    def acquire(
        self,
        session: Session,
        request: seat_pb2.Acquire,
        listener: Listener,
        *,
        wait_max: timedelta | None = None,
        may_delay: bool = False,
        heeds_reclaim: bool = True,
    ) -> Awaitable[None]:
        """Have a request decided; ``listener`` receives its outcome.

        Where the pool is followed already, the request is with it when this returns. Await what is
        returned in any case: another pool is read first.

        ``wait_max`` is how long one without a wait waits. ``may_delay``: see ``PoolLoop.submit``.
        ``heeds_reclaim``: false where who asks may not be who renews the session, and so would not
        learn of a reclaim. Raises ``Malformed``, at once.
        """
        command = asked(
            request,
            session,
            self._host(session, request.pool),
            self._clock.now(),
            wait_max=wait_max,
            heeds_reclaim=heeds_reclaim,
        )
        return self._submit(request.pool, command, listener, may_delay=may_delay)

    def _host(self, session: Session, pool: str) -> str:
        """Return what a client says is its host, where a pool's rules look at that; else nothing."""
        spec, _ = self.catalogue.spec(pool)
        if spec is None or session.client is None or not spec.policy.looks_at_hosts:
            return ""
        return session.client.host

    def release(
        self,
        session: Session,
        release: seat_service_pb2.Release,
        listener: Listener,
        *,
        may_delay: bool = False,
    ) -> Awaitable[None]:
        """Have a grant given back, or a ticket given up; see ``acquire``. Raises ``Malformed``."""
        grant = release.grant
        check_grant_ref(grant)
        check_id_age("grant.grant_id", grant.grant_id, self._clock.now())
        check_work_end(release)
        work_end = decode_work_end(release)
        command = Release(grant.grant_id, session.session_id, session.lease_id, work_end)
        return self._submit(grant.pool, command, listener, may_delay=may_delay)

    def _submit(
        self, pool: str, command: Command, listener: Listener, *, may_delay: bool
    ) -> Awaitable[None]:
        loop = self._loops.get(pool)
        if loop is None:
            return self._open_and_submit(pool, command, listener, may_delay=may_delay)
        loop.submit(command, listener, may_delay=may_delay)
        return DONE

    async def _open_and_submit(
        self, pool: str, command: Command, listener: Listener, *, may_delay: bool
    ) -> None:
        loop = await self._open_loop(pool)
        if loop is None:
            self._deny_unknown(pool, command, listener)
        else:
            loop.submit(command, listener, may_delay=may_delay)

    def detach(self, pool: str, grant_id: str, listener: Listener) -> None:
        """Stop notifying ``listener`` of a grant or ticket; it stays."""
        if (loop := self._loops.get(pool)) is not None:
            loop.subscribers.detach(grant_id, listener)

    async def confirmed(self, pool: str, grant_ids: Iterable[str]) -> Confirmed:
        """Return those of the grants that exist, as the store has them now. Raises ``StoreError``."""
        return await confirmed_grants(self._store, self._keys, pool, grant_ids)

    def state(self, pool: str) -> PoolState | None:
        """Return a pool as this node sees it; None: it does not follow it."""
        loop = self._loops.get(pool)
        return loop.state if loop else None

    def owner(self, pool: str) -> str:
        """Return the id of the node that decides for a pool; empty: any that is asked."""
        return (self._forwarder.owner(pool) if self._forwarder else None) or ""

    def now(self) -> Instant:
        """Return what this node takes for the time of day, for records that people read."""
        return self._clock.now()

    def forecast(self, pool: str, state: PoolState) -> Forecast:
        """Return the order of a pool's queue, and when seats are likely to be free for it."""
        loop, now = self._loops.get(pool), self._clock.now()
        plan = self._config.policy.plan(PoolSnapshot.of(state), now)
        return forecast(state, plan, loop.holds if loop else HoldStats(), now)

    async def loop(self, pool: str) -> PoolLoop | None:
        """Return the loop that serves a pool here, begun if need be; None: no such pool."""
        return self._loops.get(pool) or await self._open_loop(pool)

    def follows(self, pool: str) -> bool:
        """Return whether this node reads what happens in a pool."""
        return pool in self._loops

    def counts(self) -> list[PoolCount]:
        """Return the pools that are followed, and whose view is up to date. From any thread."""
        return [
            PoolCount(
                *(name, spec.seats),
                held=loop.state.held,
                queued=len(loop.state.tickets),
                is_drained=spec.drain is not None,
                overdraft_held=loop.state.marked.overdraft if spec.lots else 0,
                lots=lot_counts(spec, loop.state, self._clock.now()),
            )
            for name, loop in list(self._loops.items())
            if loop.is_current and (spec := loop.state.spec) is not None
        ]

    def ring_changed(self) -> None:
        """Record that pools may have other owners."""
        for name, loop in self._loops.items():
            loop.ring_changed()
            if loop.state.gangs:
                self._gangs.noticed(name)

    async def sweep(self) -> None:
        """Stop following pools that were idle at two sweeps in a row."""
        still_idle = {name for name, loop in self._loops.items() if loop.idle}
        for name in self._idle & still_idle:
            if self._loops[name].idle:  # still, after the others were stopped
                await self._loops.pop(name).stop()
                if self.catalogue.spec(name)[0] is None:  # what came after it was deleted
                    self._observer.pool_gone(name)
        self._idle = still_idle

    async def _open_loop(self, pool: str) -> PoolLoop | None:
        if self.catalogue.spec(pool)[0] is None:
            # Perhaps it was created a moment ago, through another node.
            await self.catalogue.refresh(pool)
            if self.catalogue.spec(pool)[0] is None:
                return None
        if pool not in self._loops:
            context = PoolContext(
                *(pool, self._store, self._keys, self.catalogue, self._clock),
                *(self._config, self._observer, self._gangs.noticed),
            )
            loop = PoolLoop(context, self._forwarder)
            loop.start()
            self._loops[pool] = loop
        return self._loops[pool]

    def refuse_malformed(self, session: Session, grant_id: str, why: str, peer: str) -> None:
        """Report a request that is refused for what it looks like, and comes to no pool."""
        event = unread_refusal(
            *(denial_name(Refusal.OTHER_TERMS), why, self._clock.now(), peer),
            grant_id=grant_id,
            session_id=session.session_id,
            attribution=Attribution(session.holder, session.project),
        )
        self._observer.usage.publish(event)

    def _deny_unknown(self, pool: str, command: Command, listener: Listener) -> None:
        denied = _no_such_pool(pool, command.grant_id)
        now, peer = self._clock.now(), peer_of(listener)
        self._observer.usage.publish(command_refused(pool, command, denied, now, peer))
        deliver(listener, pool, denied)

    def _is_elsewhere(self, pool: str) -> bool:
        return bool(self._forwarder and self._forwarder.owner_elsewhere(pool))

    def _spec_changed(self, pool: str) -> None:
        self.lots.spec_changed(pool)
        self.bursts.spec_changed(pool)
        if self.catalogue.spec(pool)[0] is None:
            self._observer.pool_gone(pool)
        if (loop := self._loops.get(pool)) is not None:
            loop.spec_changed()

    async def _sweep_loop(self) -> None:
        while True:
            await asyncio.sleep(IDLE_SWEEP.total_seconds())
            await self.sweep()


def _no_such_pool(pool: str, grant_id: str) -> Denied:
    message = f"there is no pool {pool!r}; `seatkeeper pool list` shows those there are"
    return Denied(grant_id, Refusal.POOL_NOT_FOUND, message)
