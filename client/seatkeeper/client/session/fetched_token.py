"""A token for a grant that was taken without one, asked for until a node can sign it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from seatkeeper.core.errors import ServiceUnavailable
from seatkeeper.v1 import seat_service_pb2 as pb

PAUSE = 0.2
"""Seconds before a node that answered without a token is asked again."""


async def fetched_token(
    renewed: Callable[[], Awaitable[pb.Renewed]],
    grant: pb.GrantRef,
    within: timedelta,
    check: Callable[[], None],
) -> str:
    """Return a token for a grant, from the answers to renewals that ask for it.

    A node answers without one where it cannot read the grant in time, as while etcd elects a leader:
    then it is asked again, for as long as ``within``. ``check`` raises once there is nothing to ask
    for. Raises `ServiceUnavailable`, and what ``renewed`` raises.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + within.total_seconds()
    while True:
        for refresh in (await renewed()).tokens:
            if refresh.grant.grant_id == grant.grant_id:
                return refresh.token
        check()
        if (left := end - loop.time()) <= 0:
            raise ServiceUnavailable(
                "no token: the node could not read the grant in time, or there is none; try again"
            )
        await asyncio.sleep(min(left, PAUSE))
