"""The ``seatkeeper`` command: parse, call, render. What is done is in the library."""

from seatkeeper.cli.app import main

__all__ = ["main"]
