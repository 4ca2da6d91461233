"""Looks at a running service from here, for `diagnose`: one node's report, then every address.

Changes nothing. What does not answer is an observation, not an error, with one exception: the first
node must answer, or there is nothing to say.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from seatkeeper.client.aio import AsyncSeatClient
from seatkeeper.client.diagnosis.diagnosis import Seen
from seatkeeper.core.errors import SeatError

REACH_SECONDS_MAX = 3.0
"""How long an address may take to answer from here."""


async def observe(
    client: AsyncSeatClient, given: Sequence[str], direct: Callable[[str], AsyncSeatClient]
) -> Seen:
    """Return what is seen of the service that ``client`` reaches.

    ``given``: the addresses that the user knows it by. ``direct`` returns a client of one node alone,
    which is used and closed here. Raises ``ServiceUnavailable`` when no node answers.
    """
    asked_at, began = datetime.now(UTC), time.monotonic()
    report = await client.cluster.report()
    took = timedelta(seconds=time.monotonic() - began)
    agents, pools = None, None
    try:
        agents = await client.engines.agents()
        pools = await client.pools.list()
    except SeatError:
        pass  # without a quorum; the report says so
    deployments: dict[str, tuple[str, str]] = {}

    async def try_node(address: str) -> None:
        async with direct(address) as one:
            version = await one.cluster.version()
            deployments[address] = (version.deployment_id, version.prefix)

    async def try_agent(address: str) -> None:
        async with asyncio.timeout(REACH_SECONDS_MAX), client.agent(address) as one:
            await one.capabilities()

    nodes = [*(node.address for node in report.nodes), *given]
    addresses = [agent.address for agent in agents or ()]
    tries = {
        **{address: try_node(address) for address in dict.fromkeys(nodes)},
        **{address: try_agent(address) for address in dict.fromkeys(addresses)},
    }
    results = await asyncio.gather(*tries.values(), return_exceptions=True)
    return Seen(
        report=report,
        here=asked_at + took / 2,
        took=took,
        given=given,
        unreached=_unreached(dict(zip(tries, results, strict=True))),
        deployments=deployments,
        agents=agents,
        pools=pools,
    )


def _unreached(results: dict[str, BaseException | None]) -> dict[str, str]:
    """Return why addresses could not be reached. Raises what is no failure to reach one."""
    unreached: dict[str, str] = {}
    for address, result in results.items():
        if isinstance(result, TimeoutError):
            unreached[address] = f"no answer within {REACH_SECONDS_MAX:g} s"
        elif isinstance(result, SeatError):
            unreached[address] = str(result)
        elif isinstance(result, BaseException):
            raise result
    return unreached
