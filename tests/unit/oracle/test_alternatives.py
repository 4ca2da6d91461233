"""The checker of alternatives: one that is granted passes, and every other kind is caught."""

from __future__ import annotations

import pytest
from tests.unit.kit import KEYS, a_grant, a_ticket, changed, in_revisions, uuid7

from seatkeeper.oracle.alternatives import check_alternatives, count_alternatives
from seatkeeper.oracle.checker import Invariant, check_history
from seatkeeper.server.domain.gang import GangMember
from seatkeeper.server.store import Change, Entry, records

BOTH = (GangMember("a", uuid7(1), 1, 0), GangMember("b", uuid7(2), 1, 30_000))


def granted(pool: str, number: int) -> Change:
    key = KEYS.grant(pool, uuid7(number))
    value = records.encode_grant(changed(a_grant(number), gang=BOTH))
    return Change(key, Entry(key, value, 0), 0)


def waits(pool: str, number: int) -> Change:
    key = KEYS.ticket(pool, uuid7(number))
    value = records.encode_ticket(changed(a_ticket(number), gang=BOTH))
    return Change(key, Entry(key, value, 0), 0)


def left(pool: str, number: int) -> Change:
    return Change(KEYS.ticket(pool, uuid7(number)), None, 0)


def ended(pool: str, number: int) -> Change:
    return Change(KEYS.grant(pool, uuid7(number)), None, 0)


ASKED = [waits("a", 1), waits("b", 2)]
CHOSEN = [granted("b", 2), left("b", 2), left("a", 1)]


@pytest.mark.parametrize(
    ("revisions", "said"),
    [
        ([ASKED, CHOSEN], []),
        ([ASKED, CHOSEN, [granted("b", 2)], [ended("b", 2)]], []),
        ([ASKED, [left("a", 1)], [granted("b", 2), left("b", 2)]], []),
        ([ASKED, CHOSEN[:2]], ["waits still"]),
        ([ASKED, CHOSEN[:2], [left("a", 1)]], ["waits still"]),
        ([ASKED, CHOSEN, [granted("a", 1)]], ["was at revision"]),
        ([ASKED, CHOSEN, [ended("b", 2)], [granted("a", 1)]], ["was at revision"]),
        ([ASKED, [*CHOSEN, granted("a", 1)]], ["was at revision"]),
    ],
    ids=(
        *("one", "rewritten, and given back", "the other had left before"),
        *(
            "the other waits on",
            "it leaves later",
            "both",
            "one after the other",
            "both at once",
        ),
    ),
)
def test_one_is_granted(revisions: list[list[Change]], said: list[str]) -> None:
    found = list(check_alternatives(in_revisions(revisions), KEYS.prefix))
    assert len(found) == len(said)
    assert all(text in line for text, line in zip(said, found, strict=True)), found


def test_the_whole_checker_looks_and_counts_them() -> None:
    changes = in_revisions([ASKED, CHOSEN[:2]])
    found = list(check_history(changes, KEYS.prefix, at_rest=False))
    assert Invariant.I4 in {violation.invariant for violation in found}
    assert (
        count_alternatives(in_revisions([ASKED, CHOSEN, [granted("b", 2)]]), KEYS.prefix) == 1
    )
