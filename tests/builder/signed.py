"""Signed manifests for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256

from seatkeeper.artifacts.manifest import (
    AgentKey,
    BuiltEngineFile,
    SeatUsed,
    SourceModel,
    build_manifest,
)
from seatkeeper.artifacts.plan import BuildPlan
from seatkeeper.v1 import build_pb2

ENGINE = b"vtrt" + bytes(range(256)) * 1_000


def signed_for(
    engine: bytes, key: AgentKey, *, model: str = "model"
) -> build_pb2.SignedManifest:
    """A manifest of ``engine``, built of the model of that name."""
    return key.sign(
        build_manifest(
            BuildPlan(backend="tensorrt_rtx", targets=("SM86",)),
            SourceModel(sha256=sha256(model.encode()).hexdigest(), name=f"{model}.onnx"),
            BuiltEngineFile(
                sha256=sha256(engine).hexdigest(),
                size_bytes=len(engine),
                backend_version="1.7.1.116",
                built_at=datetime(2026, 1, 2, tzinfo=UTC),
                build_time=timedelta(seconds=1.5),
            ),
            SeatUsed(
                pool="tensorrt", grant_id="grant-1", fence=7, holder="alice", project="cv"
            ),
            agent_id="agent-1",
        )
    )
