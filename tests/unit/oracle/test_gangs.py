"""The checker of gangs: what is granted together passes, and every other kind is caught."""

from __future__ import annotations

import pytest
from tests.unit.kit import KEYS, a_grant, changed, in_revisions, uuid7

from seatkeeper.oracle.checker import Invariant, check_history
from seatkeeper.oracle.gangs import check_gangs, count_gangs
from seatkeeper.server.domain import Grant
from seatkeeper.server.domain.gang import GangMember
from seatkeeper.server.store import Change, Entry, records

GANG = (GangMember("a", uuid7(1), 1), GangMember("b", uuid7(2), 2))


def a_member(number: int, seats: int, session: str = "anna") -> Grant:
    return changed(a_grant(number, seats=seats, session=session), gang=GANG)


def put(pool: str, grant: Grant) -> Change:
    key = KEYS.grant(pool, grant.grant_id)
    return Change(key, Entry(key, records.encode_grant(grant), 0), 0)


def gone(pool: str, number: int) -> Change:
    return Change(KEYS.grant(pool, uuid7(number)), None, 0)


FIRST, SECOND = put("a", a_member(1, 1)), put("b", a_member(2, 2))


@pytest.mark.parametrize(
    ("revisions", "said"),
    [
        ([[FIRST, SECOND]], []),
        ([[FIRST, SECOND], [FIRST], [SECOND], [gone("a", 1)], [SECOND]], []),
        ([[put("a", a_grant(1))], [put("b", a_grant(2))]], []),
        ([[FIRST]], ["not "]),
        ([[FIRST], [SECOND]], ["not ", "not "]),
        ([[FIRST, put("b", a_member(2, 1))]], ["with 1 seats, not 2"] * 2),
        ([[FIRST, put("b", a_member(2, 2, "bert"))]], ["another session"] * 2),
        ([[FIRST, SECOND], [gone("a", 1)], [FIRST]], ["not "]),
    ],
    ids=(
        *(
            "at once",
            "rewritten, and one given back",
            "no gang",
            "one alone",
            "one after the other",
        ),
        *("other seats", "another session", "one again"),
    ),
)
def test_it_is_all_or_nothing(revisions: list[list[Change]], said: list[str]) -> None:
    found = list(check_gangs(in_revisions(revisions), KEYS.prefix))
    assert len(found) == len(said)
    assert all(text in line for text, line in zip(said, found, strict=True)), found


def test_the_whole_checker_looks_and_counts_them() -> None:
    changes = in_revisions([[FIRST]])
    found = list(check_history(changes, KEYS.prefix, at_rest=False))
    assert Invariant.I4 in {violation.invariant for violation in found}
    assert count_gangs(in_revisions([[FIRST, SECOND], [FIRST]]), KEYS.prefix) == 1
