"""Collect, decide, commit, deliver: the loop that serves one pool on one node.

Theory of operation
-------------------
One transaction is in flight at a time; what arrives meanwhile is the next batch. So a busy pool
commits large batches and an idle one commits at once (group commit). Only what is in no haste
waits a few milliseconds for company (``inbox``).

Where another node owns the pool, the batch is passed on to it; only when that node is silent is it
decided here, as after an unknown outcome.

A commit ends in one of six ways:

- It succeeded. The view takes the writes in, and the clients are told.
- It conflicted: another node has decided since. Wait until the watch has brought that in, and decide
  again on the same commands.
- It named a dead lease. The store refuses such a transaction whole, so find the dead sessions,
  set them apart, and decide again.
- Its outcome is unknown. Read the pool afresh and decide again on the same commands: those that took
  effect find their own records. The lost transaction may still commit while the guard is the one
  it compared with, so "no record" proves nothing yet; the next commit therefore moves the guard
  whatever it decides, and only then is anybody answered.
- The store was not there. Decide again, until the commands have waited too long.
- The store is full. It still deletes, so give back what is given back, and refuse the rest.

Nothing is answered from the view alone. Also a decision without writes is checked against the
store (a comparison costs no consensus round), because this node's view may be old.

What is never true: two transactions of this loop in flight; an answer given for a decision that
is not committed; a command dropped without an answer.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta

from seatkeeper.server.decide import HoldStats, Outlook, admission, impossible_tickets, outlook
from seatkeeper.server.domain import (
    Acquire,
    Command,
    Denied,
    Granted,
    Limits,
    PoolState,
    Queued,
    Refusal,
    Release,
    Released,
)
from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.events import log as events
from seatkeeper.server.events.observer import Observer
from seatkeeper.server.pool.committer import RETRY_AFTER_SECONDS, Committer, SpecSource
from seatkeeper.server.pool.forwarder import Forwarded, Forwarder
from seatkeeper.server.pool.inbox import Inbox, PendingRequest
from seatkeeper.server.pool.mirror import PoolMirror
from seatkeeper.server.pool.subscribers import Listener, Subscribers, peer_of
from seatkeeper.server.pool.wait_timers import WaitTimers
from seatkeeper.server.pool.writes import deletes_of, write_of
from seatkeeper.server.routing.peers import PeerSilent
from seatkeeper.server.store import (
    Listing,
    Store,
    StoreError,
    WatchBatch,
)
from seatkeeper.server.store.follow import follow
from seatkeeper.server.store.keys import Keys
from seatkeeper.server.wire.denials import denial_name

logger = logging.getLogger(__name__)

RETRY_PAUSE_MIN = 0.01
RETRY_PAUSE_MAX = 1.0
TAKEOVER_DELAY = (0.05, 0.2)
"""Seconds until a node decides what another one should: the pool's owner, if there are owners."""
CONTENTION_PER_SEAT = (1, 5)
"""It is a throng from when five times as many wait as there are seats, until as many do."""
POSITIONS_PAUSE = 0.05
"""Seconds between two times of telling places, where too many are to be told at once."""
ESTIMATES_INTERVAL = 2.0
"""Seconds between two looks at estimates while places stay the same."""
TIMER_MIN, TIMER_MAX = 0.001, 3600.0
UNREAD_CHECK = 0.25
"""Seconds between two looks for commands that have waited too long for the first listing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """Bounds of one pool's loop."""

    limits: Limits = field(default_factory=Limits)
    commands_max: int = 20_000
    """Commands waiting to be decided. More are refused with ``OVERLOADED``."""
    command_timeout: timedelta = timedelta(seconds=10)
    """A command not committed within this is answered ``UNAVAILABLE``: outcome unknown."""
    crowd_pause: timedelta = timedelta(milliseconds=3)
    """How long a call of a crowd waits for others to share its commit."""
    queue_pause: timedelta = timedelta(milliseconds=10)
    """How long a request that can only join a queue waits for that."""
    contention_pause: timedelta = timedelta(milliseconds=28)
    """Least time from one decision to the next while there is a throng."""
    catch_up_timeout: timedelta = timedelta(milliseconds=500)
    """After a conflict, how long to wait for the watch before reading the pool afresh."""
    position_interval: timedelta = timedelta(milliseconds=500)
    """How often those who wait are told their position, at most, where it has changed."""


