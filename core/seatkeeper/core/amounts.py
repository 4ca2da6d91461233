"""Amounts as people read them: counts, lengths of time, sizes. Needs nothing."""

from __future__ import annotations

from datetime import timedelta


def count(number: int, thing: str) -> str:
    """Return ``1 seat``, ``2 seats``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def span(length: timedelta | float) -> str:
    """Return a length of time in its two largest units."""
    seconds = length.total_seconds() if isinstance(length, timedelta) else length
    if 0.05 <= seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = max(0, round(seconds))
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"


def size(count: int) -> str:
    """Return a number of bytes in a unit that suits it."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.2f} GiB"


def exact_seconds(length: timedelta) -> str:
    """Return a length in seconds, as digits to a microsecond: ``0.25``, ``1234567``."""
    whole, rest = divmod(length // timedelta(microseconds=1), 10**6)
    return f"{whole}.{rest:06}".rstrip("0").rstrip(".")
