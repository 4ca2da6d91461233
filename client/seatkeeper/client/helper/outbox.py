"""Messages of the helper for a program that may not read for a long time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable

from seatkeeper.client.helper.frames import Frame

NOTES_MAX = 256
"""Log records kept for a program that does not read; later ones are dropped."""


class Outbox:
    """Sends frames in order; while the program does not read, keeps only the newest of a kind.

    Bounded by what the program asked for: one answer for each request, one state for each grant.
    """

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._answers: deque[Frame] = deque()
        self._newest: dict[Hashable, Frame] = {}
        self._notes: deque[Frame] = deque(maxlen=NOTES_MAX)

    def open(self, transport: asyncio.Transport) -> None:
        """Send there."""
        self._transport = transport

    def send(self, answer: Frame) -> None:
        """Send a frame that must not be left out."""
        if not self._write(answer):
            self._answers.append(answer)

    def put(self, key: Hashable, update: Frame) -> None:
        """Send a frame that replaces an earlier one of the same ``key``."""
        if not self._write(update):
            self._newest[key] = update

    def drop(self, key: Hashable) -> None:
        """Do not send what is kept under ``key``."""
        self._newest.pop(key, None)

    def notify(self, note: Frame) -> None:
        """Send a frame that may be left out."""
        if not self._write(note):
            self._notes.append(note)

    def pause(self) -> None:
        """Keep everything from now on."""
        self._paused = True

    def resume(self) -> None:
        """Send what was kept: answers first, for updates may be about what they bring."""
        self._paused = False
        for kept in (self._answers, self._notes):
            while kept and self._write(kept[0]):
                kept.popleft()
        for key in list(self._newest):
            if self._write(self._newest[key]):
                del self._newest[key]

    def _write(self, what: Frame) -> bool:
        if self._transport is None or self._paused:
            return False
        if not self._transport.is_closing():
            # May pause the outbox before it returns.
            self._transport.write(what.encode())
        return True
