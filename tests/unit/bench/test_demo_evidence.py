"""What the demo of policies says at its end is what the history has, and what is missing is named."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bench.demo_evidence import Evidence, evidence
from bench.demo_policy import result_of
from tests.unit.kit import KEYS, a_grant, in_revisions

from seatkeeper.core.lot_use import LotMarks, LotSeats
from seatkeeper.core.lots import Lot, LotKind, LotState, PoolLots
from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.domain import Attribution, Grant, PoolPolicy, PoolSpec, ProjectShare
from seatkeeper.server.store import Change, Entry, records
from seatkeeper.v1 import seat_pb2

POOL, OTHER = "shared", "other"
PLAIN = PoolPolicy()
TWO_TEAMS = PoolPolicy(
    (ProjectShare(project="vision", guaranteed=2), ProjectShare(project="speech", guaranteed=1))
)
GOOD = Evidence(lent=1, reclaimed=1, burst_seats=1, burst_late_ms=3, gangs=1)


def put(key: str, value: bytes) -> Change:
    return Change(key, Entry(key, value, 0), 0)


def spec(seats: int, policy: PoolPolicy = PLAIN, *lots: Lot, pool: str = POOL) -> Change:
    made = PoolSpec(pool, seats, policy=policy)
    made = made.with_lots(PoolLots(lots, seats)) if lots else made
    return put(KEYS.pool(pool), records.encode_spec(made))


def of(project: str, number: int, *, seats: int = 1, marks: LotMarks | None = None) -> Change:
    attribution = Attribution(f"{project}@host", project, 0)
    made = replace(a_grant(number, fence=number, seats=seats), attribution=attribution)
    return granted(replace(made, marks=marks))


def granted(grant: Grant, pool: str = POOL) -> Change:
    return put(KEYS.grant(pool, grant.grant_id), records.encode_grant(grant))


def found(*revisions: list[Change]) -> Evidence:
    return evidence(in_revisions(revisions), KEYS.prefix)


@pytest.mark.parametrize(
    ("speech", "vision", "lent"),
    [(1, 0, 0), (2, 0, 0), (3, 0, 1), (4, 0, 2), (3, 1, 1), (2, 2, 0)],
    ids=["its own", "one for all", "one lent", "two lent", "one back", "both back"],
)
def test_lent_is_what_is_held_out_of_the_guarantees_of_others(
    speech: int, vision: int, lent: int
) -> None:
    projects = ["vision"] * vision + ["speech"] * speech
    grants = [of(project, number) for number, project in enumerate(projects, start=1)]
    assert found([spec(4, TWO_TEAMS)], grants).lent == lent


def burst_lot(state: LotState, ended_at: int | None) -> Lot:
    return Lot(
        name="burst-1",
        seats=2,
        ends=10_000,
        kind=LotKind.BURST,
        state=state,
        began_at=1_000,
        ended_at=ended_at,
    )


@pytest.mark.parametrize(
    ("ended_at", "late", "says"),
    [
        (10_000, 0, None),
        (12_000, 2_000, None),
        (12_001, 2_001, "2001 ms after its time"),
        (9_999, -1, "-1 ms after its time"),
        (None, None, "no burst was ended"),
    ],
)
def test_a_burst_ends_on_its_time(ended_at: int | None, late: int | None, says: str) -> None:
    state = LotState.IN_FORCE if ended_at is None else LotState.ENDED
    held = of("speech", 1, marks=LotMarks((LotSeats("burst-1", 1, 1_000),)))
    begun = spec(0, PLAIN, burst_lot(LotState.IN_FORCE, None))
    proof = found([begun], [held], [spec(0, PLAIN, burst_lot(state, ended_at))])
    assert (proof.burst_seats, proof.burst_late_ms) == (1, late)
    about = [each for each in proof.missing() if "burst" in each]
    assert about == [] if says is None else says in about[0]


def test_what_a_bursts_end_leaves_is_counted_apart() -> None:
    held = of("speech", 1, seats=2, marks=LotMarks((LotSeats("burst-1", 2, 1_000),)))
    begun = spec(0, PLAIN, burst_lot(LotState.IN_FORCE, None))
    over = spec(0, PLAIN, burst_lot(LotState.ENDED, 10_000))
    drains = found([begun], [held], [over])
    assert (drains.max_over_capacity, drains.draining, drains.faults) == (0, 2, [])
    granted_again = found([begun], [held], [over], [of("speech", 2)])
    assert (granted_again.max_over_capacity, granted_again.draining) == (3, 3)


def test_a_seat_too_many_is_counted_and_fails_the_demo() -> None:
    proof = found([spec(1)], [of("speech", 1, seats=3)])
    assert proof.max_over_capacity == 2
    assert any("2 seats were granted beyond" in each for each in proof.missing())


def member(pool: str, number: int, *, of_pools: tuple[str, ...]) -> Change:
    record = state_pb2.GrantRecord(session_id="anna", seats=1, fence=number)
    for each in of_pools:
        record.attributes.gang.append(
            seat_pb2.GangMember(pool=each, grant_id=a_grant(number).grant_id, seats=1)
        )
    return put(KEYS.grant(pool, a_grant(number).grant_id), record.SerializeToString())


def test_a_gang_is_granted_as_one_or_the_demo_fails() -> None:
    both = (POOL, OTHER)
    pools = [spec(1), spec(1, pool=OTHER)]
    one, other = (member(pool, 1, of_pools=both) for pool in both)
    assert found(pools).gang == "none"
    assert found(pools, [one, other]).gang == "all"
    torn = found(pools, [one], [other])
    assert torn.gang == "some"
    assert any("of its gang" in each for each in torn.missing())


def test_the_last_line_says_ok_or_why_not() -> None:
    good = result_of(GOOD, 1, "")
    assert good["demo"] == "ok"
    assert "why" not in good
    assert (good["gang"], good["max_over_capacity"]) == ("all", 0)
    bad = result_of(replace(GOOD, reclaimed=0, lent=0), 1, "it took too long")
    assert bad["demo"] == "failed"
    assert bad["why"] == "it took too long; no seat was lent; no lent seat was called back"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"lent": 0}, "no seat was lent"),
        ({"reclaimed": 0}, "no lent seat was called back"),
        ({"burst_seats": 0}, "no seat of a burst was granted"),
        ({"burst_late_ms": None}, "no burst was ended"),
        ({"gangs": 0}, "no gang was granted"),
        ({"max_over_capacity": 1}, "1 seats were granted beyond those in force"),
        ({"faults": ["order"]}, "order"),
    ],
)
def test_each_thing_that_is_missing_fails_the_demo(
    changed: dict[str, object], why: str
) -> None:
    result = result_of(replace(GOOD, **changed), 1, "")  # type: ignore[arg-type]  # each value is of its field
    assert (result["demo"], result["why"]) == ("failed", why)
