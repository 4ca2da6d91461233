"""The memory that a program and its helper share: until when each lease may be counted on.

One process writes, any number read. A word is written with one store and read with one load, which
tears on no machine that Linux runs on as long as the word is aligned.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from typing import Self

TIME_BITS = 40
"""A time is kept in milliseconds since boot: 34 years."""
TIME_MAX = (1 << TIME_BITS) - 1
GENERATIONS = 1 << (64 - TIME_BITS)
"""A slot is reused in turn with all free others: 16 million reuses of one slot pass before a
generation comes again."""
SLOTS = 1 << 16
"""Most leases and grants of one program at a time. Memory is used by the page, when it is written."""
WORD_BYTES = 8
WORDS_OF_A_SLOT = 2
TABLE_BYTES = SLOTS * WORDS_OF_A_SLOT * WORD_BYTES
PULSE_SLOT = 0
"""Belongs to the helper itself: its first word changes as long as it runs."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot of the table, as its owner knows it."""

    index: int
    generation: int


def boot_ms() -> int:
    """Return the time, in milliseconds of CLOCK_BOOTTIME, rounded up: nothing is believed too long."""
    return -(-time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000)


def to_ms(at: float) -> int:
    """Return a time in seconds as the table keeps it, rounded down; infinity is its largest."""
    return TIME_MAX if math.isinf(at) else max(0, min(TIME_MAX, int(at * 1000)))


class SlotReader:
    """Reads a table. What it returns was true when the word was loaded."""

    def __init__(self, memory: memoryview) -> None:
        self._words = memory.cast("Q")

    @classmethod
    def of(cls, memory: object) -> Self:
        """Read the table in ``memory``, such as an mmap."""
        return cls(memoryview(memory))  # type: ignore[arg-type]  # anything with a buffer

    def until_ms(self, slot: Slot) -> int:
        """Return until when the slot's owner may believe; 0: no more."""
        return self._read(slot, 0)

    def doubt_ms(self, slot: Slot) -> int:
        """Return from when it should doubt; 0: already."""
        return self._read(slot, 1)

    def pulse(self) -> int:
        """Return a number that changes while the helper runs."""
        return self._words[PULSE_SLOT * WORDS_OF_A_SLOT]

    def _read(self, slot: Slot, word: int) -> int:
        value = self._words[slot.index * WORDS_OF_A_SLOT + word]
        return value & TIME_MAX if value >> TIME_BITS == slot.generation else 0


class TableFull(Exception):
    """Every slot is in use."""


class SlotWriter:
    """Gives out slots and writes them. There is one for a table, in the helper."""

    def __init__(self, memory: memoryview) -> None:
        self._words = memory.cast("Q")
        slots = len(self._words) // WORDS_OF_A_SLOT
        self._free = deque(range(PULSE_SLOT + 1, slots))
        self._generations: dict[int, int] = {}

    @classmethod
    def of(cls, memory: object) -> Self:
        """Write the table in ``memory``, such as an mmap."""
        return cls(memoryview(memory))  # type: ignore[arg-type]  # anything with a buffer

    def take(self) -> Slot:
        """Return a slot that says: believe nothing. Raises `TableFull`."""
        if not self._free:
            raise TableFull
        index = self._free.popleft()
        slot = Slot(index, self._generations.setdefault(index, 1))
        self.write(slot, 0, 0)
        return slot

    def write(self, slot: Slot, until_ms: int, doubt_ms: int) -> None:
        """Say until when to believe, and from when to doubt."""
        assert self._generations.get(slot.index) == slot.generation
        at = slot.index * WORDS_OF_A_SLOT
        # Doubt first: a reader between the two errs to the side of doubt.
        self._words[at + 1] = slot.generation << TIME_BITS | doubt_ms
        self._words[at] = slot.generation << TIME_BITS | until_ms

    def end(self, slot: Slot) -> None:
        """Say: believe nothing any more. The slot may be given to another. Safe to call twice."""
        if self._generations.get(slot.index) == slot.generation:
            self.write(slot, 0, 0)
            self._generations[slot.index] = (slot.generation + 1) % GENERATIONS
            self._free.append(slot.index)

    def heartbeat(self, pulse: int) -> None:
        """Show that the helper runs."""
        self._words[PULSE_SLOT * WORDS_OF_A_SLOT] = pulse
