"""The ``seatkeeper`` command: parse, call, render. What is done is in the library."""

import signal
import sys

if sys.argv[1:2] in (["serve"], ["agent"]) and hasattr(signal, "SIGHUP"):
    # Before anything else is imported: that takes most of a second, in which a HUP would kill a
    # server. It reads its settings later, so there is nothing to read again.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

from seatkeeper.cli.app import main

__all__ = ["main"]
