"""Bytes that are no message get INVALID_ARGUMENT with a reason, from every service."""

from __future__ import annotations

import subprocess
import sys

from tests.cases.place import Place

CLIENT = """
import sys
import grpc
from grpc_status import rpc_status

channel = grpc.insecure_channel(sys.argv[1])
for method in (
    "SeatService/Acquire", "SeatService/Renew", "PoolService/CreatePool",
    "ClusterService/GetVersion", "EngineService/ListEngines",
):
    try:
        channel.unary_unary("/seatkeeper.v1." + method)(bytes([10, 255, 255, 255, 127]), timeout=30)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, (method, error.code())
        assert rpc_status.from_call(error).details, method
    else:
        raise AssertionError(method + " took it")
"""


def case(place: Place) -> None:
    node = place.start_node()
    said = subprocess.run(
        [sys.executable, "-c", CLIENT, node.address],
        env=place.environment(),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert said.returncode == 0, said.stderr.decode()[-2000:]
