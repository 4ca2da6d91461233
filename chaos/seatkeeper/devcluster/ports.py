"""Ports of this machine."""

from __future__ import annotations

import socket

HOST = "127.0.0.1"


def trouble_with(port: int) -> str:
    """Return why a server cannot listen on ``port`` of the loopback; empty: it can."""
    with socket.socket() as probe:
        # As servers do: connections of one that has just stopped do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""
