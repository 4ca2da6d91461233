"""Whether nodes published what happened, and nothing else, by etcd's history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tests.simulation.cluster import KEYS

from seatkeeper.server.domain import Instant
from seatkeeper.server.events.history import usage_events
from seatkeeper.server.events.usage import SESSION_ENDED, UsageEvent, UsageKind
from seatkeeper.server.store import Change


def check_usage(changes: Iterable[Change], published: Iterable[UsageEvent]) -> list[str]:
    """Return what was published and is not so, or was published twice (I11).

    Two things may be. Nodes that disagree for a moment about who owns a pool both see a session end.
    And a release, also by force, may be committed after the session's lease has ended, before any watch
    delivers that: then the node says released or reclaimed, and the history expired. A node that dies
    publishes nothing, so what is missing is no violation here.
    """
    history = usage_events(changes, KEYS, seen_at=Instant(0))
    happened = {(each.kind, each.grant_id, each.fence) for each in history}
    counts = Counter(
        (each.kind, each.grant_id, each.fence, each.reason)
        for each in published
        if each.kind is not UsageKind.DENIED
    )
    found = []
    for (kind, grant_id, fence, reason), count in counts.items():
        if count > 1 and reason != SESSION_ENDED:
            found.append(f"I11 {kind} {grant_id} was published {count} times")
        expired = (UsageKind.EXPIRED, grant_id, fence)
        late = kind in {UsageKind.RELEASED, UsageKind.RECLAIMED} and expired in happened
        if (kind, grant_id, fence) not in happened and not late:
            found.append(f"I11 {kind} {grant_id} was published, and is not in the history")
    return found
