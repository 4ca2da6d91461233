"""Ids that the caller chooses: UUIDv7, strictly increasing within a process (RFC 9562, 6.2).

The service asks one session to choose its grant ids in increasing order, so that one watermark per
pool is enough to recognise a late duplicate of anything that is completed.

Layout: 48 bits of Unix milliseconds, then a counter of 74 bits split around version and variant.
The counter starts at a random number in each new millisecond, its top bit clear, and grows by
random steps within one, so ids are increasing here and unlike those of other processes.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

_COUNTER_BITS = 74
_STEP_BITS = 32
_LOW_BITS = 62


class IdGenerator:
    """Makes ids, each greater than the one before, whatever the clock and the threads do."""

    __slots__ = ("_counter", "_lock", "_millis", "_now_millis", "_random_bits")

    def __init__(
        self,
        *,
        now_millis: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        random_bits: Callable[[int], int] | None = None,
    ) -> None:
        self._now_millis = now_millis
        # From the operating system: a forked child must not go on with its parent's numbers.
        self._random_bits = random_bits or random.SystemRandom().getrandbits
        self._lock = threading.Lock()
        self._millis = -1
        self._counter = 0

    def __call__(self) -> str:
        """Return the next id, in lower-case canonical form."""
        with self._lock:
            millis = self._now_millis()
            if millis > self._millis:
                self._millis = millis
                self._counter = self._random_bits(_COUNTER_BITS - 1)
            else:
                # Same millisecond, or the clock went back: the counter carries the order.
                self._counter += 1 + self._random_bits(_STEP_BITS)
            millis, counter = self._millis, self._counter
        return _canonical(millis, counter)


def _canonical(millis: int, counter: int) -> str:
    # A clock that stands still can use the counter up only after 2^41 ids; then time moves on.
    millis += counter >> _COUNTER_BITS
    high = (counter >> _LOW_BITS) & 0xFFF
    low = counter & ((1 << _LOW_BITS) - 1)
    value = (millis << 80) | (0x7 << 76) | (high << 64) | (0b10 << 62) | low
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


new_id = IdGenerator()
"""The process's own generator. Every session of the process uses it."""
