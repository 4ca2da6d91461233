"""How gRPC waits for the network in a process that serves.

gRPC has two ways to read its sockets. In the newer one, the default, threads of its own read, and hand
what they have read to the thread that waits for events, which hands it to the event loop. In the
older one the thread that waits for events reads as well: one thread less for each message to go
through. On two cores a node answers a lone request in a seventh less time, and spends a sixth less
processor time on each.

gRPC decides when it is loaded, by a variable of the environment. So it is for programs of our own:
in a user's program the library changes nothing.
"""

from __future__ import annotations

import os
import sys

EXPERIMENTS = "GRPC_EXPERIMENTS"
"""gRPC's variable. It knows names by release; one that it does not know costs a line on stderr."""
OLDER_POLLING = "-event_engine_client,-event_engine_listener"


def load_grpc() -> None:
    """Load gRPC, and have it read its sockets in the older way.

    Where gRPC is loaded already, or the variable is set, all stays as it is. It is taken away again,
    so that no process started from here inherits it.
    """
    if EXPERIMENTS in os.environ or "grpc" in sys.modules:
        return
    os.environ[EXPERIMENTS] = OLDER_POLLING
    try:
        import grpc  # noqa: F401  # loaded for the settings that it reads meanwhile
    finally:
        del os.environ[EXPERIMENTS]
