"""A node that notes when it reads releases, commits and writes grants; see ``bench.handoff``.

It is the node that ``seatkeeper serve`` runs, with a store and a transport that note the time. Prints
its address, serves until its standard input ends, and then prints what it noted, as one JSON object.
Tracing costs time itself, so nothing else is measured with it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from time import perf_counter
from typing import Any

import grpc
import grpc.aio

from bench.handoff_parts import NodeTrace, TracedCommit
from bench.report import run
from bench.service import Service, clean_environment
from seatkeeper.core.polling import EXPERIMENTS, OLDER_POLLING
from seatkeeper.core.serving.handlers import Handler, behaviour_of, rebuilt
from seatkeeper.server.config import NodeConfig
from seatkeeper.server.node import Node
from seatkeeper.server.store import Committed, Delete, Put, Unchanged, Write
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore
from seatkeeper.server.transport import GrpcTransport
from seatkeeper.v1 import seat_service_pb2

SESSION = "/seatkeeper.v1.SeatService/Session"
STOP_SECONDS_MAX = 30.0
TRACE_BYTES_MAX = 64 << 20


class TracedStore(EtcdStore):
    """Notes each transaction that grants are written or deleted in."""

    def __init__(self, config: EtcdConfig, trace: NodeTrace) -> None:
        super().__init__(config)
        self._trace = trace

    async def commit(
        self,
        writes: Sequence[Write],
        *,
        only_if: Sequence[Unchanged] = (),
        else_read: Sequence[str] = (),
        timeout: timedelta | None = None,
    ) -> Committed:
        """Make ``writes``, and note when."""
        began = perf_counter()
        committed = await super().commit(
            writes, only_if=only_if, else_read=else_read, timeout=timeout
        )
        deleted = _grants([write.key for write in writes if isinstance(write, Delete)])
        written = _grants([write.key for write in writes if isinstance(write, Put)])
        if committed.succeeded and (deleted or written):
            commit = TracedCommit(began, perf_counter(), deleted, written)
            self._trace.commits.append(commit)
        return committed


def _grants(keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(key.rpartition("/")[2] for key in keys if "/grants/" in key)


@dataclass(frozen=True)
class TracedTransport(GrpcTransport):
    """Notes what comes and goes on session streams."""

    trace: NodeTrace

    def server(
        self, interceptors: Sequence[grpc.aio.ServerInterceptor] = ()
    ) -> grpc.aio.Server:
        """Return a server of which each session stream is traced."""
        return super().server([*interceptors, _Tracer(self.trace)])


@dataclass(frozen=True)
class _Tracer(grpc.aio.ServerInterceptor):
    trace: NodeTrace

    async def intercept_service(
        self,
        continuation: Callable[[Any], Any],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler: Handler = await continuation(handler_call_details)
        if handler_call_details.method != SESSION:
            return handler
        behaviour = behaviour_of(handler)

        async def call(requests: object, context: object) -> object:
            return await behaviour(requests, _TracedContext(context, self.trace))

        return rebuilt(handler, call, handler.request_deserializer)


class _TracedContext:
    """The context of one stream; all but reading and writing goes to gRPC's own."""

    def __init__(self, context: Any, trace: NodeTrace) -> None:  # noqa: ANN401  # gRPC's, untyped
        self._context = context
        self._trace = trace

    def __getattr__(self, name: str) -> object:
        return getattr(self._context, name)

    async def read(self) -> object:
        """Read, and note the releases."""
        request = await self._context.read()
        if isinstance(request, seat_service_pb2.SessionRequest):
            now = perf_counter()
            for command in request.commands:
                if command.WhichOneof("command") == "release":
                    self._trace.releases_read[command.release.grant.grant_id] = now
        return request

    async def write(self, response: seat_service_pb2.SessionResponse) -> None:
        """Note the grants, and write."""
        now = perf_counter()
        for event in response.events:
            if event.WhichOneof("event") == "granted":
                self._trace.grants_sent.setdefault(event.granted.grant_id, now)
        await self._context.write(response)


async def main() -> None:
    """Serve until standard input ends."""
    endpoints, trace = sys.argv[1], NodeTrace()
    config = NodeConfig(node_id="traced", listen="127.0.0.1:0", etcd_endpoints=endpoints)
    store = TracedStore(EtcdConfig(endpoints=tuple(endpoints.split(","))), trace)
    node = await Node.start(config, store=store, transport=TracedTransport(trace))
    print(node.address, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await node.stop()
    print(json.dumps(asdict(trace)))


@dataclass
class TracedNode:
    """Such a node as a process."""

    process: Process
    address: str
    trace: NodeTrace = field(default_factory=NodeTrace)
    """What it noted; there once it has ended."""


@asynccontextmanager
async def running_traced_node(service: Service) -> AsyncIterator[TracedNode]:
    """Run one on the etcd of ``service``. Raises ``RuntimeError`` when it does not start or end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.traced_node", ",".join(service.etcd.endpoints)),
        stdin=PIPE,
        stdout=PIPE,
        env=clean_environment() | {EXPERIMENTS: OLDER_POLLING},  # as `serve` has it
        limit=TRACE_BYTES_MAX,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(STOP_SECONDS_MAX):
            address = (await process.stdout.readline()).decode().strip()
        if not address:
            raise RuntimeError("the traced node did not start; it has said why above")
        node = TracedNode(process, address)
        yield node
        process.stdin.close()
        async with asyncio.timeout(STOP_SECONDS_MAX):
            node.trace = read_trace((await process.stdout.read()).decode())
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def read_trace(text: str) -> NodeTrace:
    """Return what a node printed that it noted."""
    noted = json.loads(text)
    commits = [
        TracedCommit(one["began"], one["ended"], tuple(one["deleted"]), tuple(one["written"]))
        for one in noted["commits"]
    ]
    return NodeTrace(noted["releases_read"], noted["grants_sent"], commits)


if __name__ == "__main__":
    run(main)
