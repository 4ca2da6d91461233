"""Granting gangs: seats of several pools, all in one transaction, or one of several alternatives.

Theory of operation
-------------------
The requests of a gang are ordinary ones, one for each pool: each has its ticket, its wait, its place,
and is cancelled, denied and lost as any other. Only one thing sets them apart: no decision of one pool
grants them (``PoolSnapshot.stands_apart``). They are granted here, when the policy of each pool would
serve the member that waits there: by one decision for each pool, and one transaction of all of their
writes, which compares the guard and the specification of every pool. So it is all or nothing at any
revision, whatever any node does meanwhile: a member that was cancelled has moved its pool's guard.

A gang that waits holds nothing, so gangs cannot wait for one another.

Requests for one pool alone pass a gang meanwhile. Where its pools say so, seats are kept free for one
that has waited for long, in all of those pools from one moment on, and for a bounded time
(``keeping``, ``policy.keeping_free``).

Alternatives are granted here as well: seats of one of several pools, in the order of preference, each
from so long on after it was asked for. Where the policy of a pool would serve its member, one decision
grants that, one for each other pool takes its member out of the queue, and one transaction writes them
all. So there is one grant at most, whichever nodes see to it at the same time.

The owner of the gang's first pool, by name, sees to it, and follows all of the gang's pools. Other
nodes that follow the first pool do so a little later, so it does not depend on one of them. What others
decide in the same moment makes the transaction fail, and it is tried again after a pause of random
length, which grows.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import TypeAlias

from seatkeeper.server.decide.counting import counts_only
from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.domain.commands import KeepFree, Withdraw
from seatkeeper.server.domain.gang import Gang, is_choice
from seatkeeper.server.domain.state import Instant
from seatkeeper.server.events import log as events
from seatkeeper.server.pool.gang_part import GangPart
from seatkeeper.server.pool.keeping import due_at, keeping_at
from seatkeeper.server.pool.loop import PoolLoop
from seatkeeper.server.store import (
    OPERATIONS_MAX,
    LeaseNotFound,
    OutcomeUnknown,
    Store,
    StoreError,
)
from seatkeeper.server.store.formats import RecordUnreadable

logger = logging.getLogger(__name__)

DECIDED_MAX = 32
"""Gangs whose seats are free that are decided on without a pause of ``LOOK_INTERVAL``."""
LOOKED_AT = 64
"""Gangs that are looked at without a turn of the event loop."""
LOOK_INTERVAL = 0.02
"""Seconds between two looks, at least."""
LOOK_MAX = 10.0
"""Seconds between two looks while nothing changes: a policy may serve more as time passes."""
TAKEOVER_DELAY = (0.2, 0.5)
"""Seconds by which a node looks later that does not own the first pool."""
PAUSE_MIN, PAUSE_MAX = 0.005, 1.0
"""Seconds until it is tried again after others decided in the same moment, or the store failed."""


Loops: TypeAlias = dict[str, PoolLoop]
"""By pool."""


class GangKeeper:
    """Grants the gangs whose first pools this node follows."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        loop_of: Callable[[str], Awaitable[PoolLoop | None]],
        is_elsewhere: Callable[[str], bool],
    ) -> None:
        """Grant nothing yet. ``loop_of`` follows a pool; ``is_elsewhere``: another node owns it."""
        self._store = store
        self._clock = clock
        self._loop_of = loop_of
        self._is_elsewhere = is_elsewhere
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def noticed(self, pool: str) -> None:
        """Notice that a gang waits in a pool, and what has changed there."""
        task = self._tasks.get(pool)
        if task is None or task.done():
            self._tasks[pool] = asyncio.create_task(self._run(pool))

    async def stop(self) -> None:
        """Stop."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, pool: str) -> None:
        while True:
            try:
                await self._serve(pool)
                return
            except Exception:
                logger.exception("gangs_failed", extra={"pool": pool})
                await asyncio.sleep(PAUSE_MAX * random.random())

    async def _serve(self, pool: str) -> None:
        """Grant the gangs whose first pool this is, as long as there are any."""
        changed = asyncio.Event()
        pause = PAUSE_MIN
        while True:
            if self._is_elsewhere(pool):
                await asyncio.sleep(random.uniform(*TAKEOVER_DELAY))
            changed.clear()
            with ExitStack() as following:
                loops = await self._follow(pool, changed, following)
                gangs = _gangs_of(loops[pool]) if pool in loops else []
                if not gangs:
                    return
                began = self._clock.now()
                is_settled = await self._look(gangs, loops) and await self._keep(gangs, loops)
                await asyncio.sleep(LOOK_INTERVAL if is_settled else pause * random.random())
                pause = PAUSE_MIN if is_settled else min(2 * pause, PAUSE_MAX)
                if is_settled:
                    with suppress(TimeoutError):
                        # What became due during the look was not looked at.
                        passed = (self._clock.now() - began) / 1000
                        left = _next_after(gangs, loops, began) - passed
                        async with asyncio.timeout(max(0.0, left)):
                            await changed.wait()

    async def _follow(self, pool: str, changed: asyncio.Event, following: ExitStack) -> Loops:
        """Follow a pool, and all that its gangs want seats of; ``changed`` is set when one changes."""
        loops: Loops = {}
        wanted = [pool]
        while wanted:
            name = wanted.pop()
            if name in loops or (loop := await self._loop_of(name)) is None:
                continue
            loops[name] = loop
            following.enter_context(loop.following(changed))
            await loop.listed()
            if name == pool:
                wanted += {each.pool for gang in _gangs_of(loop) for each in gang}
        return loops

    async def _look(self, gangs: Sequence[Gang], loops: Loops) -> bool:
        """Grant what can be granted; return whether it is known what has become of it."""
        decided = 0
        for place, gang in enumerate(gangs):
            if place % LOOKED_AT == 0:
                await asyncio.sleep(0)
            if not _may_fit(gang, loops):
                continue
            if decided == DECIDED_MAX:
                decided = 0
                await asyncio.sleep(LOOK_INTERVAL)
            decided += 1
            try:
                if not await self._try(gang, loops):
                    return False
            except RecordUnreadable:
                continue  # a node that understands its pools grants it
            except StoreError as error:
                logger.warning("gang_not_granted", extra={"error": str(error)})
                return False
        return True

    async def _keep(self, gangs: Sequence[Gang], loops: Loops) -> bool:
        """Keep seats free for those that have waited for long; return as ``_look`` does."""
        for gang in gangs:
            keeping = keeping_at(gang, loops, self._clock.now())
            if keeping is None or keeping.at > self._clock.now() or not _is_helped(gang, loops):
                continue
            until = Instant(self._clock.now() + keeping.millis)
            decision_id = random.getrandbits(63) | 1
            writes_max = OPERATIONS_MAX // len(keeping.tickets) - 1
            found = [loops[pool] for pool in keeping.tickets]
            try:
                for loop in found:
                    await loop.gang_parts.get_ready()
                parts = [
                    loop.gang_parts.keep_free(
                        KeepFree(ticket.grant_id, ticket.session_id, until),
                        *(decision_id, writes_max),
                    )
                    for loop, ticket in zip(found, keeping.tickets.values(), strict=True)
                ]
                made = [part for part in parts if part is not None]
                if len(made) < len(parts):
                    continue
                if not await self._commit(found, made):
                    return False
                events.happened("seats_kept_free", pools=list(keeping.tickets))
            except RecordUnreadable:
                continue
            except StoreError as error:
                logger.warning("gang_not_granted", extra={"error": str(error)})
                return False
        return True

    async def _try(self, gang: Gang, loops: Loops) -> bool:
        """Grant a gang if it can be; False: it could, and others decided in the same moment."""
        found = [loops[each.pool] for each in gang]
        for loop in found:
            await loop.gang_parts.get_ready()
        parts = (
            _parts_of_one(gang, found, now=self._clock.now())
            if is_choice(gang)
            else _parts(gang, found)
        )
        if parts is None:
            return True
        pools = [loop.pool for loop in found]
        if not await self._commit(found, parts):
            return False
        if is_choice(gang):
            events.happened("alternative_granted", logging.DEBUG, pools=pools)
        else:
            events.happened("gang_granted", logging.DEBUG, pools=pools)
        return True

    async def _commit(self, found: list[PoolLoop], parts: list[GangPart]) -> bool:
        """Commit the parts, one for each pool; False: they have no effect, or it is not known."""
        each = list(zip(found, parts, strict=True))
        for loop, part in each:
            loop.gang_parts.sent(part)
        for_lease = False
        try:
            committed = await self._store.commit(
                [write for part in parts for write in part.writes],
                only_if=[unchanged for part in parts for unchanged in part.only_if],
            )
            if committed.succeeded:
                await _seen(found, committed.revision)
                return True
        except OutcomeUnknown:
            return False  # the watch says what has become of it
        except LeaseNotFound:
            for_lease = True
        except StoreError:
            for loop, part in each:
                await loop.gang_parts.failed(part, for_lease=False)
            raise
        for loop, part in each:
            await loop.gang_parts.failed(part, for_lease=for_lease)
        return False


def _gangs_of(loop: PoolLoop) -> list[Gang]:
    """Return the gangs whose first pool this is, the next one first."""
    state = loop.state
    if not state.gangs:
        return []
    waiting = (ticket.gang for ticket in state.queue() if ticket.gang)
    return [gang for gang in waiting if gang[0].pool == loop.pool]


def _may_fit(gang: Gang, loops: Loops) -> bool:
    """Return whether each member is there, as it was said, and enough seats are free."""
    sessions, free = set(), []
    for member in gang:
        loop = loops.get(member.pool)
        ticket = loop.state.tickets.get(member.grant_id) if loop is not None else None
        if loop is None or ticket is None or ticket.gang != gang:
            return False
        free.append(loop.state.free >= ticket.seats or counts_only(loop.state.spec))
        sessions.add(ticket.session_id)
    return len(sessions) == 1 and (any(free) if is_choice(gang) else all(free))


def _parts(gang: Gang, loops: Iterable[PoolLoop]) -> list[GangPart] | None:
    """Decide for each pool; None: in one of them it is not the gang's turn."""
    decision_id = random.getrandbits(63) | 1
    writes_max = OPERATIONS_MAX // len(gang) - 1  # and the guard
    parts = []
    for member, loop in zip(gang, loops, strict=True):
        part = loop.gang_parts.decide(member.grant_id, decision_id, writes_max)
        if part is None:
            return None
        parts.append(part)
    return parts


