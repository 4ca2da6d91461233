"""A node's process that is asked to stop while calls are under way: no call is broken."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections import Counter
from pathlib import Path

import grpc
import grpc.aio
import pytest
from tests.unit.kit import eventually

from seatkeeper.client import new_id
from seatkeeper.v1 import (
    pool_service_pb2,
    pool_service_pb2_grpc,
    seat_pb2,
    seat_service_pb2_grpc,
)
from seatkeeper.v1 import seat_service_pb2 as pb

POOL = "p"
CLIENTS = 12
START_SECONDS = 60.0
CYCLES_BEFORE = 5
"""Seats that every client has taken and given back before the node is asked to stop."""


class Process:
    """``seatkeeper serve`` over a store in memory."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._folder = folder

    async def start(self) -> asyncio.subprocess.Process:
        command = str(Path(sys.executable).with_name("seatkeeper"))
        options = ("--store", "memory", "--listen", self.address, "--node-id", "node-1")
        with (self._folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(command, "serve", *options), stdout=log, stderr=log, env=dict(os.environ)
            )
        async with grpc.aio.insecure_channel(self.address) as channel:
            spec = pool_service_pb2.PoolSpec(name=POOL, seats=4)
            await pool_service_pb2_grpc.PoolServiceStub(channel).CreatePool(
                pool_service_pb2.CreatePoolRequest(spec=spec),
                timeout=START_SECONDS,
                wait_for_ready=True,
            )
        return process


class Client:
    """Takes a seat and gives it back, again and again, until a call fails."""

    def __init__(self, address: str) -> None:
        self.cycles = 0
        self.ended_with: grpc.StatusCode | None = None
        self._address = address

    async def run(self) -> None:
        mine = pb.SessionCredentials(session_id=new_id(), secret=os.urandom(16))
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(self._address, options=options) as channel:
            seats = seat_service_pb2_grpc.SeatServiceStub(channel)
            opening = pb.Open(credentials=mine, holder="anna")
            await seats.OpenSession(pb.OpenSessionRequest(open=opening), timeout=30)
            try:
                while True:
                    ref = pb.GrantRef(pool=POOL, grant_id=new_id())
                    wanted = seat_pb2.Acquire(pool=POOL, grant_id=ref.grant_id, seats=1)
                    request = pb.AcquireRequest(credentials=mine, acquire=wanted)
                    await seats.Acquire(request, timeout=60)
                    back = pb.ReleaseRequest(credentials=mine, release=pb.Release(grant=ref))
                    await seats.Release(back, timeout=60)
                    self.cycles += 1
            except grpc.aio.AioRpcError as error:
                self.ended_with = error.code()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT] * 3)
async def test_calls_under_way_are_answered_or_sent_elsewhere(
    tmp_path: Path, number: signal.Signals
) -> None:
    node = Process(tmp_path)
    process = await node.start()
    try:
        clients = [Client(node.address) for _ in range(CLIENTS)]
        running = [asyncio.create_task(client.run()) for client in clients]
        await eventually(
            lambda: all(client.cycles >= CYCLES_BEFORE for client in clients), within=60
        )
        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), 60) == 0, (tmp_path / "log").read_text()
        await asyncio.wait_for(asyncio.gather(*running), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert Counter(client.ended_with for client in clients) == {
        grpc.StatusCode.UNAVAILABLE: CLIENTS
    }
