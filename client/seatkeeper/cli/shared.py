"""With which others a grant counts once, as it is shown."""

from __future__ import annotations

from seatkeeper.v1 import pool_service_pb2 as pb


def shared_facts(grant: pb.HeldGrant) -> list[tuple[str, str]]:
    """Return with which others a grant counts once; nothing where it counts by itself."""
    if not grant.counts_once:
        return []
    said = ", ".join(f"{each.attribute} {each.value}" for each in grant.counts_once)
    return [("counts once", f"with all grants of the pool of {said}")]


def shared_json(grant: pb.HeldGrant) -> dict[str, str]:
    """Return the same for programs."""
    return {each.attribute: each.value for each in grant.counts_once}
