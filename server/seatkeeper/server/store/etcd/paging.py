"""Where the pages of a listing end, so that a listing costs etcd as much as what is listed.

Theory of operation. etcd counts all keys of the range that is asked for, however few of them it is to
return. So a listing in pages of the whole rest costs the square of its length: of 100,000 keys, four
fifths of the time was counting. Therefore a page is asked for in a range that holds little more than
the page. Where such a range ends is estimated from the page before, whose first and last key show how
densely the keys lie; ids are numbers written in hexadecimal digits, so that can be said of them.

An estimate is never trusted: a range that turns out to hold more than was wanted is left after a page,
and one that holds much less is followed by a page of the whole rest, which finds the next keys wherever
they are. So keys that lie in any other way cost at most twice the pages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

PAGES_WANTED = 8
"""How many pages a range should hold. It begins with counting them all, and ends with half a page."""
NO_END = b"\0"
"""How etcd writes a range that goes to the last of all keys."""
_DIGIT = re.compile(rb"[0-9a-f]")
_ID_BEGUN = re.compile(rb"[0-9a-f-]*\Z")


class Pages:
    """What to ask for next, of a listing from ``key`` to ``end``."""

    def __init__(self, key: bytes, end: bytes, limit: int) -> None:
        """Ask for the first page of the whole, with at most ``limit`` keys."""
        self.key, self.range_end = key, end
        self._end = end
        self._wanted = PAGES_WANTED * limit
        self._seen: tuple[bytes, bytes] | None = None
        """The first key that was found in the present range, and the last."""
        self._found = 0

    def turn(self, keys: Sequence[bytes], *, count: int, more: bool) -> bool:
        """Go on after a page; return False when it was the last.

        ``count``: the keys of the range that was asked for; ``more``: whether it holds others.
        """
        if keys:
            self._seen = (self._seen[0] if self._seen else keys[0], keys[-1])
            self._found += len(keys)
        if not more and self.range_end == self._end:
            return False
        self.key = keys[-1] + b"\0" if more else self.range_end
        if more and count <= 2 * self._wanted:
            return True
        near = None
        if self._seen is not None and self._found >= (1 if more else self._wanted // 8):
            near = range_end_after(*self._seen, self._found, self._wanted)
        is_near = (
            near is not None and self.key < near and (near < self._end or self._end == NO_END)
        )
        self.range_end = near if near is not None and is_near else self._end
        self._seen, self._found = None, 0
        return True


def range_end_after(first: bytes, last: bytes, found: int, wanted: int) -> bytes | None:
    """Return where a range ends that begins after ``last`` and holds about ``wanted`` keys.

    ``found`` keys lie from ``first`` to ``last``. None: they show no density.
    """
    differing = (n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    common = first[: next(differing, len(first))]
    stem = common[: len(common) - len(_ID_BEGUN.findall(common)[0])]
    low, high = first[len(stem) :], last[len(stem) :]
    if low == high or _DIGIT.sub(b"0", low) != _DIGIT.sub(b"0", high):
        return None  # one key, or of two kinds: not with digits in the same places
    lowest, highest = (int(b"".join(_DIGIT.findall(each)), 16) for each in (low, high))
    end = highest + max(1, (highest - lowest) * wanted // max(1, found - 1))
    digits = len(_DIGIT.findall(high))
    if end >= 16**digits:
        return None
    written = iter(f"{end:0{digits}x}")
    return stem + _DIGIT.sub(lambda _: next(written).encode(), high)
