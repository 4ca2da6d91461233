"""The page that shows how to administer from a program does what it says, on a real node."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.cases.place import Place
from tests.tree import ROOT


def case(place: Place) -> None:
    node = place.start_node()
    deleted = place.seatkeeper("pool", "delete", "p")
    assert deleted.returncode == 0, deleted.stderr
    page = (ROOT / "docs" / "how-to" / "administer.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6, "the page has lost its examples"
    ended = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        env=place.environment({"SEATKEEPER_NODES": node.address}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-600:]
