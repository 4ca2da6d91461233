"""The ``seatkeeper`` command: parse, call, render. What is done is in a library.

Modules here import `seatkeeper.client`, `.hold`, `.core` and `.artifacts`.
Those in `processes` may also import what they start: the server, the agent, devcluster, chaos. The
table of rooms (`tests/unit/layout/test_layers.py`) says so.
"""

import signal
import sys

from seatkeeper.core.polling import load_grpc

if sys.argv[1:2] in (["serve"], ["agent"]) and hasattr(signal, "SIGHUP"):
    # Before anything else is imported: that takes most of a second, in which a HUP would kill a
    # server. It reads its settings later, so there is nothing to read again.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
if sys.argv[1:2] == ["serve"]:
    load_grpc()

from seatkeeper.cli.app import main

__all__ = ["main"]
