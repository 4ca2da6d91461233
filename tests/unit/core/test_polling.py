"""Which threads of gRPC work in a process that serves. Where gRPC drops the setting, this fails."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from seatkeeper.core.polling import EXPERIMENTS

CALLS = 200
ECHO = f"""
import asyncio, json, os, pathlib, sys
if sys.argv[1] == "serving":
    from seatkeeper.core.polling import load_grpc
    load_grpc()
import grpc, grpc.aio

async def echo(request, context):
    return request

async def main():
    server = grpc.aio.server()
    handlers = {{"b": grpc.unary_unary_rpc_method_handler(echo)}}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{{port}}") as channel:
        for _ in range({CALLS}):
            assert await channel.unary_unary("/a/b")(b"x") == b"x"
        threads = pathlib.Path("/proc/self/task").iterdir()
        turns = [
            int((thread / "schedstat").read_text().split()[2])
            for thread in threads
            if (thread / "comm").read_text().startswith("event_engine")
        ]
    await server.stop(0)
    print(json.dumps({{"turns": sum(turns), "environment": os.environ.get("{EXPERIMENTS}")}}))

asyncio.run(main())
"""


def echoed(how: str, environment: str | None = None) -> dict[str, object]:
    """Call an echo in a process of its own; return how often threads that read had a turn."""
    done = subprocess.run(
        [sys.executable, "-c", ECHO, how],
        env={} if environment is None else {EXPERIMENTS: environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    # gRPC names a setting that it does not know; of a connection that ends it may also write.
    assert "experiment" not in done.stderr.lower()
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_a_process_that_serves_reads_in_the_thread_that_waits() -> None:
    found = echoed("serving")
    assert found["environment"] is None, "what it starts must not inherit the setting"
    turns = found["turns"]
    assert isinstance(turns, int)
    assert turns < CALLS, "gRPC has dropped the setting: compare again, and remove it"


def test_without_it_other_threads_read() -> None:
    turns = echoed("as ever")["turns"]
    assert isinstance(turns, int)
    assert turns > CALLS


@pytest.mark.parametrize("given", ["event_engine_client", ""])
def test_what_the_user_has_set_stays(given: str) -> None:
    found = echoed("serving", given)
    assert found["environment"] == given
    turns = found["turns"]
    assert isinstance(turns, int)
    assert turns > CALLS
