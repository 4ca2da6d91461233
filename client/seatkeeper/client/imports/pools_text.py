"""A file of pools in which each entry says from which lines it came."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from seatkeeper.client.imports.parsed import Outcome
from seatkeeper.client.pools_file import write_pools
from seatkeeper.core.text import printable
from seatkeeper.v1 import pool_service_pb2 as pb

ORIGINS_SHOWN = 20
"""Most lines that are named above one entry."""
_POOL_DEPTH = 2
_KEY_DEPTH = 4
_ENTRY_DEPTH = 6
_OF_ENTRIES = ("projects", "groups", "lots")
"""Keys below which there are names, each with its own origin."""


@dataclass(frozen=True)
class Entry:
    """A pool and where it and its projects come from."""

    spec: pb.PoolSpec
    origins: tuple[Outcome, ...]
    parts: dict[str, list[tuple[Outcome, ...]]]
    """Where parts of it come from, by key: for ``projects``, ``groups`` and ``lots`` each name below
    it, in the order of the specification."""


Line = tuple[str, Entry | None]
"""A line of the file, and the pool that it is about."""


def lines_of(entries: Iterable[Entry], *, head: str, as_ascii: bool) -> list[Line]:
    """Return the lines of the file. ``as_ascii``: for where it will not be encoded as UTF-8."""
    start, pools = write_pools([]).splitlines()
    assert pools == "pools: {}"
    found: list[Line] = [(_comment(head, 0, as_ascii), None), (start, None), ("pools:", None)]
    for entry in entries:
        found += [(line, entry) for line in _of(entry, as_ascii)]
    return found


def _of(entry: Entry, as_ascii: bool) -> Iterator[str]:
    yield from _origins(entry.origins, _POOL_DEPTH, as_ascii)
    each: Iterator[tuple[Outcome, ...]] = iter(())
    for line in write_pools([entry.spec], as_ascii=as_ascii).splitlines()[2:]:
        depth = len(line) - len(line.lstrip(" "))
        if depth == _KEY_DEPTH:
            key = line.strip().partition(":")[0]
            each = iter(entry.parts.get(key, ()))
            if key not in _OF_ENTRIES:
                yield from _origins(next(each, ()), _KEY_DEPTH, as_ascii)
        elif depth == _ENTRY_DEPTH:
            yield from _origins(next(each, ()), _ENTRY_DEPTH, as_ascii)
        yield line


def _origins(outcomes: tuple[Outcome, ...], depth: int, as_ascii: bool) -> Iterator[str]:
    for outcome in outcomes[:ORIGINS_SHOWN]:
        statement = outcome.statement
        yield _comment(f"{statement.place}: {statement.shown}", depth, as_ascii)
    if len(outcomes) > ORIGINS_SHOWN:
        yield _comment(f"and {len(outcomes) - ORIGINS_SHOWN} more", depth, as_ascii)


def _comment(text: str, depth: int, as_ascii: bool) -> str:
    shown = printable(text)
    if as_ascii:
        shown = shown.encode("ascii", "backslashreplace").decode()
    return f"{' ' * depth}# {shown}"