class PoolLoop:
    """Serves one pool on one node. Start it once; ``submit`` from then on."""

    def __init__(
        self,
        pool: str,
        store: Store,
        keys: Keys,
        specs: SpecSource,
        clock: Clock,
        *,
        config: LoopConfig | None = None,
        observer: Observer | None = None,
        forwarder: Forwarder | None = None,
    ) -> None:
        self.pool = pool
        self.is_current = False
        """Whether the store tells what changes; set by ``follow``."""
        self.holds = HoldStats()
        self.subscribers = Subscribers(pool)
        self._followers: dict[asyncio.Event, None] = {}
        self._store = store
        self._keys = keys
        self._clock = clock
        self._config = config or LoopConfig()
        self._observer = observer or Observer()
        self._forwarder = forwarder
        self._mirror = PoolMirror(keys, pool)
        self._waits = WaitTimers(clock)
        self._committer = Committer(
            *(pool, store, keys, specs, clock, self._mirror, self.subscribers, self._waits),
            self._observer,
            limits=self._config.limits,
            catch_up_timeout=self._config.catch_up_timeout,
            changed=self._changed,
        )
        self._inbox = Inbox(
            clock,
            commands_max=self._config.commands_max,
            timeout=self._config.command_timeout,
        )
        self._wake = asyncio.Event()
        self._listed = asyncio.Event()
        self._pause = RETRY_PAUSE_MIN
        self._decided_at = 0.0
        self._contention = False
        self._timer: asyncio.TimerHandle | None = None
        self._positions_changed = False
        self._estimates_at = 0.0
        self._owner_before = (forwarder.owner(pool) if forwarder else None) or ""
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def state(self) -> PoolState:
        """The pool as this node sees it."""
        return self._mirror.state

    def outlook(self) -> Outlook:
        """Return when seats are likely to be free."""
        return outlook(self.state, self.holds, self._clock.now())

    def start(self) -> None:
        """Begin to follow the pool and to decide."""
        self._tasks = [
            asyncio.create_task(
                follow(self._store, self._keys.seats(self.pool), self, self._observer)
            ),
            asyncio.create_task(self._decide_loop()),
            asyncio.create_task(self._notify_positions_loop()),
        ]

    async def stop(self) -> None:
        """Stop deciding. Commands not committed are answered ``UNAVAILABLE``: outcome unknown."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._give_up(self._inbox.take(len(self._inbox)), "the node is stopping")

    @contextmanager
    def following(self) -> Iterator[asyncio.Event]:
        """Yield an event that is set after every change of the view; clear it yourself."""
        changed = asyncio.Event()
        self._followers[changed] = None
        try:
            yield changed
        finally:
            del self._followers[changed]

    @property
    def idle(self) -> bool:
        """True when the pool was read, and no client of this node has anything in it.

        Nor does a wait end that is measured here: it would begin anew.
        """
        in_use = len(self._inbox) or len(self.subscribers) or self._followers
        is_measuring = self._waits.next_end() is not None
        return self._listed.is_set() and not in_use and not is_measuring

    async def listed(self) -> None:
        """Wait until the pool has been read for the first time."""
        await self._listed.wait()

    def submit(self, command: Command, listener: Listener, *, patient: bool = False) -> None:
        """Have ``command`` decided; ``listener`` hears the outcome.

        A ``patient`` one may wait a little for others to share its commit: see ``Inbox.gather``.
        One that is kept out of the queue hears so at once, and costs the store nothing.
        """
        if isinstance(command, Acquire) and (why := self._kept_out(command)) is not None:
            self._refuse(command, listener, _overloaded(command, why))
            return
        patience = self._patience(
            command, is_forwarded=isinstance(listener, Forwarded), is_one_of_many=patient
        )
        if not self._inbox.add(command, listener, patience=patience):
            too_many = "too many requests wait to be decided"
            self._refuse(command, listener, _overloaded(command, too_many))
            return
        if isinstance(command, Release):
            # The answer tells; the watch, which is often faster, would tell the same before.
            self.subscribers.detach(command.grant_id, listener)
        self._wake.set()

    def _refuse(self, command: Command, listener: Listener, denied: Denied) -> None:
        """Answer a command that is not decided."""
        # Where it was passed on from, it is decided after all, or counted.
        if not isinstance(listener, Forwarded) or denied.reason is not Refusal.UNAVAILABLE:
            self._observer.denied(self.pool, denial_name(denied.reason))
            if events.are_wanted():
                events.answered(self.pool, command.session_id, denied, peer_of(listener))
        listener.hear(self.pool, denied)

    def _kept_out(self, command: Acquire) -> str | None:
        if not self.state.tickets or not admission.would_wait(self.state, command):
            return None
        limits, ahead = self._config.limits, len(self._inbox)
        return admission.refusal(self.state, command, limits, ahead=ahead, ahead_of_holder=0)

    def _patience(
        self, command: Command, *, is_forwarded: bool, is_one_of_many: bool
    ) -> timedelta:
        """Return how long a command may wait for others to share its commit."""
        if is_forwarded:
            return timedelta(0)  # it has waited for company where it came from
        if is_one_of_many:
            return self._config.crowd_pause
        return self._config.queue_pause if self._will_queue(command) else timedelta(0)

    async def _keep_pace(self) -> None:
        """In a throng, make few decisions, and large ones: their cost matters more than their time."""
        ends, begins = CONTENTION_PER_SEAT
        spec, waiting = self.state.spec, len(self.state.tickets)
        seats = spec.seats if spec else 0
        self._contention = waiting >= (ends if self._contention else begins) * seats > 0
        if self._contention:
            since = self._clock.monotonic() - self._decided_at
            await asyncio.sleep(max(0.0, self._config.contention_pause.total_seconds() - since))
        self._decided_at = self._clock.monotonic()

    def _will_queue(self, command: Command) -> bool:
        """Return whether a command can only join a queue that there is already."""
        return isinstance(command, Acquire) and command.may_wait and bool(self.state.tickets)

    # What the watch tells -------------------------------------------------------------------

    def reset(self, listing: Listing) -> None:
        """Take in a listing of the whole pool."""
        self._changed(self._mirror.reset(listing))
        self._listed.set()

    def apply(self, batch: WatchBatch) -> None:
        """Take in what changed."""
        touched = self._mirror.apply(batch)
        self._committer.watch_told()
        if touched:  # else it was the echo of an own commit
            self._changed(touched)

    def spec_changed(self) -> None:
        """Take in a new specification."""
        self._committer.read_spec()
        self._changed(set())

    def ring_changed(self) -> None:
        """Take in that another node may be the owner now."""
        owner = (self._forwarder.owner(self.pool) if self._forwarder else None) or ""
        if owner != self._owner_before:
            about = {"pool": self.pool, "before": self._owner_before, "after": owner}
            events.happened("owner_changed", logging.DEBUG, **about)
            self._owner_before = owner
        if self._listed.is_set():
            if self._has_work():
                self._wake_to_serve()
            self._set_timer()

    def _changed(self, grant_ids: set[str]) -> None:
        now = self._clock.now()
        for grant in self._mirror.ended:
            self.holds = self.holds.with_hold(timedelta(milliseconds=now - grant.granted_at))
        self._mirror.ended.clear()
        if self._owner_elsewhere is None:
            # Every node that follows the pool sees it end; one reports it.
            for grant in self._mirror.expired:
                events.expired(self.pool, grant)
        self._mirror.expired.clear()
        self.subscribers.review(grant_ids, self.state, self._mirror.denied)
        for grant_id in grant_ids:
            self._mirror.denied.pop(grant_id, None)
        self._waits.review(grant_ids, self.state)
        self._positions_changed = True
        self._committer.view_moved()
        if self._has_work():
            self._wake_to_serve()
        self._set_timer()
        for follower in self._followers:
            follower.set()

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
            self._wake.clear()
            try:
                await self._decide_once()
            except StoreError as error:
                await self._store_failed(error)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # Something that was waited for was cancelled, and not we: a pool goes on.
                logger.exception("pool_loop_failed", extra={"pool": self.pool})
                await self._rest()
            except Exception:
                logger.exception("pool_loop_failed", extra={"pool": self.pool})
                await self._rest()

    async def _decide_once(self) -> None:
        await self._inbox.gather()
        await self._keep_pace()
        self._expire_requests()
        asks = self._inbox.take(self._config.limits.writes_max)
        if not asks and not self._has_work() and not self._is_due():
            self._set_timer()
            return
        to_do = False
        try:
            if not await self._pass_on(asks) or self._is_overdue():
                decision = await self._committer.commit(asks)
                to_do = decision is None or decision.unserved
                self._pause = RETRY_PAUSE_MIN
        finally:
            self._inbox.put_back(asks)
        if to_do or len(self._inbox):
            self._wake.set()
        elif self._has_work():
            self._wake_to_serve()
        self._set_timer()

    @property
    def _owner_elsewhere(self) -> str | None:
        return self._forwarder.owner_elsewhere(self.pool) if self._forwarder else None

    async def _pass_on(self, asks: list[PendingRequest]) -> bool:
        """Have the pool's owner decide, where it is another node; return whether all is done.

        What was passed on to us is decided here: whoever did so takes us for the owner.
        """
        owner = self._owner_elsewhere
        if (
            owner is None
            or self._forwarder is None
            or not asks
            or any(map(_is_forwarded, asks))
        ):
            return False
        try:
            commands = [ask.command for ask in asks]
            if events.are_wanted():  # or the owner is asked for less
                peers = [peer_of(ask.listener) for ask in asks]
                decided = await self._forwarder.decide(owner, self.pool, commands, peers)
            else:
                decided = await self._forwarder.decide(owner, self.pool, commands)
        except PeerSilent:
            # It may have decided, or may yet. The same ids decided again find what it made.
            self._observer.forward_failed(self.pool)
            return False
        self._observer.forwarded(self.pool, commands=len(asks))
        touched: set[str] = set()
        undecided: list[PendingRequest] = []
        for ask, outcome in zip(asks, decided.outcomes, strict=True):
            if isinstance(outcome, Denied) and outcome.reason is Refusal.UNAVAILABLE:
                undecided.append(ask)
            elif isinstance(outcome, Granted | Queued):
                command = ask.command
                if isinstance(outcome, Queued):
                    self._waits.asked(command, ask.asked_at)
                self.subscribers.attach(command, ask.listener)
                news = [write_of(self._keys, self.pool, outcome)]
                touched |= self._mirror.committed(news, decided.revision)
                touched.add(command.grant_id)
            else:
                if isinstance(outcome, Released):
                    # Else the view has it until the watch comes, and a token could be asked for.
                    gone = deletes_of(self._keys, self.pool, [outcome.grant_id])
                    touched |= self._mirror.committed(gone, decided.revision)
                ask.listener.hear(self.pool, outcome)
        self._changed(touched)
        asks[:] = undecided
        return not undecided

    async def _notify_positions_loop(self) -> None:
        while True:
            await asyncio.sleep(self._config.position_interval.total_seconds())
            # Estimates turn out to be wrong also when nothing happens.
            is_time = self._clock.monotonic() >= self._estimates_at + ESTIMATES_INTERVAL
            if self._positions_changed or (is_time and self.holds.recent):
                self._positions_changed = False
                self._estimates_at = self._clock.monotonic()
                await self._notify_positions()

    async def _notify_positions(self) -> None:
        """Tell a few at a time, so that a long queue holds nobody up."""
        if not len(self.subscribers):
            return
        ahead = self.outlook()
        for _ in range(len(self.subscribers) + 1):
            if not self.subscribers.review_positions(self.state, ahead):
                return
            await asyncio.sleep(POSITIONS_PAUSE)

    # Waking up ------------------------------------------------------------------------------

    def _has_work(self) -> bool:
        """Whether there is something to decide that nobody asks for: to serve, or to deny."""
        head = self.state.head()
        if head is None:
            return False
        if head.seats <= self.state.free:
            return True
        return next(impossible_tickets(self.state), None) is not None

    def _is_due(self, late_by: float = 0.0) -> bool:
        end = self._waits.next_end()
        return end is not None and end + late_by <= self._clock.monotonic()

    def _is_overdue(self) -> bool:
        """Whether somebody should have been turned away by another node, and was not."""
        return self._is_due(late_by=TAKEOVER_DELAY[1])

    @property
    def _is_ours(self) -> bool:
        """Whether this node should be the first to decide what nobody asks for."""
        if self._forwarder is not None:
            return self._owner_elsewhere is None
        head = self.state.head()
        return head is not None and self.subscribers.waits_here(head.grant_id)

    def _wake_to_serve(self) -> None:
        if self._is_ours:
            self._wake.set()
        else:
            self._wake_in(random.uniform(*TAKEOVER_DELAY))

    def _set_timer(self) -> None:
        if (end := self._waits.next_end()) is not None:
            delay = min(max(end - self._clock.monotonic(), TIMER_MIN), TIMER_MAX)
            if self._owner_elsewhere is not None:
                delay += random.uniform(*TAKEOVER_DELAY)
            self._wake_in(delay)

    def _wake_in(self, delay: float) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + delay:
                return
            self._timer.cancel()
        self._timer = loop.call_later(delay, self._timer_rang)

    def _timer_rang(self) -> None:
        self._timer = None
        self._wake.set()

    # Trouble --------------------------------------------------------------------------------

    async def _store_failed(self, error: StoreError) -> None:
        self._observer.store_failed(self.pool, type(error).__name__)
        logger.warning("commit_failed", extra={"pool": self.pool, "error": str(error)})
        await self._rest()

    async def _rest(self) -> None:
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))
        self._pause = min(2 * self._pause, RETRY_PAUSE_MAX)
        self._wake.set()

    def _expire_requests(self) -> None:
        self._give_up(self._inbox.take_late(), "the store did not answer in time")

    def _give_up(self, asks: list[PendingRequest], why: str) -> None:
        for ask in asks:
            message = f"{why}; the outcome is unknown: send the same request again"
            retry = timedelta(seconds=1)
            denied = Denied(ask.command.grant_id, Refusal.UNAVAILABLE, message, retry)
            self._refuse(ask.command, ask.listener, denied)


def _overloaded(command: Command, why: str) -> Denied:
    # Not all at the same moment again.
    retry_after = random.uniform(*RETRY_AFTER_SECONDS)
    return Denied(
        command.grant_id,
        Refusal.OVERLOADED,
        f"{why}; try again later",
        timedelta(seconds=retry_after),
    )


def _is_forwarded(ask: PendingRequest) -> bool:
    return isinstance(ask.listener, Forwarded)
