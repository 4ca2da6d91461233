"""Which known defects a version of etcd has.

From etcd's changelogs. Only defects that touch what Seatkeeper promises, or who may read it, are
here; each line says what it can do to a user of ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Version = tuple[int, int, int]


@dataclass(frozen=True)
class Defect:
    """A defect and the first release of each line without it."""

    what: str
    fixed_in: dict[tuple[int, int], Version]
    """By line, such as (3, 5). A line later than all of these has the fix from its start."""
    since: dict[tuple[int, int], Version] | None = None
    """First release of a line with the defect; unnamed lines have it from their start."""


DEFECTS = (
    Defect(
        "committed writes can be missing on members that were killed under load",
        {(3, 5): (3, 5, 3)},
        since={(3, 4): (3, 4, 9999)},
    ),
    Defect(
        "members can come to disagree about users after a restore from a snapshot",
        {(3, 4): (3, 4, 22), (3, 5): (3, 5, 6)},
        since={(3, 4): (3, 4, 21), (3, 5): (3, 5, 5)},
    ),
    Defect(
        "transactions that only delete are refused too when the database is full",
        {(3, 5): (3, 5, 7)},
    ),
    Defect(
        "the progress of a watch can be reported too high",
        {(3, 4): (3, 4, 25), (3, 5): (3, 5, 8)},
    ),
    Defect(
        "a leader that was paused revokes leases that are alive: holders lose their seats",
        {(3, 4): (3, 4, 31), (3, 5): (3, 5, 13)},
    ),
    Defect(
        "a watch can lose changes after a compaction",
        {(3, 4): (3, 4, 31), (3, 5): (3, 5, 13)},
    ),
    Defect(
        "the revision can go backwards after a crash during compaction",
        {(3, 4): (3, 4, 32), (3, 5): (3, 5, 14)},
    ),
    Defect(
        "a watch from the compacted revision can miss a deletion",
        {(3, 4): (3, 4, 36), (3, 5): (3, 5, 18)},
    ),
    Defect(
        "a renewal can be answered for a lease that was revoked",
        {(3, 4): (3, 4, 38), (3, 5): (3, 5, 23), (3, 6): (3, 6, 5)},
    ),
    Defect(
        "a defragmentation during a snapshot can corrupt the database",
        {(3, 4): (3, 4, 38), (3, 5): (3, 5, 23), (3, 6): (3, 6, 5)},
    ),
    Defect(
        "a read can return old data after a pause of the process",
        {(3, 4): (3, 4, 42), (3, 5): (3, 5, 28), (3, 6): (3, 6, 9)},
        since={(3, 4): (3, 4, 20)},
    ),
    Defect(
        "users can reach beyond their permissions (CVE-2026-33343, CVE-2026-33413)",
        {(3, 4): (3, 4, 42), (3, 5): (3, 5, 28), (3, 6): (3, 6, 9)},
    ),
    Defect(
        "a user with permission for one key can watch all later ones (GHSA-xg4h-6gfc-h4m8)",
        {(3, 4): (3, 4, 9999), (3, 5): (3, 5, 33), (3, 6): (3, 6, 14)},
    ),
)

_LINES_ENDED = {(3, 4): "2026-06-01"}


def parse_version(text: str) -> Version | None:
    """Return ``3.5.30`` or ``v3.5.30-rc.0`` as numbers, or None."""
    match = re.match(r"v?(\d+)\.(\d+)\.(\d+)", text)
    return None if match is None else (int(match[1]), int(match[2]), int(match[3]))


def version_warnings(version: str) -> tuple[str, ...]:
    """Return what is wrong with this version of etcd, a sentence each; nothing for a good one.

    Each says from which release on it is gone. Versions before 3.4 are too old for Seatkeeper;
    one that cannot be read is warned about, as nothing is known about it.
    """
    number = parse_version(version)
    if not version:
        return ("etcd does not report its version to this user, so its defects are not known",)
    if number is None:
        return (f"etcd {version!r}: not a version we know, so nothing is known of its defects",)
    line = number[:2]
    if line < (3, 4):
        return (f"etcd {version}: older than 3.4, which is the least that can work",)
    warnings = []
    if line in _LINES_ENDED:
        warnings.append(f"etcd {version}: gets no fixes since {_LINES_ENDED[line]}")
    for defect in DEFECTS:
        since = (defect.since or {}).get(line, (*line, 0))
        fixed = defect.fixed_in.get(line)
        if fixed is None or not since <= number < fixed:
            continue
        cure = "in no release of this line" if fixed[2] == 9999 else ".".join(map(str, fixed))
        warnings.append(f"etcd {version}: {defect.what}; fixed in {cure}")
    return tuple(warnings)
