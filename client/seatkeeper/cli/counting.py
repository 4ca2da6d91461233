"""How a pool counts, and what it has counted, as it is shown."""

from __future__ import annotations

from typing import Any

from seatkeeper.cli.render import iso
from seatkeeper.core.amounts import count, span
from seatkeeper.v1 import pool_service_pb2 as pb


def counting_facts(pool: pb.Pool) -> list[tuple[str, str]]:
    """Return what `pool show` says of how a pool counts."""
    from seatkeeper.client.admin.counting import costs_text  # loads gRPC

    counting, found = pool.spec.policy.counting, []
    if counting.costs:
        found.append(("costs", costs_text(counting)))
    if pool.spec.policy.count_once:
        found.append(("count once", ", ".join(pool.spec.policy.count_once)))
    if counting.advisory:
        found.append(("advisory", "it refuses nothing that can be granted"))
    if pool.HasField("advisory"):
        found += _counted(pool.advisory)
    return found


def _counted(counts: pb.AdvisoryCounts) -> list[tuple[str, str]]:
    ended = f" to {iso(counts.until)}" if counts.HasField("until") else ""
    found = [
        ("counted", f"from {iso(counts.since)}{ended}"),
        ("would have waited", count(counts.waited, "request")),
        ("would be refused", count(counts.refused, "request")),
    ]
    if counts.seats_most:
        over = counts.over_longest.ToTimedelta()
        most = f"{count(counts.seats_most, 'seat')} at most"
        found.append(("beyond its seats", f"{most}; for {span(over)} at a time, or longer"))
    return found


def counting_json(pool: pb.Pool) -> dict[str, Any]:
    """Return the same for programs; nothing where the pool says nothing."""
    counting = pool.spec.policy.counting
    found: dict[str, Any] = {}
    if pool.spec.policy.count_once:
        found["count_once"] = list(pool.spec.policy.count_once)
    if pool.spec.policy.HasField("counting"):
        found["costs"] = {each.name: each.seats for each in counting.costs}
        found["advisory"] = counting.advisory
    if pool.HasField("advisory"):
        counts = pool.advisory
        found["counted"] = {
            "since": iso(counts.since),
            "until": iso(counts.until) if counts.HasField("until") else None,
            "would_have_waited": counts.waited,
            "would_be_refused": counts.refused,
            "seats_beyond_most": counts.seats_most,
            "beyond_longest_seconds": counts.over_longest.ToTimedelta().total_seconds(),
        }
    return found
