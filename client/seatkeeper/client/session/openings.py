"""Callers that wait until the session is open, because they need what proves that it is theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from seatkeeper.core.errors import SeatError
from seatkeeper.v1 import seat_service_pb2 as pb

Waiting = asyncio.Future[pb.SessionCredentials]


class Openings:
    """Futures of the session's credentials. Times are passed in."""

    def __init__(self, seconds_max: float) -> None:
        """Wait for that long at most."""
        self._seconds_max = seconds_max
        self._waiting: list[tuple[float, Waiting]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, now: float) -> Waiting:
        """Return the future of one more caller."""
        future: Waiting = asyncio.get_running_loop().create_future()
        self._waiting.append((now, future))
        return future

    def succeed(self, credentials: pb.SessionCredentials) -> None:
        """Give them all what they wait for."""
        for future in self._taken():
            future.set_result(credentials)

    def fail(self, error: SeatError) -> None:
        """End them all with an error."""
        for future in self._taken():
            future.set_exception(error)

    def sweep(self, now: float, error: Callable[[], SeatError]) -> bool:
        """End those that have waited for too long with ``error()``; return whether there were any."""
        were_any = bool(self._waiting)
        for asked_at, future in self._waiting:
            if now >= asked_at + self._seconds_max and not future.done():
                future.set_exception(error())
        self._waiting = [entry for entry in self._waiting if not entry[1].done()]
        return were_any

    def _taken(self) -> list[Waiting]:
        waiting, self._waiting = self._waiting, []
        return [future for _, future in waiting if not future.done()]