def _parts_of_one(gang: Gang, loops: Sequence[PoolLoop], now: Instant) -> list[GangPart] | None:
    """Grant the first of several alternatives that its pool serves now; None: none does."""
    decision_id = random.getrandbits(63) | 1
    writes_max = OPERATIONS_MAX // len(gang) - 1
    for member, loop in zip(gang, loops, strict=True):
        ticket = loop.state.tickets.get(member.grant_id)
        if ticket is None or now < due_at(member, ticket):
            continue
        parts = []
        for each, other in zip(gang, loops, strict=True):
            if each is member:
                part = loop.gang_parts.decide(member.grant_id, decision_id, writes_max)
            else:
                leaves = Withdraw(each.grant_id, ticket.session_id, member.pool)
                part = other.gang_parts.withdraw(leaves, decision_id, writes_max)
            if part is None:
                break
            parts.append(part)
        if len(parts) == len(gang):
            return parts
    return None


def _is_helped(gang: Gang, loops: Loops) -> bool:
    """Return whether seats alone are wanting: of alternatives, for one of them."""
    helped = [
        loops[each.pool].gang_parts.is_helped(ticket)
        for each in gang
        if (ticket := loops[each.pool].state.tickets.get(each.grant_id)) is not None
    ]
    return any(helped) if is_choice(gang) else all(helped)


def _next_after(gangs: Iterable[Gang], loops: Loops, now: Instant) -> float:
    """Return after how many seconds time alone changes what is to be done; ``LOOK_MAX`` at most."""
    soonest = LOOK_MAX
    for gang in gangs:
        if (keeping := keeping_at(gang, loops, now)) is not None and keeping.at > now:
            soonest = min(soonest, (keeping.at - now) / 1000)
        for member in gang if is_choice(gang) else ():
            other = loops.get(member.pool)
            ticket = other.state.tickets.get(member.grant_id) if other is not None else None
            if ticket is not None and (at := due_at(member, ticket)) > now:
                soonest = min(soonest, (at - now) / 1000)
    return soonest


async def _seen(loops: Iterable[PoolLoop], revision: int) -> None:
    """Wait until the views have what was committed, or nothing comes: then it is looked again."""
    with suppress(TimeoutError):
        async with asyncio.timeout(PAUSE_MAX):
            for loop in loops:
                with loop.following() as changed:
                    while loop.gang_parts.complete_revision < revision:
                        changed.clear()
                        await changed.wait()
