"""Where a build goes: which agent is asked first, which next, and when to give up.

The agent is chosen by consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam:
2018). A ring on the engine's key decides, so that those who want the same meet at one agent; but one
that has more than ``LOAD_FACTOR`` times its share of the builds that run is asked after the others.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from uhashring import HashRing

from seatkeeper.core.errors import AgentFull, AgentUnavailable, InUse, SeatError
from seatkeeper.v1 import build_service_pb2

LOAD_FACTOR = 1.25
"""Lower spreads better, and moves more builds away from where their like are."""
CLAIM_POLL_SECONDS = 0.5
CLAIM_TRIES_MAX = 240
"""An agent that died leaves a claim on the grant, which stands until its session ends: a minute."""
LOOK_SECONDS = 2.0
"""Pause before other agents are looked for, when those that were known have died."""
LOOKS_MAX = 8


def in_ring_order(
    agents: Sequence[build_service_pb2.AgentInfo], key: str
) -> Sequence[build_service_pb2.AgentInfo]:
    """Return the agents, the one that every client asks first for ``key`` in front."""
    by_id = {agent.agent_id: agent for agent in agents}
    ring = HashRing(nodes=sorted(by_id))
    return [by_id[node["nodename"]] for node in ring.range(key)]


def placed(
    agents: Sequence[build_service_pb2.AgentInfo], key: str, factor: float = LOAD_FACTOR
) -> Sequence[build_service_pb2.AgentInfo]:
    """Return the agents in the order in which they are asked to build ``key``.

    First those in ring order that take more builds and whose load is under its bound, then those over
    it, then those that are full, and at last those that drain: what they said may be seconds old. An
    agent that does not say what it does counts as idle.
    """
    ring = in_ring_order(agents, key)
    running = sum(agent.load.running for agent in ring)
    places = sum(_places(agent) for agent in ring)

    def reluctance(agent: build_service_pb2.AgentInfo) -> int:
        if agent.draining:
            return 3
        if agent.load.running >= _places(agent):
            return 2
        # Its share of all builds, this one among them.
        bound = math.ceil(factor * (running + 1) * _places(agent) / places)
        return int(agent.load.running >= bound)

    return sorted(ring, key=reluctance)


def _places(agent: build_service_pb2.AgentInfo) -> int:
    return max(1, agent.builds_max)


def _name(agent: build_service_pb2.AgentInfo) -> tuple[str, str]:
    return agent.agent_id, agent.address


class Attempts:
    """The agents that a build is offered to under one grant, one after another.

    An agent that dies or has no room passes the build to the next. The grant may still carry a dead
    agent's claim then, which is waited for. After the last of them, agents that came meanwhile are
    looked for: where agents are replaced one by one, there may be no moment with two.
    """

    def __init__(
        self,
        agents: Sequence[build_service_pb2.AgentInfo],
        find_others: Callable[[], Awaitable[Sequence[build_service_pb2.AgentInfo]]],
    ) -> None:
        """``find_others`` returns those that can build it by now, in order, or raises `SeatError`."""
        self._waiting = list(agents)
        self._find_others = find_others
        self._asked: set[tuple[str, str]] = set()
        self._trouble: SeatError = AgentUnavailable()
        self._one_died = False
        self._tries_left = CLAIM_TRIES_MAX
        self._looks_left = LOOKS_MAX

    @property
    def is_last(self) -> bool:
        """Whether no other agent is known after the one that is asked now."""
        return len(self._waiting) <= 1

    async def next(self) -> build_service_pb2.AgentInfo:
        """Return the agent to ask now, looking for others where none is left. Raises why there is none.

        The time is bounded. At the last look those that were asked count again: they may be back.
        """
        while not self._waiting:
            if not self._one_died or not self._looks_left:
                raise self._trouble
            self._looks_left -= 1
            await asyncio.sleep(LOOK_SECONDS)
            with suppress(SeatError):
                found = await self._find_others()
                self._waiting = [
                    each
                    for each in found
                    if not self._looks_left or _name(each) not in self._asked
                ]
        self._asked.add(_name(self._waiting[0]))
        return self._waiting[0]

    async def failed(self, error: SeatError) -> None:
        """Note that the agent failed. Raises ``error`` unless it may be worth asking again.

        Returns when that may be done; the time is bounded.
        """
        match error:
            case AgentUnavailable():
                self._one_died = True
            case AgentFull():
                pass
            case InUse() if self._one_died and self._tries_left > 0:
                self._tries_left -= 1
                await asyncio.sleep(CLAIM_POLL_SECONDS)
                return
            case _:
                raise error
        self._trouble = error
        self._waiting.pop(0)
