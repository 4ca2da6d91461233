"""An older name of `seatkeeper.artifacts.manifest`, kept for those who import it."""

from seatkeeper.artifacts.manifest import (
    AgentKey,
    Readable,
    build_manifest,
    check_engine_bytes,
    verify_engine_file,
    verify_manifest,
)

__all__ = [
    "AgentKey",
    "Readable",
    "build_manifest",
    "check_engine_bytes",
    "verify_engine_file",
    "verify_manifest",
]
