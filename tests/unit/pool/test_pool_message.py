"""What clients are shown of a pool: what projects have used, for a simulator that goes on from it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from seatkeeper.server.decide import HoldStats, forecast
from seatkeeper.server.domain import (
    Guard,
    Instant,
    PoolPolicy,
    PoolSpec,
    PoolState,
    ProjectShare,
)
from seatkeeper.server.domain.state import Usage
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.snapshot import PoolSnapshot
from seatkeeper.server.pool.admin import PoolView
from seatkeeper.server.pool.messages import pool_message
from seatkeeper.v1 import pool_service_pb2

SHARES = (ProjectShare(project="a"), ProjectShare(project="b"))


def shown(policy: PoolPolicy, guard: Guard) -> pool_service_pb2.Pool:
    spec = PoolSpec("pool", 1, policy=policy)
    state = PoolState(spec=spec, guard=guard)
    view = PoolView(spec, 1, state)
    plan = BY_POOL.plan(PoolSnapshot.of(state), Instant(9))
    return pool_message(view, forecast(state, plan, HoldStats(), Instant(9)), "")


@pytest.mark.parametrize("half_life", [None, timedelta(hours=1)])
def test_usage_is_shown_where_the_pool_looks_at_it(half_life: timedelta | None) -> None:
    guard = Guard(usage=Usage(Instant(7_000), {"a": 5_000}))
    message = shown(PoolPolicy(SHARES, half_life), guard)
    assert message.HasField("usage_at") == (half_life is not None)
    assert [each.used_seat_millis for each in message.projects] == [
        5_000 if half_life else 0,
        0,
    ]
    assert not shown(PoolPolicy(SHARES, half_life), Guard()).HasField("usage_at")
