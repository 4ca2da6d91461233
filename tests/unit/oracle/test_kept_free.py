"""The checker of seats kept free for gangs: as stated it passes, and every other kind is caught."""

from __future__ import annotations

import pytest
from tests.unit.kit import KEYS, NOW, a_ticket, changed, in_revisions, uuid7

from seatkeeper.oracle.checker import Invariant, check_history
from seatkeeper.oracle.kept_free import check_kept_free, count_kept_free
from seatkeeper.server.domain import Guard, Instant
from seatkeeper.server.domain.gang import GangMember
from seatkeeper.server.domain.hold_back import HoldBack
from seatkeeper.server.store import Change, Entry, records
from seatkeeper.v1 import pool_service_pb2 as pb

GANG = (GangMember("a", uuid7(1), 1), GangMember("b", uuid7(2), 1))


def put(key: str, value: bytes) -> Change:
    return Change(key, Entry(key, value, 0), 0)


def spec(pool: str, hold_back: int | None = 30) -> Change:
    said = pb.PoolSpec(name=pool, seats=1)
    said.policy.overtaking.within.FromSeconds(60)
    if hold_back is not None:
        said.policy.overtaking.hold_back.FromSeconds(hold_back)
    return put(KEYS.pool(pool), said.SerializeToString())


def waits(pool: str, number: int, *, alone: bool = False) -> Change:
    ticket = a_ticket(number) if alone else changed(a_ticket(number), gang=GANG)
    return put(KEYS.ticket(pool, uuid7(number)), records.encode_ticket(ticket))


def kept(pool: str, number: int, since: int = 60, until: int = 90) -> Change:
    moments = (Instant(NOW + 1000 * since), Instant(NOW + 1000 * until))
    guard = Guard(1, 9, hold_back=HoldBack(uuid7(number), *moments))
    return put(KEYS.guard(pool), records.encode_guard(guard))


def plain(pool: str) -> Change:
    return put(KEYS.guard(pool), records.encode_guard(Guard(1, 9)))


def gone(pool: str, number: int) -> Change:
    return Change(KEYS.ticket(pool, uuid7(number)), None, 0)


POOLS = [spec("a"), spec("b")]
ASKED = [waits("a", 1), waits("b", 2)]
BOTH = [kept("a", 1), kept("b", 2)]
LAPSED = [gone("a", 1), gone("b", 2)]
"""Their session has ended."""
DECIDED = [plain("a"), plain("b")]


@pytest.mark.parametrize(
    ("revisions", "said"),
    [
        ([POOLS, ASKED, [plain("a")], BOTH, [kept("a", 1, 60, 70)]], []),
        ([POOLS, ASKED, BOTH, [kept("a", 1, 120, 150), kept("b", 2, 120, 150)]], []),
        ([[spec("a"), spec("b", None)], ASKED, [kept("a", 1)]], []),
        ([POOLS, ASKED, BOTH[:1]], ["and b none"]),
        ([POOLS, ASKED, [kept("a", 1, 59, 80), kept("b", 2)]], ["has not waited"]),
        ([POOLS, ASKED, [kept("a", 1, 60, 91), kept("b", 2)]], ["longer than 30000"]),
        ([POOLS, ASKED, BOTH, [kept("a", 1, 60, 91)]], ["longer than was said"]),
        ([POOLS, ASKED, BOTH, [kept("a", 1, 119, 149), kept("b", 2, 120, 150)]], ["again"]),
        ([POOLS, ASKED, BOTH, [plain("a")]], ["forgotten"]),
        ([[spec("a", None), spec("b")], ASKED, BOTH], ["does not say so"]),
        ([POOLS, [waits("a", 1, alone=True)], [kept("a", 1)]], ["no gang waits"]),
        ([POOLS, ASKED, [kept("a", 5)]], ["no gang waits"]),
        ([POOLS, ASKED, DECIDED, LAPSED, BOTH], []),
        ([POOLS, ASKED, LAPSED, DECIDED, BOTH], ["no gang waits", "no gang waits"]),
    ],
    ids=(
        *("as stated", "again in time", "where it is stated", "in one pool", "too early"),
        *(
            "too long",
            "longer",
            "again too soon",
            "forgotten",
            "not stated",
            "no gang",
            "no ticket",
            "lapsed since",
            "lapsed before",
        ),
    ),
)
def test_seats_are_kept_free_as_stated(revisions: list[list[Change]], said: list[str]) -> None:
    found = list(check_kept_free(in_revisions(revisions), KEYS.prefix))
    assert len(found) == len(said), found
    assert all(text in line for text, line in zip(said, found, strict=True)), found


def test_the_whole_checker_looks_and_counts_them() -> None:
    changes = in_revisions([POOLS, ASKED, BOTH[:1]])
    found = list(check_history(changes, KEYS.prefix, at_rest=False))
    assert Invariant.I6 in {violation.invariant for violation in found}
    twice = [POOLS, ASKED, BOTH, [kept("a", 1, 60, 70)]]
    assert count_kept_free(in_revisions(twice), KEYS.prefix) == 2
