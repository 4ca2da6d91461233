"""Of several FEATURE lines of a feature a server uses one at a time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

from seatkeeper.client.imports.parsed import Licence, Outcome

Found = tuple[Outcome, Licence]
Key = Callable[[str], str]
"""What of a name counts: all of it, or all but its case."""
_Order = tuple[int, int, int, list[int], int, int]
DAY_ONE = date.min


def uses(used: Found, licence: Licence) -> str:
    """Return which of several FEATURE lines counts, and when it ends where this one goes on."""
    outcome, first = used
    reason = f"of several FEATURE lines the server uses one, here {outcome.statement.place}"
    ends = first.expires
    is_longer = ends is not None and (licence.expires is None or licence.expires > ends)
    return f"{reason}, which ends on {ends}" if is_longer else reason


def not_first(licences: list[Found], today: date, key: Key) -> dict[int, Found]:
    """Return which of several FEATURE lines the server does not use, and which it uses instead.

    It uses the first, as it sorts them, of those that are in force. One that begins when that has ended
    is used then.
    """
    ordered: dict[tuple[str, str], list[tuple[_Order, Outcome, Licence]]] = {}
    files: dict[str, int] = {}
    for place, (outcome, licence) in enumerate(licences):
        of_file = files.setdefault(outcome.statement.file, len(files))
        if not licence.is_first_only:
            continue
        is_later = licence.starts is not None and licence.starts > today
        later = licence.starts.toordinal() if is_later and licence.starts else 0
        newest_first = -(licence.issued or DAY_ONE).toordinal()
        higher_first = [-part for part in _version(licence.version)]
        by = later, of_file, licence.order, higher_first, newest_first, place
        at = key(licence.vendor), key(licence.feature)
        ordered.setdefault(at, []).append((by, outcome, licence))
    instead: dict[int, Found] = {}
    for lines in ordered.values():
        # Each that is used begins after the one before has ended, so only the last can be in the way.
        last: Found | None = None
        for by, outcome, licence in sorted(lines, key=lambda line: line[0]):
            is_free = last is None or (
                bool(by[0])
                and last[1].expires is not None
                and last[1].expires < (licence.starts or DAY_ONE)
            )
            if is_free:
                last = outcome, licence
            elif last is not None:
                instead[id(outcome)] = last
    return instead


def _version(text: str) -> list[int]:
    """Return a version as numbers; what is none counts as 0."""
    parts = text.split(".")[:8]
    return [
        int(part) if part.isascii() and part.isdigit() and len(part) < 10 else 0
        for part in parts
    ]
