"""Seats that are called back for a project under its guarantee, as the checker reads the history."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from tests.unit.kit import NOW, a_grant, a_ticket, changed, uuid7

from seatkeeper.oracle.reclaims import ReclaimLedger
from seatkeeper.oracle.stored import StoredGrant, StoredShare, read_grant, read_ticket
from seatkeeper.server.domain import Cause, Grant, Guard, Reclaim, Reclaims
from seatkeeper.server.store import records

SHARES = {"cv": StoredShare("", None, guaranteed=1), "nlp": StoredShare("", None, guaranteed=1)}


def stored(*grants: Grant) -> dict[str, StoredGrant]:
    return {
        each.grant_id: read_grant(each.grant_id, records.encode_grant(each)) for each in grants
    }


def said(kept: Mapping[str, StoredGrant]) -> list[str]:
    """What is wrong with calling back a seat of cv for nlp, as to what is left to cv."""
    reclaim = Reclaim(1, NOW, timedelta(seconds=12), "nlp", Cause.GUARANTEE, "x")
    ledger = ReclaimLedger()
    guard = Guard(9, 9, reclaims=Reclaims({uuid7(1): reclaim}, (NOW,), 1))
    ledger.note_guard(records.encode_guard(guard))
    waits = changed(a_ticket(3), project="nlp")
    waiting = read_ticket(waits.grant_id, records.encode_ticket(waits))
    found = ledger.settle(
        *(9, 8, stored(a_grant(1)), [waiting], (), SHARES),
        kept=kept,
    )
    return [each for each in found if "under" in each]


def test_a_project_keeps_what_is_guaranteed_to_it() -> None:
    (why,) = said({})
    assert "cv would have 0 seats" in why


def test_what_is_kept_for_a_project_counts_as_its_own() -> None:
    """It cannot be called back, and another could not have it either."""
    assert said(stored(a_grant(2, fence=2))) == []
    assert said(stored(changed(a_grant(2, fence=2), project="nlp"))) != []
