"""The checker of lots: each kind of bad history is reported, and a good one is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seatkeeper.core.lots import Lot, LotState, PoolLots
from seatkeeper.internal.v1 import state_pb2
from seatkeeper.oracle.history import FaultKind, replay
from seatkeeper.oracle.lots import check_lots, unwritten
from seatkeeper.oracle.stored import pool_key
from seatkeeper.server.domain import PoolSpec
from seatkeeper.server.store import Change, Entry, records

POOL = "p"
ACME = Lot(name="acme", seats=2, begins=1_000, ends=2_000)
BEGUN = replace(ACME, state=LotState.IN_FORCE, began_at=1_000)
ENDED = replace(BEGUN, state=LotState.ENDED, ended_at=2_000)


def written(revision: int, *lots: Lot, said: int | None = None) -> Change:
    spec = PoolSpec(POOL, 0).with_lots(PoolLots(lots, 1))
    if said is not None:
        spec = replace(spec, seats=said)
    value = records.encode_spec(spec)
    key = pool_key(POOL)
    return Change(key, Entry(key, value, revision), revision)


def faults(*history: Change, skew: float = 0) -> list[str]:
    """What is wrong with a history whose revision n came about at n seconds."""
    at = {change.revision: change.revision * 1000.0 for change in history}
    return list(check_lots(history, at, skew_millis=skew))


def test_a_lot_that_begins_and_ends_on_its_dates() -> None:
    assert faults(written(1, ACME), written(2, BEGUN), written(3, ENDED)) == []
    assert faults(written(1, ACME), written(3, ENDED)) == []


@pytest.mark.parametrize(
    ("history", "fault"),
    [
        ([written(1, BEGUN), written(2, ACME)], "went back from state 1 to 0"),
        ([written(2, ENDED), written(3, BEGUN)], "went back from state 2 to 1"),
        (
            [written(1, BEGUN), written(2, replace(BEGUN, began_at=1_500))],
            "was written again",
        ),
        ([written(1, replace(BEGUN, began_at=999))], "before 1000 by its writer's clock"),
        ([written(2, replace(BEGUN, began_at=None))], "nothing says since when"),
        ([written(2, ENDED, said=3)], "3 seats are said to be in force, and lots sum to 1"),
        ([written(2, BEGUN, said=5)], "5 seats are said to be in force, and lots sum to 3"),
        ([written(1, replace(ENDED, ended_at=2_000))], "at 1000 at the latest, before 2000"),
    ],
)
def test_a_history_that_is_wrong(history: list[Change], fault: str) -> None:
    assert [fault in each for each in faults(*history)].count(True) == 1, faults(*history)


def test_a_clock_that_is_ahead_by_as_much_as_is_stated_is_none() -> None:
    assert faults(written(1, ENDED), skew=1_000) == []
    assert len(faults(written(1, ENDED), skew=999)) == 1


def test_other_dates_make_another_lot() -> None:
    assert faults(written(3, ENDED), written(4, replace(ACME, ends=9_000))) == []


def test_a_pool_that_was_deleted_begins_anew() -> None:
    gone = Change(pool_key(POOL), None, 4)
    assert faults(written(3, ENDED), gone, written(5, ACME)) == []


def test_what_is_due_and_not_written_at_the_end() -> None:
    assert list(unwritten([written(1, ACME)], 999)) == []
    (fault,) = unwritten([written(1, ACME)], 1_500)
    assert "was to begin" in fault
    (fault,) = unwritten([written(1, BEGUN)], 2_500)
    assert "was to end" in fault
    assert list(unwritten([written(1, BEGUN), written(2, ENDED)], 2_500)) == []


@pytest.mark.parametrize(("lot", "is_over"), [(BEGUN, False), (ENDED, True), (ACME, True)])
def test_the_history_counts_the_seats_that_lots_have_in_force(lot: Lot, is_over: bool) -> None:
    """Whatever the record says of its sum."""
    record = state_pb2.GrantRecord(session_id="s", seats=3, fence=1)
    key = f"seatkeeper/seats/{POOL}/grants/g"
    granted = Change(key, Entry(key, record.SerializeToString(), 2), 2)
    history = replay([written(1, lot, said=3), granted])[POOL]
    assert history.count(FaultKind.OVER_GRANT) == is_over
