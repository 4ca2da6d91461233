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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Protocol

from seatkeeper.server.clock import Clock
from seatkeeper.server.decide import (
    Acquire,
    Command,
    Decision,
    Denied,
    Granted,
    HoldStats,
    Limits,
    PoolSpec,
    PoolState,
    Queued,
    Refusal,
    Release,
    Released,
    admission,
    decide,
)
from seatkeeper.server.follow import follow
from seatkeeper.server.keys import Keys
from seatkeeper.server.observer import Observer
from seatkeeper.server.pool.audience import Audience, Listener
from seatkeeper.server.pool.flight import Flight
from seatkeeper.server.pool.inbox import Ask, Inbox
from seatkeeper.server.pool.mirror import PoolMirror
from seatkeeper.server.pool.passed import PassedOn, Passing
from seatkeeper.server.pool.writes import deletes_of, write_of, writes_of
from seatkeeper.server.routing.peers import PeerSilent
from seatkeeper.server.store import (
    Committed,
    LeaseNotFound,
    Listing,
    OutcomeUnknown,
    Store,
    StoreError,
    StoreFull,
    Unchanged,
    WatchBatch,
    Write,
)

logger = logging.getLogger(__name__)

RETRY_PAUSE_MIN = 0.01
RETRY_PAUSE_MAX = 1.0
BYSTANDER_DELAY = (0.05, 0.2)
"""Seconds until a node decides what another one should: the pool's owner, if there are owners."""
TIMER_MAX = 3600.0
UNREAD_CHECK = 0.25
"""Seconds between two looks for commands that have waited too long for the first listing."""
TURNS_UNTIL_SENT = 2
"""Turns of the event loop in which a request to the store gets on its way."""
RETRY_AFTER_SECONDS = (1.0, 3.0)
"""When those who are kept out should come again."""
ISOLATIONS_MAX = 4
"""Dead sessions are looked for this often before a batch is given up."""


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
    catch_up_timeout: timedelta = timedelta(milliseconds=500)
    """After a conflict, how long to wait for the watch before reading the pool afresh."""
    position_interval: timedelta = timedelta(milliseconds=500)
    """How often those who wait are told their position, at most, where it has changed."""


