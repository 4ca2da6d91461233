"""The environment variables of a client: one table, for the library and for the command line.

`SeatClient.from_env` and `AsyncSeatClient.from_env` read them, and so do the commands. One that is
set to nothing counts as not set. Beside the packages and not in one of them: the command line must
not load the client to know the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

NODES: Final = "SEATKEEPER_NODES"
TLS_CA: Final = "SEATKEEPER_TLS_CA"
TLS_CERT: Final = "SEATKEEPER_TLS_CERT"
TLS_KEY: Final = "SEATKEEPER_TLS_KEY"
HOLDER: Final = "SEATKEEPER_HOLDER"
PROJECT: Final = "SEATKEEPER_PROJECT"

VARIABLES: Final[Mapping[str, str]] = {
    NODES: "Nodes, or a load balancer in front of them.",
    TLS_CA: "CA of the nodes' certificates, PEM; given: use TLS.",
    TLS_CERT: "Our own certificate, PEM, for mutual TLS.",
    TLS_KEY: "Key of our certificate, PEM.",
    HOLDER: "Who holds it.",
    PROJECT: "Who is charged for the seat.",
}
"""Every variable, and what it says."""

DEFAULT_NODES: Final = "127.0.0.1:7420"
"""Where the service is, unless something says otherwise."""
