"""Asking other nodes: forwarding commands, and finding out who answers.

A node that does not answer is left out of this node's ring at once, and asked again in the background
until it does. So a dead or paused owner costs one deadline, once, and not one for each request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from seatkeeper.internal.v1 import peer_service_pb2 as pb
from seatkeeper.internal.v1 import peer_service_pb2_grpc as pb_grpc
from seatkeeper.server.domain import Command, Outcome
from seatkeeper.server.events.observer import Observer
from seatkeeper.server.routing.membership import Membership
from seatkeeper.server.routing.wire import decode_outcome, encode_command
from seatkeeper.v1 import cluster_service_pb2 as cluster_pb

if TYPE_CHECKING:
    Stub = pb_grpc.PeerServiceAsyncStub  # known to mypy only

logger = logging.getLogger(__name__)

SECRET_METADATA = "seatkeeper-cluster"
TIME_LIMIT_SECONDS = 0.4
"""A node that says nothing for so long is pinged."""
PING_SECONDS_MAX = 0.4
"""A node that does not answer a ping within so long is given up."""
DECIDE_SECONDS_MAX = 5.0
"""An owner that is alive, but not done after so long, is not waited for any more."""
REPORT_SECONDS_MAX = 2.0
"""How long a node may take to say how it is."""
PROBE_SECONDS = (0.2, 2.0)
"""Pause between two pings of a silent node: at first, and at most."""
CHANNEL_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
]


class PeerSilent(Exception):
    """The other node did not answer. What it was sent may have taken effect, or may yet."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What became of commands that another node decided."""

    outcomes: Sequence[Outcome]
    """In the order of the commands."""
    revision: int
    """A revision of the store at which all of them were true."""


class Peers:
    """The other nodes, as servers of this one. Of one event loop."""

    def __init__(
        self,
        membership: Membership,
        secret: str,
        observer: Observer,
        *,
        connect: Callable[[str], grpc.aio.Channel],
    ) -> None:
        """Call no node yet. ``connect`` returns a channel to an address."""
        self._membership = membership
        self._metadata = ((SECRET_METADATA, secret),)
        self._observer = observer
        self._connect = connect
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def reconnect(self) -> None:
        """Use new connections from now on: certificates were renewed. Calls under way go on."""
        for channel in self._channels.values():
            closing = asyncio.create_task(channel.close(DECIDE_SECONDS_MAX))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        self._channels.clear()

    async def stop(self) -> None:
        """Close all connections; calls under way fail."""
        probes = [*self._probes.values(), *self._closing]
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))

    async def decide(
        self, node_id: str, pool: str, commands: Sequence[Command], peers: Sequence[str] = ()
    ) -> Decided:
        """Have another node decide. Raises ``PeerSilent``, and leaves that node out from now on.

        ``peers`` are the addresses that the commands came from, for its log; or nothing.
        """
        stub = await self._stub(node_id)
        request = pb.DecideRequest(pool=pool, commands=map(encode_command, commands))
        for command, peer in zip(request.commands, peers, strict=False):
            command.peer = peer
        call = asyncio.create_task(self._decide(stub, request))
        try:
            response = await self._with_retries(stub, call)
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            self._give_up(node_id, _words(error))
            raise PeerSilent(f"{node_id}: {_words(error)}") from error
        finally:
            call.cancel()
        if len(response.outcomes) != len(commands):
            raise PeerSilent(f"{node_id}: answered {len(response.outcomes)} of {len(commands)}")
        outcomes = [
            decode_outcome(command.grant_id, outcome)
            for command, outcome in zip(commands, response.outcomes, strict=True)
        ]
        return Decided(outcomes, response.revision)

    async def report(self, node_id: str) -> cluster_pb.NodeReport:
        """Return another node's report. Raises ``PeerSilent``; no node is left out."""
        stub = await self._stub(node_id)
        try:
            with _unless_closed():
                answer = await stub.Report(
                    pb.ReportRequest(), timeout=REPORT_SECONDS_MAX, metadata=self._metadata
                )
        except grpc.aio.AioRpcError as error:
            raise PeerSilent(_words(error)) from error
        return answer.report

    async def answers(self, address: str) -> bool:
        """Return whether a node of this cluster answers at an address."""
        channel = self._connect(address)
        try:
            await self._ping(pb_grpc.PeerServiceStub(channel))
        except grpc.aio.AioRpcError:
            return False
        else:
            return True
        finally:
            await channel.close()

    async def _with_retries(
        self, stub: Stub, call: asyncio.Future[pb.DecideResponse]
    ) -> pb.DecideResponse:
        """Wait for an answer for as long as the node shows that it lives."""
        for _ in range(int(DECIDE_SECONDS_MAX / TIME_LIMIT_SECONDS)):
            await asyncio.wait({call}, timeout=TIME_LIMIT_SECONDS)
            if call.done():
                return call.result()
            await self._ping(stub)
        raise TimeoutError("is alive, but too slow")

    async def _decide(self, stub: Stub, request: pb.DecideRequest) -> pb.DecideResponse:
        with _unless_closed():
            return await stub.Decide(
                request, timeout=DECIDE_SECONDS_MAX, metadata=self._metadata
            )

    async def _ping(self, stub: Stub) -> None:
        with _unless_closed():
            await stub.Ping(pb.PingRequest(), timeout=PING_SECONDS_MAX, metadata=self._metadata)

    async def _stub(self, node_id: str) -> Stub:
        address = self._membership.ring.addresses.get(node_id)
        if address is None:
            raise PeerSilent(f"{node_id}: has left")
        if (channel := self._channels.get(address)) is None:
            channel = self._channels[address] = self._connect(address)
            await self._forget_the_gone()
        return pb_grpc.PeerServiceStub(channel)

    def _give_up(self, node_id: str, why: str) -> None:
        logger.warning("peer_silent", extra={"node": node_id, "error": why})
        self._membership.mark_silent(node_id)
        if node_id not in self._probes:
            probe = self._probes[node_id] = asyncio.create_task(self._probe(node_id))
            probe.add_done_callback(lambda _: self._probes.pop(node_id, None))

    async def _probe(self, node_id: str) -> None:
        """Ask a silent node until it answers, or is counted in or gone for another reason."""
        pause, pause_max = PROBE_SECONDS
        while node_id in self._membership.silent:
            await asyncio.sleep(pause)
            pause = min(2 * pause, pause_max)
            with suppress(grpc.aio.AioRpcError, PeerSilent):
                stub = await self._stub(node_id)
                await self._ping(stub)
                logger.info("peer_answering", extra={"node": node_id})
                self._membership.mark_answering(node_id)

    async def _forget_the_gone(self) -> None:
        """Close the connections to nodes that have left: looked for when another one is made."""
        known = set(self._membership.ring.addresses.values())
        for address in self._channels.keys() - known:
            if (channel := self._channels.pop(address, None)) is not None:
                await channel.close()


@contextmanager
def _unless_closed() -> Iterator[None]:
    """Raise ``PeerSilent`` for a call that ended because its connection was closed here.

    That cancels the call, which must not look like our own cancellation to its caller.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise PeerSilent("it has left, and its connection was closed") from None


def _words(error: grpc.aio.AioRpcError | TimeoutError) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name} {error.details()}"
    return str(error)
