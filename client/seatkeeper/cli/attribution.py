"""How it is shown for whom seats are held and waited for: the one place for all commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from seatkeeper.v1 import pool_service_pb2 as pools_pb

Attributed = pools_pb.HeldGrant | pools_pb.QueuedTicket


def attribution_json(of: Attributed) -> dict[str, object]:
    """Return it for programs."""
    return {
        "holder": of.holder,
        "project": of.project,
        "priority": of.priority,
        "labels": dict(sorted(of.attributes.labels.items())),
        "cost_class": of.attributes.cost_class or None,
        "cost": max(1, of.attributes.cost),
    }


def attribution_columns(
    shown: Sequence[Attributed],
) -> tuple[Sequence[str], Callable[[Attributed], Sequence[str]]]:
    """Return the headings that stand beside the holder's name, and what stands below them."""
    if not any(each.attributes.labels for each in shown):
        return ("project",), lambda of: (of.project,)

    def labels(of: Attributed) -> str:
        return " ".join(f"{key}={value}" for key, value in sorted(of.attributes.labels.items()))

    return ("project", "labels"), lambda of: (of.project, labels(of))
