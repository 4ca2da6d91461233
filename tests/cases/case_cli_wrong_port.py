"""A port that refuses, or speaks something else, is reported soon and with the cause."""

from __future__ import annotations

import socket
import time

from tests.cases.place import Place


def case(place: Place) -> None:
    """Call a closed port, a forbidden listener and a node's port for metrics."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"127.0.0.1:{server.getsockname()[1]}"
    before = time.monotonic()
    refused = place.seatkeeper("run", "--nodes", closed, "--", "true")
    assert refused.returncode == 69, refused
    assert b"connection refused" in refused.stderr, refused
    # Python starts in that time, too, on a machine that is busy.
    assert time.monotonic() - before < 9, "as slow as a silent node"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        served = place.seatkeeper("serve", "--store", "memory", "--listen", address)
        assert served.returncode == 78, served
        assert b"in use by another process" in served.stderr, served
    with socket.create_server(("127.0.0.1", 0)) as server:
        metrics = f"127.0.0.1:{server.getsockname()[1]}"
    place.start_node("--metrics-listen", metrics)
    asked = place.seatkeeper("status", "--nodes", metrics, "--timeout", "2")
    assert asked.returncode == 69, asked
    assert b"not gRPC" in asked.stderr or b"no gRPC service" in asked.stderr, asked
