"""What is missing for a server is named, and no package of our name on an index is advised."""

from __future__ import annotations

import subprocess
import sys

from tests.cases.place import Place

BARE = """
import sys
for name in ("grpc_health", "prometheus_client", "pydantic_settings", "structlog", "onnx"):
    sys.modules[name] = None
sys.argv[0] = "seatkeeper"
from seatkeeper.cli import main
main()
"""


def case(place: Place) -> None:
    for words in (["serve", "--store", "memory"], ["dev"], ["agent"], ["chaos", "list"]):
        ended = subprocess.run(
            [sys.executable, "-c", BARE, *words],
            env=place.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        said = ended.stderr.strip()
        assert ended.returncode == 78, f"{words}: exit code {ended.returncode}: {said[-300:]}"
        assert len(said.splitlines()) == 1, f"{words}: more than a line: {said[-300:]}"
        assert "structlog" in said, f"{words}: what is missing is not named: {said}"
        assert "install 'seatkeeper" not in said, (
            f"{words}: advises a stranger's package: {said}"
        )
        assert "pip install '.[" in said, f"{words}: does not say how to install it: {said}"
