"""Tab completes the names of pools from the service, and says nothing where there is none."""

from __future__ import annotations

import subprocess

from tests.cases.place import SCRIPT, Place


def case(place: Place) -> None:
    """Do what bash does when Tab is pressed."""
    place.start_node()

    def offered(nodes: str) -> subprocess.CompletedProcess[bytes]:
        asking = {
            "SEATKEEPER_NODES": nodes,
            "_SEATKEEPER_COMPLETE": "complete_bash",
            "COMP_WORDS": "seatkeeper pool show ",
            "COMP_CWORD": "3",
        }
        return subprocess.run(
            [SCRIPT],
            env=place.environment(asking),
            capture_output=True,
            timeout=60,
            check=False,
        )

    assert place.node is not None
    there, absent = offered(place.node.address), offered("127.0.0.1:9")
    assert there.stdout.split() == [b"p"], there
    assert (absent.stdout.strip(), absent.stderr) == (b"", b""), absent