class SpecSource(Protocol):
    """Where a pool's specification comes from."""

    def spec(self, pool: str) -> tuple[PoolSpec | None, int]:
        """Return the specification and its revision; None and 0 when there is none."""
        ...

    async def refresh(self, pool: str) -> None:
        """Read the specification afresh."""
        ...


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
        passing: Passing | None = None,
    ) -> None:
        self.pool = pool
        self.holds = HoldStats()
        self.audience = Audience(pool)
        self._followers: set[asyncio.Event] = set()
        self._store = store
        self._keys = keys
        self._specs = specs
        self._clock = clock
        self._config = config or LoopConfig()
        self._observer = observer or Observer()
        self._passing = passing
        self._mirror = PoolMirror(keys, pool)
        self._spec_revision = 0
        self._inbox = Inbox(
            clock,
            commands_max=self._config.commands_max,
            timeout=self._config.command_timeout,
        )
        self._wake = asyncio.Event()
        self._listed = asyncio.Event()
        self._moved = asyncio.Event()
        self._unsettled = False
        self._flight: Flight | None = None
        self._pause = RETRY_PAUSE_MIN
        self._timer: asyncio.TimerHandle | None = None
        self._positions_changed = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def state(self) -> PoolState:
        """The pool as this node sees it."""
        return self._mirror.state

    def start(self) -> None:
        """Begin to follow the pool and to decide."""
        self._tasks = [
            asyncio.create_task(
                follow(self._store, self._keys.seats(self.pool), self, self._observer)
            ),
            asyncio.create_task(self._decide_forever()),
            asyncio.create_task(self._tell_positions_forever()),
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
        self._followers.add(changed)
        try:
            yield changed
        finally:
            self._followers.discard(changed)

    @property
    def idle(self) -> bool:
        """True when the pool was read, and no client of this node has anything in it."""
        in_use = len(self._inbox) or len(self.audience) or self._followers
        return self._listed.is_set() and not in_use

    async def listed(self) -> None:
        """Wait until the pool has been read for the first time."""
        await self._listed.wait()

    def submit(self, command: Command, listener: Listener, *, patient: bool = False) -> None:
        """Have ``command`` decided; ``listener`` hears the outcome.

        A ``patient`` one may wait a little for others to share its commit: see ``Inbox.gather``.
        One that is kept out of the queue hears so at once, and costs the store nothing.
        """
        if isinstance(command, Acquire) and (why := self._kept_out(command)) is not None:
            self._observer.denied(self.pool, Refusal.OVERLOADED.name)
            listener.hear(self.pool, _overloaded(command, why))
            return
        patience = timedelta(0)
        if isinstance(listener, PassedOn):
            pass  # it has waited for company where it came from
        elif patient:
            patience = self._config.crowd_pause
        elif self._will_queue(command):
            patience = self._config.queue_pause
        if not self._inbox.add(command, listener, patience=patience):
            listener.hear(
                self.pool, _overloaded(command, "too many requests wait to be decided")
            )
            return
        if isinstance(command, Release):
            # The answer tells; the watch, which is often faster, would tell the same before.
            self.audience.detach(command.grant_id, listener)
        self._wake.set()

    def _kept_out(self, command: Acquire) -> str | None:
        if not self._listed.is_set() or not admission.would_wait(self.state, command):
            return None
        limits, ahead = self._config.limits, len(self._inbox)
        return admission.refusal(self.state, command, limits, ahead=ahead, ahead_of_holder=0)

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
        if self._flight is not None:
            self._flight.seen(self._mirror.decision_id, self._mirror.guard_revision)
        self._moved.set()
        if touched:  # else it was the echo of an own commit
            self._changed(touched)

    def spec_changed(self) -> None:
        """Take in a new specification."""
        self._read_spec()
        self._changed(set())

    def ring_changed(self) -> None:
        """Take in that another node may be the owner now."""
        if self._listed.is_set():
            if self._can_serve():
                self._wake_to_serve()
            self._set_timer()

    def _read_spec(self) -> None:
        self._mirror.state.spec, self._spec_revision = self._specs.spec(self.pool)

    def _changed(self, grant_ids: set[str]) -> None:
        now = self._clock.now()
        for grant in self._mirror.ended:
            self.holds = self.holds.with_hold(timedelta(milliseconds=now - grant.granted_at))
        self._mirror.ended.clear()
        self.audience.review(grant_ids, self.state)
        self._positions_changed = True
        self._moved.set()
        if self._can_serve():
            self._wake_to_serve()
        for follower in self._followers:
            follower.set()

    # Deciding -------------------------------------------------------------------------------

    async def _decide_forever(self) -> None:
        while not self._listed.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(UNREAD_CHECK):
                    await self._listed.wait()
            self._expire_asks()
        self._read_spec()
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._decide_once()
            except StoreError as error:
                await self._store_failed(error)
            except Exception:
                logger.exception("deciding for a pool failed", extra={"pool": self.pool})
                await self._rest()

    async def _decide_once(self) -> None:
        await self._inbox.gather()
        self._expire_asks()
        asks = self._inbox.take(self._config.limits.writes_max)
        now = self._clock.now()
        if not asks and not self._can_serve() and not self._is_due(now):
            self._set_timer()
            return
        decision = None
        try:
            if not await self._pass_on(asks):
                decision = await self._commit(asks)
        finally:
            self._inbox.put_back(asks)
        if len(self._inbox) or (decision is not None and decision.unserved):
            self._wake.set()
        elif self._can_serve():
            self._wake_to_serve()
        self._set_timer()

    @property
    def _owner_elsewhere(self) -> str | None:
        return self._passing.owner_elsewhere(self.pool) if self._passing else None

    async def _pass_on(self, asks: list[Ask]) -> bool:
        """Have the pool's owner decide, where it is another node; return whether all is done.

        What was passed on to us is decided here: whoever did so takes us for the owner.
        """
        owner = self._owner_elsewhere
        if owner is None or self._passing is None or not asks or any(map(_is_passed, asks)):
            return False
        try:
            decided = await self._passing.decide(
                owner, self.pool, [ask.command for ask in asks]
            )
        except PeerSilent:
            # It may have decided, or may yet. The same ids decided again find what it made.
            self._observer.forward_failed(self.pool)
            return False
        self._observer.forwarded(self.pool, commands=len(asks))
        touched: set[str] = set()
        undecided: list[Ask] = []
        for ask, outcome in zip(asks, decided.outcomes, strict=True):
            if isinstance(outcome, Denied) and outcome.reason is Refusal.UNAVAILABLE:
                undecided.append(ask)
            elif isinstance(outcome, Granted | Queued):
                command = ask.command
                self.audience.attach(command.grant_id, command.session_id, ask.listener)
                news = [write_of(self._keys, self.pool, outcome)]
                touched |= self._mirror.committed(news, decided.revision)
                touched.add(command.grant_id)
            else:
                ask.listener.hear(self.pool, outcome)
        self._changed(touched)
        asks[:] = undecided
        return not undecided

    async def _commit(self, asks: list[Ask]) -> Decision | None:
        """Decide and commit. None: it conflicted, and must be decided again.

        Those of ``asks`` that are answered are taken out, in the moment in which they are.
        """
        commands = [ask.command for ask in asks]
        for _ in range(ISOLATIONS_MAX):
            decision = decide(self.state, commands, self._clock.now(), self._config.limits)
            decision_id = random.getrandbits(63) | 1
            writes = []
            if decision.writes or self._unsettled:
                has_guard = bool(self._mirror.guard_revision)
                writes = writes_of(
                    self._keys, self.pool, decision, decision_id, has_guard=has_guard
                )
            succeeded = partial(
                self._succeeded, asks, decision, writes, self._clock.monotonic()
            )
            try:
                committed = await self._send(asks, decision, writes, decision_id, succeeded)
            except LeaseNotFound:
                await self._set_dead_sessions_apart(decision)
                continue
            except StoreFull:
                await self._free_without_room(asks)
                raise
            except OutcomeUnknown:
                self._observer.outcome_unknown(self.pool)
                self._unsettled = True
                self.reset(await self._store.list(self._keys.seats(self.pool)))
                raise
            if not committed.succeeded:
                self._observer.conflicted(self.pool)
                await self._catch_up(committed)
                return None
            return decision
        raise OutcomeUnknown("sessions end faster than they can be set apart")

    async def _send(
        self,
        asks: list[Ask],
        decision: Decision,
        writes: list[Write],
        decision_id: int,
        succeeded: Callable[[Committed], None],
    ) -> Committed:
        """Commit a decision if nobody has decided since the view that it was made on."""
        guard, spec = self._keys.guard(self.pool), self._keys.pool(self.pool)
        flight = self._flight = Flight(
            self._store.commit(
                writes,
                only_if=(
                    Unchanged(guard, self._mirror.guard_revision),
                    Unchanged(spec, self._spec_revision),
                ),
                else_read=(guard, spec),
            ),
            decision_id,
            succeeded,
        )
        if decision.grants:
            _call_after(TURNS_UNTIL_SENT, partial(self._foretell, asks, decision))
        try:
            return await flight.landed
        finally:
            self._flight = None

    def _foretell(self, asks: list[Ask], decision: Decision) -> None:
        """Let the listeners of likely grants get ready for them."""
        listeners = {(a.command.grant_id, a.command.session_id): a.listener for a in asks}
        for grant in decision.grants:
            listener = listeners.get((grant.grant_id, grant.session_id))
            listener = listener or self.audience.listener(grant.grant_id)
            if listener is not None:
                listener.expect(self.pool, grant)

    async def _free_without_room(self, asks: list[Ask]) -> None:
        """Do what a full store still lets us: give seats and places up, and refuse the rest.

        Deleting a grant without moving the guard is what the end of a lease does: it only frees
        seats, so a decision made on the fuller view stays safe. No mark is left; while the store is
        full nothing is granted, so no late duplicate is either.
        """
        ending = {
            ask.command.grant_id: ask
            for ask in asks
            if isinstance(ask.command, Release) and self._is_theirs(ask.command)
        }
        if ending:
            deletes = deletes_of(self._keys, self.pool, ending)
            committed = await self._store.commit(deletes)
            touched = self._mirror.committed(deletes, committed.revision)
            for ask in ending.values():
                self.state.finished.add(ask.command.session_id, ask.command.grant_id)
                ask.listener.hear(self.pool, Released(ask.command.grant_id))
            asks[:] = [ask for ask in asks if ask.command.grant_id not in ending]
            self._changed(touched)
        message = (
            "the store is full: seats can be given back, none can be granted until an operator"
        )
        for ask in asks:
            denied = Denied(
                ask.command.grant_id,
                Refusal.UNAVAILABLE,
                f"{message} frees space",
                timedelta(seconds=random.uniform(*RETRY_AFTER_SECONDS)),
            )
            ask.listener.hear(self.pool, denied)
        asks.clear()

    def _is_theirs(self, command: Release) -> bool:
        grant_id = command.grant_id
        found = self.state.grants.get(grant_id) or self.state.tickets.get(grant_id)
        return found is not None and found.session_id == command.session_id

    async def _set_dead_sessions_apart(self, decision: Decision) -> None:
        """Find the sessions of a refused transaction whose lease has ended."""
        leases = {g.session_id: g.lease_id for g in decision.grants}
        leases |= {t.session_id: t.lease_id for t in decision.tickets}
        leases |= {session_id: mark.lease_id for session_id, mark in decision.marks.items()}
        remaining = await asyncio.gather(
            *(self._store.lease_remaining(lease) for lease in leases.values())
        )
        for session_id, left in zip(leases, remaining, strict=True):
            if left is None:
                self._observer.dead_session(self.pool)
                self.state.dead_sessions.add(session_id)

    async def _catch_up(self, committed: Committed) -> None:
        """After a conflict, wait until the view has what the other node decided."""
        guard = committed.read.get(self._keys.guard(self.pool))
        spec = committed.read.get(self._keys.pool(self.pool))
        if (spec.mod_revision if spec else 0) != self._spec_revision:
            await self._specs.refresh(self.pool)
            self._read_spec()
        target = guard.mod_revision if guard else 0
        try:
            async with asyncio.timeout(self._config.catch_up_timeout.total_seconds()):
                while self._mirror.guard_revision < target:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            self._observer.relisted(self.pool, "the watch is behind")
        if self._mirror.guard_revision < target or not target:
            self.reset(await self._store.list(self._keys.seats(self.pool)))
        self._wake.set()

    # Delivering -----------------------------------------------------------------------------

    def _succeeded(
        self,
        asks: list[Ask],
        decision: Decision,
        writes: list[Write],
        sent_at: float,
        committed: Committed,
    ) -> None:
        """Take in what was committed, and tell everybody."""
        self._pause = RETRY_PAUSE_MIN
        self._unsettled = False
        listeners = {id(ask.command): ask.listener for ask in asks}
        for command, outcome in decision.outcomes:
            listener = listeners[id(command)]
            if isinstance(listener, PassedOn):
                listener.decided(outcome, committed.revision)
            elif isinstance(outcome, Granted | Queued):
                self.audience.attach(command.grant_id, command.session_id, listener)
        touched = self._mirror.committed(writes, committed.revision)
        touched.update(command.grant_id for command, _ in decision.outcomes)
        self._changed(touched)
        for command, outcome in decision.outcomes:
            listener = listeners[id(command)]
            if not isinstance(outcome, Granted | Queued) and not isinstance(listener, PassedOn):
                listener.hear(self.pool, outcome)
        self._observe(asks, decision, len(writes), self._clock.monotonic() - sent_at)
        deferred = set(map(id, decision.deferred))
        asks[:] = [ask for ask in asks if id(ask.command) in deferred]

    def _observe(
        self, asks: list[Ask], decision: Decision, writes: int, seconds: float
    ) -> None:
        commands = len(asks) - len(decision.deferred)
        self._observer.committed(self.pool, commands=commands, writes=writes, seconds=seconds)
        for grant in decision.grants:
            self._observer.granted(self.pool, waited_millis=grant.granted_at - grant.asked_at)
        for _, outcome in decision.outcomes:
            if isinstance(outcome, Denied):
                self._observer.denied(self.pool, outcome.reason.name)

    async def _tell_positions_forever(self) -> None:
        while True:
            await asyncio.sleep(self._config.position_interval.total_seconds())
            if self._positions_changed:
                self._positions_changed = False
                more = self.audience.review_positions(self.state, self.holds)
                self._positions_changed = self._positions_changed or more
                spec = self.state.spec
                self._observer.pool_changed(
                    self.pool,
                    capacity=spec.seats if spec else 0,
                    held=self.state.held,
                    queued=len(self.state.tickets),
                )

    # Waking up ------------------------------------------------------------------------------

    def _can_serve(self) -> bool:
        head = self.state.head()
        return head is not None and head.seats <= self.state.free

    def _is_due(self, now: int) -> bool:
        deadline = self.state.next_deadline()
        return deadline is not None and deadline <= now

    @property
    def _is_ours(self) -> bool:
        """Whether this node should be the first to decide what nobody asks for."""
        if self._passing is not None:
            return self._owner_elsewhere is None
        head = self.state.head()
        return head is not None and self.audience.waits_here(head.grant_id)

    def _wake_to_serve(self) -> None:
        if self._is_ours:
            self._wake.set()
        else:
            self._wake_in(random.uniform(*BYSTANDER_DELAY))

    def _set_timer(self) -> None:
        if (deadline := self.state.next_deadline()) is not None:
            delay = min(max(deadline - self._clock.now(), 1) / 1000, TIMER_MAX)
            if self._owner_elsewhere is not None:
                delay += random.uniform(*BYSTANDER_DELAY)
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
        logger.warning(
            "the store failed a pool", extra={"pool": self.pool, "error": str(error)}
        )
        await self._rest()

    async def _rest(self) -> None:
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))
        self._pause = min(2 * self._pause, RETRY_PAUSE_MAX)
        self._wake.set()

    def _expire_asks(self) -> None:
        self._give_up(self._inbox.take_late(), "the store did not answer in time")

    def _give_up(self, asks: list[Ask], why: str) -> None:
        for ask in asks:
            message = f"{why}; the outcome is unknown: send the same request again"
            retry = timedelta(seconds=1)
            denied = Denied(ask.command.grant_id, Refusal.UNAVAILABLE, message, retry)
            ask.listener.hear(self.pool, denied)


def _overloaded(command: Command, why: str) -> Denied:
    # Not all at the same moment again.
    retry_after = random.uniform(*RETRY_AFTER_SECONDS)
    return Denied(
        command.grant_id,
        Refusal.OVERLOADED,
        f"{why}; try again later",
        timedelta(seconds=retry_after),
    )


def _call_after(turns: int, call: Callable[[], None]) -> None:
    """Call ``call`` after so many turns of the event loop."""
    loop = asyncio.get_running_loop()
    if turns > 0:
        loop.call_soon(_call_after, turns - 1, call)
    else:
        call()


def _is_passed(ask: Ask) -> bool:
    return isinstance(ask.listener, PassedOn)
