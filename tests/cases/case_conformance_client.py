"""The client library takes nothing for a denial that the service did not say."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.cases.place import Place

SECONDS_MAX = 240


def case(place: Place) -> None:
    """Have the suite play a service whose connections fail in every way."""
    del place  # the suite plays the nodes, too
    done = subprocess.run(
        [sys.executable, "-m", "tests.conformance", "client", "--script", "transport-"],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["passed"] >= 4
