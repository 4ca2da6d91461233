"""An id made while a client's clock was an hour fast does not block its later requests."""

from __future__ import annotations

import subprocess
import sys

from tests.cases.place import Place

CLIENT = """
import os, sys, time
import grpc
from seatkeeper.core.ids import IdGenerator, new_id
from seatkeeper.v1 import seat_pb2, seat_service_pb2_grpc
from seatkeeper.v1 import seat_service_pb2 as pb

stub = seat_service_pb2_grpc.SeatServiceStub(grpc.insecure_channel(sys.argv[1]))
mine = pb.SessionCredentials(session_id=new_id(), secret=os.urandom(16))
opening = pb.Open(credentials=mine, holder="case")
stub.OpenSession(pb.OpenSessionRequest(open=opening), timeout=30)
fast = IdGenerator(now_millis=lambda: time.time_ns() // 1_000_000 + 3_600_000)
for grant_id in (fast(), new_id(), new_id()):
    wanted = seat_pb2.Acquire(pool="p", grant_id=grant_id, seats=1)
    stub.Acquire(pb.AcquireRequest(credentials=mine, acquire=wanted), timeout=30)
    back = pb.Release(grant=pb.GrantRef(pool="p", grant_id=grant_id))
    stub.Release(pb.ReleaseRequest(credentials=mine, release=back), timeout=30)
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
