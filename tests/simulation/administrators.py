"""An administrator who moves requests, takes them out and frees seats; and what it is held to.

Draws of its own, so that what happens in seeds without one stays as it is.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import groupby

from tests.simulation.cluster import KEYS
from tests.simulation.holds import SAYS_SHARE, HoldAct, say
from tests.simulation.moves import FIRST, LAST, MoveAct

from seatkeeper.chaos.users import User
from seatkeeper.client import ClientConfig, SeatError
from seatkeeper.oracle.reclaims import read_called_back
from seatkeeper.oracle.record import Believed
from seatkeeper.oracle.stored import located, read_grant, read_ticket
from seatkeeper.server.events.facts import decode_facts
from seatkeeper.server.store import Change
from seatkeeper.v1 import pool_service_pb2 as pb

CALL_SECONDS = 4
MOVES_SHARE = 0.6
"""Share of the looks at a pool in which something waits after which a request is moved."""
MERCY = 0.5
"""Share of the looks at a pool after which nothing is done."""


@dataclass(frozen=True, slots=True)
class Act:
    """Something that an administrator asked for."""

    pool: str
    grant_id: str
    fence: int
    """The grant's; 0: a ticket was to be taken out."""
    done_at: float | None = None
    """When the service said that it is done; None: it did not say so."""


class Administrator(User):
    """Looks at pools, and ends what others wait for and hold."""

    def _set_up(self) -> None:
        timeout = timedelta(seconds=CALL_SECONDS)
        self._client = self.surroundings.client(ClientConfig(call_timeout=timeout))
        self.acts: list[Act] = []
        self.moves: list[MoveAct] = []
        self.holds: list[HoldAct] = []
        self._hold_rng = random.Random(f"holds of {self.name}, {self._rng.random()}")
        self._move_ids = 0

    async def _cycle(self) -> None:
        name, _ = self._rng.choice(self._pools)
        try:
            pool = await self._client.pools.get(name)
            if pool.grants and self._hold_rng.random() < SAYS_SHARE:
                grant = self._hold_rng.choice(list(pool.grants))
                now = self.surroundings.now()
                self.user_record.operations += 1
                what = await say(self._client, name, grant, self._hold_rng, now, self.holds)
                self.surroundings.note(f"{self.name}: {what}")
                return
            if len(pool.tickets) > 1 and self._rng.random() < MOVES_SHARE:
                await self._move_one(pool)
                return
            chosen = self._rng.choice([*pool.tickets, *pool.grants, None])
            if chosen is None or self._rng.random() < MERCY:
                return
            await self._end_it(name, chosen)
        except SeatError as error:
            self.surroundings.note(f"{self.name}: failed: {type(error).__name__} {error}")

    async def _move_one(self, pool: pb.Pool) -> None:
        """Move a request; sometimes the same move is sent again, as after a lost answer."""
        chosen, other = self._rng.sample(list(pool.tickets), 2)
        to = self._rng.choice([FIRST, LAST, other.grant_id, other.grant_id])
        self._move_ids += 1
        move_id = f"00000000-0000-7000-8000-{self._rng.getrandbits(32):08x}{self._move_ids:04x}"
        name, now = pool.spec.name, self.surroundings.now()
        act = MoveAct(name, chosen.grant_id, to, move_id, now)
        self.moves.append(act)
        self.user_record.operations += 1
        for _ in range(self._rng.choice([1, 1, 2])):
            await self._client.pools.move(
                *(name, act.grant_id),
                reason="drawn",
                before=to if to not in {FIRST, LAST} else "",
                first=to == FIRST,
                last=to == LAST,
                move_id=move_id,
            )
            self.moves[-1] = replace(
                act, done_at=self.moves[-1].done_at or self.surroundings.now()
            )
        self.surroundings.note(f"{self.name}: moved {act.grant_id} of {name} to {to}")

    async def _end_it(self, pool: str, chosen: pb.QueuedTicket | pb.HeldGrant) -> None:
        fence = chosen.fence if isinstance(chosen, pb.HeldGrant) else 0
        act = Act(pool, chosen.grant_id, fence)
        self.acts.append(act)
        pools, reason = self._client.pools, "drawn"
        self.user_record.operations += 1
        if fence:
            await pools.release_now(pool, act.grant_id, reason=reason, fence=fence)
        else:
            await pools.remove(pool, act.grant_id, reason=reason)
        self.surroundings.note(f"{self.name}: ended {act.grant_id} of {pool}")
        self.acts[-1] = replace(act, done_at=self.surroundings.now())

    async def _end(self) -> None:
        await self._client.close()


