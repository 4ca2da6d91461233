"""A program is led to the service by the command line's variables; a wrong one is named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping

from tests.cases.place import Place

PROGRAM = """
import json
from seatkeeper.client import SeatClient

with SeatClient.from_env() as client, client.seat("p", wait=20) as grant:
    before = grant.expires_at
    print(json.dumps([grant.holder, grant.project, before.isoformat()]))
"""


def case(place: Place) -> None:
    place.start_node()

    def run(more: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=place.environment(more),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    ended = run({"SEATKEEPER_HOLDER": "ren\u00e9", "SEATKEEPER_PROJECT": "cv"})
    assert ended.returncode == 0, ended.stderr
    holder, project, until = json.loads(ended.stdout)
    assert (holder, project) == ("ren\u00e9", "cv"), ended.stdout
    assert until.endswith("+00:00"), f"not an aware date and time: {until}"
    for name, value in {
        "SEATKEEPER_NODES": "nowhere",
        "SEATKEEPER_TLS_CA": "/nowhere/ca.pem",
        "SEATKEEPER_TLS_KEY": "/nowhere/key.pem",
    }.items():
        ended = run({name: value})
        assert ended.returncode != 0, f"{name}={value} was taken"
        assert name in ended.stderr.splitlines()[-1], f"{name} is not named: {ended.stderr}"
    assert place.held() == 0, "a seat is still held"
