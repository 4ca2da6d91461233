"""Where the time of a handoff goes, from what the clients and a traced node noted.

A handoff is one release and the grant that it made possible. A transaction deletes grants and writes
others; the first seat given back goes to the first grant written, as in ``bench.handoff``. Its parts,
all by the machine's monotonic clock:

- ``sent``: from the call of ``release`` until the node has read it;
- ``decided``: until the node begins the transaction that writes the next grant;
- ``committed``: until the store has answered;
- ``written``: until the node writes the message with the grant;
- ``received``: until the next client's ``acquire`` returns.

Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

PARTS = ("sent", "decided", "committed", "written", "received")


@dataclass(frozen=True, slots=True)
class TracedCommit:
    """A transaction that succeeded, and the grants in it, by their ids."""

    began: float
    ended: float
    deleted: tuple[str, ...]
    written: tuple[str, ...]


@dataclass(slots=True)
class NodeTrace:
    """What a node did and when."""

    releases_read: dict[str, float] = field(default_factory=dict)
    grants_sent: dict[str, float] = field(default_factory=dict)
    commits: list[TracedCommit] = field(default_factory=list)


def parts(
    trace: NodeTrace,
    released: Mapping[str, float],
    acquired: Mapping[str, float],
    free_before: int,
) -> dict[str, list[float]]:
    """Return the seconds of every part, one of each for every handoff that was seen whole.

    ``released`` and ``acquired`` say when clients gave grants back and got them; ``free_before`` is how
    many seats were free when the first transaction began.
    """
    found: dict[str, list[float]] = {part: [] for part in PARTS}
    for gone, fresh, commit in _pairs(trace.commits, free_before):
        moments = (
            *(released.get(gone), trace.releases_read.get(gone)),
            *(commit.began, commit.ended),
            *(trace.grants_sent.get(fresh), acquired.get(fresh)),
        )
        known = [moment for moment in moments if moment is not None]
        if len(known) == len(moments):
            for part, began, ended in zip(PARTS, known, known[1:], strict=False):
                found[part].append(ended - began)
    return found


def _pairs(
    commits: Iterable[TracedCommit], free_before: int
) -> Iterable[tuple[str, str, TracedCommit]]:
    """Yield the grant that ended, the one that follows it, and the transaction that wrote that."""
    freed: deque[str] = deque([""] * free_before)
    for commit in sorted(commits, key=lambda commit: commit.ended):
        freed.extend(commit.deleted)
        for fresh in commit.written:
            if freed:
                yield freed.popleft(), fresh, commit
