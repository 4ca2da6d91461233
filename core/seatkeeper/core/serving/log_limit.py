"""Keeps callers from filling the log with one and the same line."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

LOG_SECONDS = 10.0
"""The same line of the same caller is written once in so much time."""
KEYS_MAX = 256
"""Most callers and lines that are remembered; the oldest are forgotten first."""


class LogLimit:
    """Says which lines to write. Belongs to one event loop."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._written: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def passes(self, key: Hashable) -> int | None:
        """Return how many lines of ``key`` were left out before this one; None: leave it out."""
        now = self._monotonic()
        written_at, left_out = self._written.pop(key, (now - LOG_SECONDS, 0))
        if now - written_at < LOG_SECONDS:
            self._written[key] = (written_at, left_out + 1)
            return None
        self._written[key] = (now, 0)
        if len(self._written) > KEYS_MAX:
            self._written.popitem(last=False)
        return left_out
