"""Collect, decide, commit, deliver: the loop that serves one pool on one node.

Theory of operation
-------------------
One transaction is in flight at a time; what arrives meanwhile is the next batch. So a busy pool
commits large batches and an idle one commits at once (group commit). Only commands that are not urgent
wait a few milliseconds for others to share their batch (``inbox``).

Where another node owns the pool, the batch is forwarded to it; only when that node is silent is it
decided here, as after an unknown outcome.

A commit ends in one of six ways:

- It succeeded. The view applies the writes, and the clients are notified.
- It conflicted: another node has decided since. Wait until the watch has brought that in, and decide
  again on the same commands.
- It named a dead lease. The store refuses such a transaction whole, so find the dead sessions,
  set them apart, and decide again. Where that does not help four times in a row, pause, as when the
  store is not there: the outcome is known, nothing was changed.
- Its outcome is unknown. Read the pool afresh and decide again on the same commands: those that took
  effect find their own records. The lost transaction may still commit while the guard is the one
  it compared with, so "no record" proves nothing yet; the next commit therefore moves the guard
  whatever it decides, and only then is anybody answered.
- The store was not there. Decide again, until the commands have waited too long.
- The store is full. It still deletes, so give back what is given back, and refuse the rest.

Where a record of the pool is of a newer format than this version knows, nothing is decided here, nor
forwarded: commands are answered ``UNAVAILABLE`` with the reason until the record is gone.

No decision is answered from the view alone. Also one without writes is checked against the store (a
comparison costs no consensus round), because this node's view may be old. What is refused before a
decision, because a queue or this node is full, is refused by the view: that costs the store nothing.

What is never true: two transactions of this loop in flight; an answer given for a decision that
is not committed; a command dropped without an answer.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from seatkeeper.server.decide import Forecast, HoldStats, admission
from seatkeeper.server.domain import (
    Acquire,
    Command,
    PoolState,
    Release,
)
from seatkeeper.server.events import log as events
from seatkeeper.server.pool.background import BackgroundWork
from seatkeeper.server.pool.committer import Committer
from seatkeeper.server.pool.context import PoolContext
from seatkeeper.server.pool.forwarder import Forwarded, Forwarder
from seatkeeper.server.pool.inbox import Inbox, PendingCommand
from seatkeeper.server.pool.intake import NO_DELAY, Intake
from seatkeeper.server.pool.mirror import PoolMirror
from seatkeeper.server.pool.ownership import Ownership
from seatkeeper.server.pool.positions import PositionNotifier
from seatkeeper.server.pool.reclaim_timers import ReclaimTimers
from seatkeeper.server.pool.refusals import Refusals
from seatkeeper.server.pool.stay_timers import StayTimers
from seatkeeper.server.pool.subscribers import Listener, Subscribers
from seatkeeper.server.pool.view_reader import ViewReader
from seatkeeper.server.pool.wait_timers import WaitTimers
from seatkeeper.server.pool.waking import Backoff, Pace, Waker
from seatkeeper.server.routing.wire import not_understood
from seatkeeper.server.store import (
    Listing,
    StoreError,
    WatchBatch,
)
from seatkeeper.server.store.follow import follow
from seatkeeper.server.store.formats import RecordUnreadable

logger = logging.getLogger(__name__)

RETRY_PAUSE_MIN = 0.01
RETRY_PAUSE_MAX = 1.0
TAKEOVER_DELAY = (0.05, 0.2)
"""Seconds until a node decides what another one should: the pool's owner, if there are owners."""
UNREAD_CHECK = 0.25
"""Seconds between two looks for commands that have waited too long for the first listing."""


