"""Pools with a policy each, and who uses them: for scenarios whose users are ``policy``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from tests.chaos.service import NODES

from seatkeeper.chaos.target import HABITS
from seatkeeper.chaos.worker import PROJECTS, Member
from seatkeeper.client import AsyncSeatClient
from seatkeeper.client.admin.borrows import parse_borrow
from seatkeeper.client.admin.projects import parse_overtaking, parse_project
from seatkeeper.client.admin.reclaims import parse_reclaim
from seatkeeper.client.admin.stays import parse_stay
from seatkeeper.core.lot_messages import encode_lot
from seatkeeper.core.lots import Lot
from seatkeeper.core.ring import Ring

LENT, BURST, KEPT, BORROW, WINDOW = "lent", "burst", "kept", "borrow", "window"
BURST_SEATS = 2
POLICY_HABITS = replace(
    HABITS,
    holds=(0.1, 0.3, 1.0, 2.0),
    waits=(0.0, 0.5, 5.0, 5.0),
    ttls=(2.0, 3.0),
    wait_max=5.0,
)
"""Nothing is called back for one that would not wait until its holder has to know, and the notice."""
SETTLING_SECONDS = 12.0
"""A borrowed seat's day and skew, and what is kept after a loss, are over by then."""


def owned_by(kind: str, node: str) -> str:
    """Return the first name of a kind of pools that a node decides for, when all are there."""
    ring = Ring(1, {f"node-{number}": "" for number in range(1, NODES + 1)})
    names = (f"{kind}-{number}" for number in count(1))
    return next(name for name in names if ring.owner(name) == node)


GANG = tuple(owned_by("gang", f"node-{number}") for number in range(1, NODES + 1))
"""Pools of gangs, each of which another node decides for."""
EITHER = tuple(owned_by("either", f"node-{number}") for number in (1, 2))


@dataclass(frozen=True)
class PolicyPool:
    """A pool of its own for a rule."""

    seats: int
    said: Mapping[str, Any] = field(default_factory=dict)
    most: int = 0
    """Seats beyond those that it may have for a time."""


POOLS = {
    LENT: PolicyPool(
        4,
        {
            "projects": [parse_project(f"{name}:guaranteed=2") for name in PROJECTS],
            "reclaim": parse_reclaim("notice=1,minimum_hold=1,hourly=1000"),
        },
    ),
    BURST: PolicyPool(
        0, {"lots": [encode_lot(Lot(name="contract", seats=2))]}, most=2 + BURST_SEATS
    ),
    **{
        name: PolicyPool(2, {"overtaking": parse_overtaking("seats=4,within=2,hold_back=2")})
        for name in GANG
    },
    **{name: PolicyPool(1) for name in EITHER},
    KEPT: PolicyPool(3, {"stay": parse_stay("linger=1,resurrection=5,lock_delay=2")}),
    BORROW: PolicyPool(3, {"borrow": parse_borrow("longest=6,skew=0.5")}),
    WINDOW: PolicyPool(3),
}
MOST = {name: pool.seats + pool.most for name, pool in POOLS.items()}
"""Seats that may be in use at once, of each."""


def _of(*names: str) -> Sequence[tuple[str, int]]:
    return [(name, POOLS[name].seats or 2) for name in names]


MIX: Sequence[Member] = (
    Member("hoarder", _of(LENT), PROJECTS[0]),
    Member("hoarder", _of(LENT), PROJECTS[0]),
    # Each comes now and then: what is guaranteed is lent meanwhile, and called back.
    Member("library", _of(LENT), PROJECTS[1], pause=3.0),
    Member("library", _of(LENT), PROJECTS[1], pause=3.0),
    Member("stub", _of(BURST), PROJECTS[1]),
    Member("library", _of(BURST, WINDOW)),
    Member("stub", _of(WINDOW, KEPT, BORROW)),
    Member("ganger", _of(*GANG)),
    Member("ganger", _of(*GANG)),
    Member("library", _of(*GANG)),
    Member("chooser", _of(*EITHER)),
    Member("chooser", _of(*EITHER)),
    Member("again", _of(KEPT)),
    Member("returner", _of(KEPT)),
    Member("borrower", _of(BORROW)),
)
"""Those of one process."""


async def make(admin: AsyncSeatClient) -> None:
    """Make the pools."""
    for name, pool in POOLS.items():
        await admin.pools.create(name, seats=pool.seats, **pool.said)
