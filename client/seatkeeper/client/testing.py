"""An older name of `seatkeeper.testing`, kept for those who import it."""

from seatkeeper.testing import (
    AsyncControls,
    InMemoryService,
)

__all__ = [
    "AsyncControls",
    "InMemoryService",
]
