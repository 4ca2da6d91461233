"""Has gRPC's C core write nothing: what went wrong is said once, by us."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

GRPC_VERBOSITY = "GRPC_VERBOSITY"


@contextmanager
def hushed() -> Iterator[None]:
    """Have gRPC write nothing if it is loaded in the block, unless the user asked it to.

    It looks at its variable when it is loaded, and then no more. It is taken away again, since what
    `run` starts must not inherit it.
    """
    if GRPC_VERBOSITY in os.environ:
        yield
        return
    os.environ[GRPC_VERBOSITY] = "NONE"
    try:
        yield
    finally:
        del os.environ[GRPC_VERBOSITY]
