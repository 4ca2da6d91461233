"""1,023 renewals sent at once on a stream, and a malformed one, are all answered."""

from __future__ import annotations

import subprocess
import sys

from tests.cases.place import Place

CLIENT = """
import os, sys
import grpc
from seatkeeper.client import new_id
from seatkeeper.v1 import seat_service_pb2 as pb, seat_service_pb2_grpc

def commands():
    mine = pb.SessionCredentials(session_id=new_id(), secret=os.urandom(16))
    yield pb.SessionCommand(open=pb.Open(credentials=mine, holder="case"))
    for number in range(1, 1023):
        yield pb.SessionCommand(renew=pb.Renew(sequence=number))
    yield pb.SessionCommand(renew=pb.Renew(sequence=1023, tokens_for=[pb.GrantRef(pool="?")]))

stub = seat_service_pb2_grpc.SeatServiceStub(grpc.insecure_channel(sys.argv[1]))
answers = stub.Session(iter([pb.SessionRequest(commands=list(commands()))]), timeout=60)
events = [event for response in answers for event in response.events]
renewed = [event.renewed.sequence for event in events if event.HasField("renewed")]
assert renewed == list(range(1, 1024)), f"{len(renewed)} of 1023 were answered"
assert any(event.HasField("denied") for event in events), "the malformed one was not denied"
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
