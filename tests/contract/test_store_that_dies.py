"""A real S3 server that is killed in the middle: nothing half is seen, and what arrived is kept."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.builder.signed import signed_for
from tests.processes import until
from tests.s3_server import S3Server, running_s3

from seatkeeper.artifacts.errors import StoreUnavailable
from seatkeeper.artifacts.manifest import AgentKey
from seatkeeper.artifacts.stores.artifact_store import ArtifactStore
from seatkeeper.client.builds.output import Output
from seatkeeper.client.builds.part import Part
from seatkeeper.v1 import build_pb2

LARGE = os.urandom(48 << 20)
BEGUN_BYTES = 4 << 20
SIGNED = signed_for(LARGE, AgentKey.generate())
MANIFEST = build_pb2.EngineManifest.FromString(SIGNED.manifest)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[S3Server]:
    with running_s3(tmp_path / "s3") as server:
        yield server


def stored_bytes(server: S3Server) -> int:
    files = (path for path in (server.folder / "data").rglob("*.dat"))
    return sum(path.stat().st_size for path in files)


def test_a_server_that_dies_in_the_middle_of_an_upload_and_of_a_download(
    server: S3Server, tmp_path: Path
) -> None:
    store = ArtifactStore.at(server.address("dies"))
    engine = tmp_path / "built"
    engine.write_bytes(LARGE)
    before = stored_bytes(server)

    def kill_in_the_middle() -> None:
        until(lambda: stored_bytes(server) > before + BEGUN_BYTES, "an upload has begun")
        server.kill()

    killer = threading.Thread(target=kill_in_the_middle)
    killer.start()
    with pytest.raises(StoreUnavailable):
        store.publish(SIGNED, engine)
    killer.join()
    server.start()
    assert store.engines() == []
    assert list(store.objects.list("blobs")) == []
    assert engine.read_bytes() == LARGE

    store.publish(SIGNED, engine)
    pulled = tmp_path / "pulled"
    with Part(Output.at(pulled), MANIFEST.file) as part:
        chunks = store.read(MANIFEST.file)
        part.write(next(iter(chunks)))
        server.kill()
        with pytest.raises(StoreUnavailable):
            list(map(part.write, chunks))
        arrived = part.size
    assert not pulled.exists()
    server.start()
    with Part(Output.at(pulled), MANIFEST.file) as part:
        assert part.size == arrived > 0
        for chunk in store.read(MANIFEST.file, part.size):
            part.write(chunk)
        part.finish()
    assert pulled.read_bytes() == LARGE
