"""Grants held for too long, or revoked, in simulation: drawn for some seeds, and checked in all.

Draws of its own, so that what else happens in seeds without them stays as it is.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from tests.simulation.cluster import KEYS

from seatkeeper.client import AsyncSeatClient
from seatkeeper.core.hold import HoldRule
from seatkeeper.oracle.holds import read_said
from seatkeeper.oracle.stored import located, read_grant
from seatkeeper.server.store import Change
from seatkeeper.v1 import pool_service_pb2 as pb

HOLDS_SHARE = 1 / 3
"""Share of the seeds in which pools have a longest hold."""
SAYS_SHARE = 0.4
"""Share of the looks at a held grant after which an administrator says something of it."""


def holds_of(seed: int) -> random.Random | None:
    """Return what draws the longest holds of a seed's pools; None: they have none."""
    own = random.Random(f"holds of {seed}")
    return own if own.random() < HOLDS_SHARE else None


def drawn_hold(own: random.Random) -> HoldRule:
    """Draw a rule that some holders of a seed come under."""
    warning = timedelta(seconds=own.choice([1.0, 2.0, 3.0]))
    longest = warning + timedelta(seconds=own.choice([0.5, 4.0, 8.0, 16.0]))
    return HoldRule(warning, longest=max(longest, timedelta(seconds=2)))


@dataclass(frozen=True, slots=True)
class HoldAct:
    """Something that an administrator says of a grant."""

    pool: str
    grant_id: str
    asked_at: float
    reason: str = ""
    """Of a revoke; empty: it was withdrawn, or the grant was extended."""
    extended_millis: int = 0


async def say(
    client: AsyncSeatClient,
    pool: str,
    grant: pb.HeldGrant,
    rng: random.Random,
    now: float,
    acts: list[HoldAct],
) -> str:
    """Say something of a grant, and return what; sometimes twice, as after a lost answer."""
    kind, grant_id = rng.choice(["revoke", "revoke", "withdraw", "extend"]), grant.grant_id
    reason = f"drawn {len(acts)}"
    seen = grant.hold.extended.ToTimedelta()
    by = timedelta(seconds=rng.choice([1, 5, 20]))
    act = HoldAct(pool, grant_id, now, reason if kind == "revoke" else "")
    if kind == "extend":
        added = (seen + by) // timedelta(milliseconds=1)
        act = HoldAct(pool, grant_id, now, extended_millis=added)
    acts.append(act)
    notice = timedelta(seconds=rng.choice([1, 2, 4]))
    for _ in range(rng.choice([1, 1, 2])):
        if kind == "revoke":
            await client.pools.revoke(pool, grant_id, notice=notice, reason=reason)
        elif kind == "withdraw":
            await client.pools.withdraw_revoke(pool, grant_id, reason=reason)
        else:
            await client.pools.extend(pool, grant_id, by=by, seen=seen, reason=reason)
    return f"{kind} {grant_id} of {pool}"


def check_holds(
    changes: Iterable[Change], changed_at: Mapping[int, float], acts: Iterable[HoldAct]
) -> Iterator[str]:
    """Yield what is said of grants in the history, and no administrator said (I15)."""
    acts = list(acts)
    changes = list(changes)
    before = _taken_over(changes)
    for pool, kind, _, change in located(changes, KEYS.prefix):
        if kind != "guard" or change.entry is None:
            continue
        said, at = read_said(change.entry.value), changed_at[change.revision]
        for grant_id, revoke in said.revokes.items():
            wanted = (pool, grant_id, revoke.reason)
            if not any(
                (act.pool, act.grant_id, act.reason) == wanted and act.asked_at <= at
                for act in acts
            ):
                yield f"I15 {grant_id} of {pool} is revoked, and no administrator asked for it"
        for grant_id, millis in said.extended_millis.items():
            if not any(
                (act.pool, act.extended_millis) == (pool, millis)
                and act.grant_id in before.get((pool, grant_id), {grant_id})
                for act in acts
            ):
                yield f"I15 {grant_id} of {pool} is extended by {millis} ms, for no administrator"


def _taken_over(changes: Iterable[Change]) -> dict[tuple[str, str], set[str]]:
    """Return of each grant that goes on from another its id and those before it: what is said stays."""
    ids: dict[tuple[str, int], str] = {}
    found: dict[tuple[str, str], set[str]] = {}
    for pool, kind, name, change in located(changes, KEYS.prefix):
        if kind != "grants" or change.entry is None:
            continue
        grant = read_grant(name, change.entry.value)
        ids[pool, grant.fence] = name
        if (old := ids.get((pool, grant.continues))) is not None:
            found[pool, name] = {name, *found.get((pool, old), {old})}
    return found
