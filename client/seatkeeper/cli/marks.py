"""What a grant of an advisory pool is marked with, and what seats cost, as it is shown."""

from __future__ import annotations

from typing import Any

from seatkeeper.cli.attribution import Attributed
from seatkeeper.core.amounts import count
from seatkeeper.v1 import pool_service_pb2 as pb


def mark_json(grant: pb.HeldGrant) -> dict[str, Any] | None:
    """Return why an advisory pool would not have granted seats, for programs; None: it would."""
    if not grant.HasField("advisory"):
        return None
    mark = grant.advisory
    return {
        "rule": mark.rule,
        "message": mark.message,
        "seats_beyond": mark.seats_beyond,
        "would": would(grant),
    }


def would(grant: pb.HeldGrant) -> str:
    """Return what would have become of a marked grant."""
    return "be refused" if grant.advisory.refused else "wait"


def mark_facts(grant: pb.HeldGrant) -> list[tuple[str, str]]:
    """Return the same for people."""
    if not grant.HasField("advisory"):
        return []
    mark = grant.advisory
    beyond = (
        f"; {count(mark.seats_beyond, 'seat')} beyond the pool's" if mark.seats_beyond else ""
    )
    said = f"would {would(grant)}: {mark.message} (rule `{mark.rule}`){beyond}"
    return [("if it were binding", said)]


def seats_text(of: Attributed) -> str:
    """Return the seats of a grant or a ticket, and what they are made up of where one costs more."""
    cost, named = max(1, of.attributes.cost), of.attributes.cost_class
    if cost == 1 and not named:
        return str(of.seats)
    as_class = f" as {named}" if named else ""
    return f"{of.seats}: {of.seats // cost}{as_class}, at {cost} each"
