"""Ports of this machine on which nothing listens, and on which nothing else will."""

from __future__ import annotations

import socket


class HeldPort:
    """A port that is taken and not listened on, until it is let go: connections to it are refused.

    One that was merely closed may be given to a server of another test at any moment, and that
    server would answer.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Take a port; 0: any. Raises ``OSError`` while something listens there."""
        self._host = host
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            # Connections of the server before may linger. From then on no socket may share the port.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((host, port))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        except OSError:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]

    @property
    def address(self) -> str:
        """Where nothing listens."""
        return (
            f"[{self._host}]:{self.port}" if ":" in self._host else f"{self._host}:{self.port}"
        )

    def let_go(self) -> None:
        """Let others have the port. Safe to call twice."""
        self._socket.close()

    def __del__(self) -> None:
        self.let_go()


_HELD: list[HeldPort] = []


def closed_address(host: str = "127.0.0.1") -> str:
    """Return an address where nothing listens for as long as this process lives."""
    _HELD.append(HeldPort(host))
    return _HELD[-1].address