@dataclass(frozen=True, slots=True)
class Taken:
    """A grant that the history says was ended by force."""

    pool: str
    grant_id: str
    fence: int
    at: float
    by_holder: bool = False
    """Its holder took the seats over in another session."""


def taken_by_force(changes: Iterable[Change], changed_at: Mapping[int, float]) -> list[Taken]:
    """Return the grants whose fences decisions say they ended by force, without notice."""
    granted: dict[tuple[str, int], str] = {}
    there: set[tuple[str, str]] = set()
    found: list[Taken] = []
    for revision, together in groupby(changes, key=lambda change: change.revision):
        taken: list[Taken] = []
        called_back: set[str] = set()
        # One whose session had ended by then, which the decision did not know, was taken from none.
        before = there.copy()
        for pool, kind, name, change in located(together, KEYS.prefix):
            if change.entry is None:
                if kind == "grants":
                    there.discard((pool, name))
                continue
            if kind == "grants":
                there.add((pool, name))
                granted[pool, read_grant(name, change.entry.value).fence] = name
            elif kind == "marks":
                called_back |= read_called_back(change.entry.value)
            elif kind == "guard":
                at = changed_at[revision]
                facts = decode_facts(change.entry.value)
                moved = facts.taken_over
                taken += [
                    Taken(pool, granted[pool, f], f, at, by_holder=f in moved)
                    for f in facts.reclaimed
                    if (pool, granted[pool, f]) in before
                ]
        found += [each for each in taken if each.grant_id not in called_back]
    return found


def check_acts(
    changes: list[Change], changed_at: Mapping[int, float], acts: Iterable[Act]
) -> Iterator[str]:
    """Yield what was ended and not asked for, and what was said to be done and was not (I13)."""
    acts = list(acts)
    asked = {(act.pool, act.grant_id, act.fence) for act in acts}
    for taken in taken_by_force(changes, changed_at):
        is_asked = taken.by_holder or (taken.pool, taken.grant_id, taken.fence) in asked
        if not is_asked:
            yield f"I13 {taken} was asked for by no administrator"
    for act in acts:
        if act.done_at is None:
            continue
        there = {"grants": False, "queue": False}
        sessions: set[str] = set()
        for pool, kind, name, change in located(changes, KEYS.prefix):
            if pool != act.pool or name != act.grant_id or kind not in there:
                continue
            if changed_at[change.revision] <= act.done_at:
                there[kind] = change.entry is not None
                sessions |= _session_of(change)
            elif _session_of(change) & sessions:  # one that was lost may ask again in another
                yield f"I13 {act} came back at revision {change.revision}"
        if any(there.values()):
            yield f"I13 {act} was there still"


def _session_of(change: Change) -> set[str]:
    """Return the session of what was written; empty: it was deleted."""
    if change.entry is None:
        return set()
    read = read_ticket if "/queue/" in change.key else read_grant
    return {read("", change.entry.value).session_id}


def as_far_as_promised(
    beliefs: Iterable[Believed], taken: Iterable[Taken]
) -> Iterator[Believed]:
    """Yield beliefs without what is waived: that in seats which were freed by force since."""
    freed = {(each.pool, each.grant_id): each.at for each in taken}
    for belief in beliefs:
        at = freed.get((belief.pool, belief.grant_id))
        yield belief if at is None or belief.until <= at else replace(belief, until=at)
