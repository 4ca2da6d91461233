"""A node keeps the contract that a client with stubs alone relies on."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.cases.place import Place

SECONDS_MAX = 240
SCRIPTS = ("acquire-malformed", "id-an-hour-ahead", "stream-many-renewals", "undecodable")
"""Some of each kind; `make conformance` has all."""


def case(place: Place) -> None:
    """Run scripts against a node."""
    node = place.start_node()
    for script in SCRIPTS:
        command = [sys.executable, "-m", "tests.conformance", "server"]
        done = subprocess.run(
            [*command, "--target", node.address, "--script", script],
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["passed"] >= 1
    assert place.held() == 0