class PoolLoop:
    """Serves one pool on one node. Start it once; ``submit`` from then on."""

    def __init__(self, context: PoolContext, forwarder: Forwarder | None = None) -> None:
        """Serve nothing yet. ``forwarder`` has other nodes decide; None: decide everything here."""
        self.pool = pool = context.pool
        self.is_current = False
        """Whether the watch of the store works; set by ``follow``."""
        self.holds = HoldStats()
        self.subscribers = Subscribers(pool)
        self._on_gangs = context.on_gangs
        self._followers: dict[asyncio.Event, None] = {}
        self._store = context.store
        self._keys = context.keys
        self._clock = context.clock
        config = context.config
        self._writes_max = config.limits.writes_max
        self._observer = context.observer
        self._mirror = PoolMirror(self._keys, pool)
        self._waits = WaitTimers(self._clock)
        self._reclaims = ReclaimTimers(self._clock)
        self._stays = StayTimers(self._clock)
        timers = self._waits, self._reclaims, self._stays
        self._work = BackgroundWork(self._mirror, *timers, config.policy, self._clock)
        parts = (self._mirror, self.subscribers, self._waits, self._changed)
        self._ownership = Ownership(context, forwarder, *parts)
        self._reader = ViewReader(context, *parts)
        self._committer = Committer(context, *parts, self._reader.bring_in, *timers[1:])
        self.gang_parts = self._committer.gang_parts
        self._refusals = Refusals(context)
        self._intake = Intake(self.state, self._work, config, self._clock)
        self._inbox = Inbox(
            self._clock,
            commands_max=config.commands_max,
            timeout=config.command_timeout,
            is_held=partial(admission.is_theirs, self.state),
        )
        self._positions = PositionNotifier(
            *(self.subscribers, self.state, self.forecast, self._clock),
            config.position_interval,
        )
        self._wake = Waker()
        self._pace = Pace(self._clock, config.contention_pause.total_seconds())
        self._listed = asyncio.Event()
        self._deciding: list[PendingCommand] = []
        """What is being decided, and is not answered."""
        self._backoff = Backoff(RETRY_PAUSE_MIN, RETRY_PAUSE_MAX)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def state(self) -> PoolState:
        """The pool as this node sees it."""
        return self._mirror.state

    @property
    def unsupported(self) -> RecordUnreadable | None:
        """Why this node cannot serve the pool: a newer version's record; None: it can."""
        return self._committer.unsupported

    def forecast(self) -> Forecast:
        """Return the order of those who wait, and when seats are likely to be free for them."""
        return self._work.forecast(self.holds)

    def start(self) -> None:
        """Begin to follow the pool and to decide."""
        self._tasks = [
            asyncio.create_task(
                follow(self._store, self._keys.seats(self.pool), self, self._observer)
            ),
            asyncio.create_task(self._decide_loop()),
            asyncio.create_task(self._positions.run()),
        ]

    async def stop(self) -> None:
        """Stop deciding. Commands not committed are answered ``UNAVAILABLE``: outcome unknown."""
        self._wake.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._refusals.unanswered(self._inbox.take(len(self._inbox)), "the node is stopping")

    @contextmanager
    def following(self, changed: asyncio.Event | None = None) -> Iterator[asyncio.Event]:
        """Yield an event that is set after every change of the view; clear it yourself."""
        changed = changed or asyncio.Event()
        self._followers[changed] = None
        try:
            yield changed
        finally:
            del self._followers[changed]

    @property
    def idle(self) -> bool:
        """True when the pool was read, and no client of this node has anything in it.

        Nor does a wait end that is measured here (it would begin anew), nor a time come at which the
        policy may serve. A pool's owner follows it while seats are held: it reports those that expire.
        """
        asked = len(self._inbox) or self._deciding
        in_use = asked or len(self.subscribers) or self._followers
        reports = self._ownership.forwarder is not None and self._ownership.elsewhere is None
        is_held = bool(self.state.grants or self.state.tickets or self.state.kept)
        is_needed = in_use or self._work.next_look() is not None or (reports and is_held)
        return self._listed.is_set() and not is_needed

    async def listed(self) -> None:
        """Wait until the pool has been read for the first time."""
        await self._listed.wait()

    def submit(self, command: Command, listener: Listener, *, may_delay: bool = False) -> None:
        """Have ``command`` decided; ``listener`` receives the outcome.

        With ``may_delay`` it may wait a little for others to share its commit: see ``Inbox.gather``.
        One that is kept out of the queue is denied at once, and costs the store nothing. A release of
        what there is is never kept out.
        """
        if (error := self.unsupported) is not None:
            self._refusals.refuse(command, listener, not_understood(command.grant_id, error))
            return
        if isinstance(command, Acquire):
            why = self._intake.early_refusal(command, ahead=len(self._inbox))
            if why is not None:
                self._refusals.overloaded(command, listener, why)
                return
        batch_delay = NO_DELAY  # what was forwarded has waited where it came from
        if not isinstance(listener, Forwarded):
            batch_delay = self._intake.batch_delay(command, is_one_of_many=may_delay)
        if not self._inbox.add(command, listener, batch_delay=batch_delay):
            self._refusals.no_room(command, listener)
            return
        if isinstance(command, Release):
            # The answer reports it; the watch, which is often faster, would report the same before.
            self.subscribers.detach(command.grant_id, listener)
        self._wake.set()

    # Changes from the watch -------------------------------------------------------------------

    async def reset(self, listing: Listing) -> None:
        """Apply a listing of the whole pool."""
        await self._reader.bring_in(listing)
        self._listed.set()

    def apply(self, batch: WatchBatch) -> None:
        """Apply the changes. Those of an own commit are known, and are not read again."""
        touched: set[str] = set()
        if own := self._committer.own_revision(batch):
            if before := tuple(c for c in batch.changes if c.revision < own):
                touched |= self._mirror.apply(WatchBatch(before, before[-1].revision))
            self._committer.landed(own)
        touched |= self._mirror.apply(batch)
        self._committer.watch_delivered(batch)
        if touched:
            self._changed(touched)

    def spec_changed(self) -> None:
        """Apply a new specification."""
        self._committer.read_spec()
        self._changed(set())

    def ring_changed(self) -> None:
        """Notice that another node may be the owner now."""
        self._ownership.ring_changed()
        if self._listed.is_set():
            self._wake_for_work()

    def _changed(self, grant_ids: set[str]) -> None:
        self._reclaims.review(self.state.guard.reclaims)
        self._stays.review(self.state)
        self.holds = self.holds.with_ended(self._mirror.ended, self._clock.now())
        self._mirror.ended.clear()
        if self._mirror.expired:
            # After the commit that is being processed has reported the grants that it made.
            asyncio.get_running_loop().call_soon(self._ownership.report_expired)
        self._reader.review(grant_ids)
        self._positions.places_may_have_changed()
        self._turn_away_where_unsupported()
        self._committer.view_moved()
        self._wake_for_work()
        for follower in self._followers:
            follower.set()
        if self.state.gangs:
            self._on_gangs(self.pool)

    # Deciding -------------------------------------------------------------------------------

    async def _decide_loop(self) -> None:
        while not self._listed.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(UNREAD_CHECK):
                    await self._listed.wait()
            self._expire_requests()
        self._committer.read_spec()
        while True:
            await self._wake.wait()
            try:
                await self._decide_once()
            except StoreError as error:
                pause = self._backoff.next()
                about = {"pool": self.pool, "error": str(error), "retry_in_s": round(pause, 3)}
                logger.warning("commit_failed", extra=about)
                await self._rest(pause)
            except RecordUnreadable:  # seen while it was decided
                self._turn_away_where_unsupported()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # Something that was waited for was cancelled, and not we: a pool goes on.
                logger.exception("decide_failed", extra={"pool": self.pool})
                await self._rest(self._backoff.next())
            except Exception:
                logger.exception("decide_failed", extra={"pool": self.pool})
                await self._rest(self._backoff.next())

    async def _decide_once(self) -> None:
        await self._inbox.gather()
        seats = self.state.spec.seats if self.state.spec else 0
        pause, enough = self._pace.pause(waiting=len(self.state.tickets), seats=seats)
        await self._inbox.releases(enough, within=pause)
        self._pace.decided()
        self._expire_requests()
        if self._turn_away_where_unsupported():
            return
        asks = self._deciding = self._inbox.take(self._writes_max)
        if not asks and self._work.look() is None and not self._work.is_due():
            self._set_timer()
            return
        to_do, is_idle = False, not asks
        try:
            if not await self._ownership.forward(asks) or self._work.is_due(
                late_by=TAKEOVER_DELAY[1]
            ):
                decision = await self._committer.commit(asks)
                to_do = decision is None or decision.unserved
                is_idle = is_idle and decision is not None and not decision.changes
                if not is_idle:
                    self._backoff.reset()
        finally:
            self._inbox.put_back(asks)
            self._deciding = []
        if is_idle and self._work.look() is not None:
            # The policy plans one thing for the loop and another for the decision.
            logger.error("plan_without_effect", extra={"pool": self.pool})
            self._wake.set_in(self._backoff.pause)
            self._backoff.lengthen()
        elif to_do or len(self._inbox):
            self._wake.set()
            self._set_timer()
        else:
            self._wake_for_work()

    # Waking up ------------------------------------------------------------------------------

    def _is_ours(self, grant_id: str) -> bool:
        """Whether this node should be the first to decide what no command asks for."""
        if self._ownership.forwarder is not None:
            return self._ownership.elsewhere is None
        return self.subscribers.waits_here(grant_id)

    def _wake_for_work(self) -> None:
        """Wake up for what is to be decided in the background: now, and when there may be more."""
        grant_id = self._work.look() if self.unsupported is None else None
        if grant_id is not None:
            if self._is_ours(grant_id):
                self._wake.set()
            else:
                self._wake.set_in(random.uniform(*TAKEOVER_DELAY))
        self._set_timer()

    def _set_timer(self) -> None:
        if (seconds := self._work.next_look()) is not None:
            if self._ownership.elsewhere is not None:
                seconds = max(0.0, seconds) + random.uniform(*TAKEOVER_DELAY)
            self._wake.set_in(seconds)

    # Trouble --------------------------------------------------------------------------------

    async def _rest(self, pause: float) -> None:
        await asyncio.sleep(pause)
        self._wake.set()

    def _turn_away_where_unsupported(self) -> bool:
        """Refuse all that is asked here of a pool that this version does not understand.

        Clients that wait keep their places: a node that understands the pool serves them.
        """
        if (error := self.unsupported) is None:
            return False
        events.record_unreadable(error)
        for ask in self._inbox.take(len(self._inbox)):
            denied = not_understood(ask.command.grant_id, error)
            self._refusals.refuse(ask.command, ask.listener, denied)
        self.subscribers.turn_away(partial(not_understood, error=error))
        return True

    def _expire_requests(self) -> None:
        self._refusals.unanswered(self._inbox.take_late(), "the store did not answer in time")
