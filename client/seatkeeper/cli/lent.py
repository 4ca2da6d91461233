"""What is shown of seats that machines have borrowed, for people and for programs."""

from __future__ import annotations

from typing import Any

from seatkeeper.core.instants import instant_shown
from seatkeeper.v1 import pool_service_pb2 as pb

THUMBPRINT_SHOWN = 12
"""Letters of a machine's thumbprint in a table: enough to distinguish machines."""


def borrow_json(message: pb.BorrowRule) -> dict[str, Any]:
    """Return how seats of a pool are borrowed, for programs."""
    # The client loads gRPC, which is hushed first: `command._hush_grpc`.
    from seatkeeper.client.admin.borrows import borrow_rule
    from seatkeeper.client.admin.rules import who_texts

    rule = borrow_rule(message)
    return {
        "longest_seconds": rule.longest.total_seconds(),
        "seats": rule.seats,
        "skew_seconds": rule.skew.total_seconds(),
        "low_water": rule.low_water,
        "per_project": rule.per_project,
        "include": who_texts(message.include),
        "exclude": who_texts(message.exclude),
    }


def borrowed_json(borrowed: pb.Borrowed) -> dict[str, Any]:
    """Return which machine has borrowed a grant, for programs."""
    return {
        "machine": borrowed.machine,
        "until": borrowed.until.ToJsonString(),
        "free_at": borrowed.free_at.ToJsonString(),
        "borrowed_at": borrowed.borrowed_at.ToJsonString(),
    }


def borrowed_facts(grant: pb.HeldGrant) -> list[tuple[str, str]]:
    """Return the same for people."""
    if not grant.HasField("borrowed"):
        return []
    borrowed = grant.borrowed
    until, free = (
        instant_shown(each.ToMilliseconds()) for each in (borrowed.until, borrowed.free_at)
    )
    return [
        ("borrowed", f"until {until}; freed at {free}, or when its machine gives it back"),
        ("machine", borrowed.machine),
    ]


def lent_to(grant: pb.HeldGrant) -> tuple[str, str]:
    """Return until when a grant is borrowed, and by which machine, as a table has it."""
    if not grant.HasField("borrowed"):
        return "-", "-"
    until = instant_shown(grant.borrowed.until.ToMilliseconds())
    return until, grant.borrowed.machine[:THUMBPRINT_SHOWN]


def pool_facts(pool: pb.Pool) -> list[tuple[str, str]]:
    """Return how many seats of a pool are borrowed, where any may be."""
    if not pool.spec.policy.HasField("borrow") and not pool.borrowed:
        return []
    return [("borrowed", f"{pool.borrowed} of {pool.held} held")]
