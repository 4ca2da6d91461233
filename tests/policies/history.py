"""Replay what a store remembers of one pool, and hold each grant to the rule of its policy."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from itertools import groupby

from tests.policies.rules import Rule, Step

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.domain import Grant, PoolState, Ticket
from seatkeeper.server.pool.mirror import PoolMirror
from seatkeeper.server.store import Change, Listing, MemoryStore, WatchBatch, records
from seatkeeper.server.store.keys import Keys


def stored_pool(store: MemoryStore, keys: Keys, pool: str) -> tuple[PoolState, int]:
    """Return a pool as a store has it now, and the revision of the last change of it."""
    mirror = PoolMirror(keys, pool)
    entries = [
        entry for key, entry in store._entries.items() if key.startswith(keys.seats(pool))
    ]
    mirror.reset(Listing(tuple(entries), store._revision))
    spec = store._entries.get(keys.pool(pool))
    if spec is not None:
        mirror.state.spec = records.decode_spec(spec.value)
        entries.append(spec)
    return mirror.state, max((entry.mod_revision for entry in entries), default=0)


def broken_rules(
    changes: Iterable[Change], rule: Rule, keys: Keys, pool: str
) -> Iterator[tuple[int, str]]:
    """Yield the revisions at which a rule was broken, and how.

    ``changes``: all of the store, in order of revisions.
    """
    mirror = PoolMirror(keys, pool)
    grants, seats = keys.grant(pool, ""), keys.seats(pool)
    ended: list[tuple[int, Grant | Ticket]] = []
    for revision, together in groupby(changes, key=lambda change: change.revision):
        batch = tuple(together)
        for change in batch:
            if change.key == keys.pool(pool):
                spec = records.decode_spec(change.entry.value) if change.entry else None
                mirror.state.spec = spec
        own = tuple(change for change in batch if change.key.startswith(seats))
        made: list[Grant] = []
        for change in own:
            grant_id = change.key.removeprefix(grants)
            is_grant = change.key.startswith(grants) and change.entry is not None
            if is_grant and grant_id not in mirror.state.grants:
                assert change.entry is not None
                made.append(records.decode_grant(grant_id, change.entry.value))
        before = _copied(mirror.state) if made else mirror.state
        facts = _facts(own, keys.guard(pool))
        if facts is None:
            ended += [(revision, each) for each in _ended(own, mirror.state, keys, pool)]
        else:
            ended = [(at, each) for at, each in ended if at > facts.view_revision]
        mirror.apply(WatchBatch(own, revision))
        unseen = [each for _, each in ended]
        made.sort(key=lambda grant: grant.fence)
        has_refused = facts is not None and bool(facts.refused)
        step = Step(before, mirror.state, made, unseen, has_refused)
        for fault in rule.broken_by(step) if made else ():
            yield revision, fault


def _copied(state: PoolState) -> PoolState:
    """Return the state as it is now. What it is made of does not change, so both share that."""
    by_id = (state.grants, state.tickets, state.stays, state.kept)
    constant = [state.spec, state.guard, *(each for some in by_id for each in some.values())]
    return copy.deepcopy(state, {id(each): each for each in constant})


def _facts(batch: Iterable[Change], guard: str) -> state_pb2.DecisionFacts | None:
    """Return what a decision says of itself; None: none was made here."""
    for change in batch:
        if change.key == guard and change.entry is not None:
            record = state_pb2.GuardRecord.FromString(change.entry.value)
            return state_pb2.DecisionFacts.FromString(record.facts)
    return None


def _ended(
    batch: Iterable[Change], state: PoolState, keys: Keys, pool: str
) -> Iterator[Grant | Ticket]:
    for change in batch:
        grant_id = change.key.rpartition("/")[2]
        if change.entry is None and change.key == keys.grant(pool, grant_id):
            yield state.grants[grant_id]
        elif change.entry is None and change.key == keys.ticket(pool, grant_id):
            yield state.tickets[grant_id]
