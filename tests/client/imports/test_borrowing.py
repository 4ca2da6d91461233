"""What licences and options say of borrowing and roaming, line by line."""

from __future__ import annotations

import pytest
from tests.client.imports.cases import DIALECTS, TODAY

from seatkeeper.client.imports import Became, Translation, translate
from seatkeeper.client.pools_file import read_pools
from seatkeeper.v1 import pool_service_pb2 as pb

DAY = 86_400
LENT = "INCREMENT solver windsim 2026.0 permanent 20 BORROW=240 SIGN=01"
PLAIN = "INCREMENT solver windsim 2026.0 permanent 20 SIGN=01"
MORE = "INCREMENT solver windsim 2026.0 permanent 5 BORROW SIGN=02"
ROAMS = "LICENSE windsim solver 2026.0 permanent 20 max_roam=10 max_roam_count=4 sig=1"


def found(lines: list[str], dialect: str = "flexnet") -> Translation:
    data = "".join(f"{line}\n" for line in lines).encode()
    return translate(DIALECTS[dialect], [("site.lic", data)], today=TODAY)


def rule(translation: Translation) -> tuple[int, int | None, int] | None:
    """Return for how many seconds, how many at once, and how many stay; None: none are borrowed."""
    (spec,) = read_pools(translation.text.encode()).pools.values()
    if not spec.policy.HasField("borrow"):
        return None
    said: pb.BorrowRule = spec.policy.borrow
    seats = said.seats if said.HasField("seats") else None
    return said.longest.ToSeconds(), seats, said.low_water


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([PLAIN], None),
        ([LENT], (10 * DAY, None, 0)),
        ([MORE], (7 * DAY, None, 0)),
        ([PLAIN, MORE], (7 * DAY, 5, 0)),
        ([LENT, MORE], (10 * DAY, None, 0)),
        ([LENT, "MAX_BORROW_HOURS solver 48"], (2 * DAY, None, 0)),
        ([LENT, "MAX_BORROW_HOURS solver 999"], (10 * DAY, None, 0)),
        ([LENT, "BORROW_LOWWATER solver 3"], (10 * DAY, None, 3)),
        ([LENT, "max_borrow_hours solver 48", "borrow_lowwater solver 3"], (2 * DAY, None, 3)),
        (
            ["INCREMENT solver windsim 2026.0 permanent 20 BORROW=99999 SIGN=1"],
            (366 * DAY, None, 0),
        ),
    ],
)
def test_flexnet_borrows(lines: list[str], expected: tuple[int, int | None, int]) -> None:
    translation = found(lines)
    assert rule(translation) == expected
    assert {each.became for each in translation.outcomes} == {Became.TRANSLATED}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([ROAMS], (10 * DAY, 4, 0)),
        (["LICENSE windsim solver 2026.0 permanent 20 max_roam=-1 sig=1"], None),
        ([ROAMS, "ROAM_MAX_DAYS 5 solver"], (5 * DAY, 4, 0)),
        ([ROAMS, "ROAM_MAX_COUNT 2 solver"], (10 * DAY, 2, 0)),
    ],
)
def test_rlm_roams(lines: list[str], expected: tuple[int, int | None, int]) -> None:
    assert rule(found(lines, "rlm")) == expected


@pytest.mark.parametrize(
    ("dialect", "lines", "became", "why"),
    [
        ("flexnet", [PLAIN, "MAX_BORROW_HOURS solver 48"], Became.NOT_NEEDED, "(BORROW)"),
        ("flexnet", [LENT, "MAX_BORROW_HOURS solver 0"], Became.UNREADABLE, "0 hours"),
        (
            "flexnet",
            [LENT, "MAX_BORROW_HOURS solver soon"],
            Became.UNREADABLE,
            "number of hours",
        ),
        ("flexnet", [LENT, "BORROW_LOWWATER solver"], Became.UNREADABLE, "a feature and"),
        ("flexnet", [LENT, "BORROW_LOWWATER other 3"], Became.NONE, "no licence line"),
        ("flexnet", [LENT, "BORROW_LOWWATER solver:VERSION=2 3"], Became.PARTLY, "VERSION=2"),
        (
            "flexnet",
            [LENT, "INCLUDE_BORROW solver INTERNET 10.*"],
            Became.NONE,
            "solver lends to everybody",
        ),
        ("flexnet", [PLAIN, "EXCLUDE_BORROW solver USER ada"], Became.NOT_NEEDED, "(BORROW)"),
        ("rlm", [ROAMS, "ROAM_MAX_DAYS 0 solver"], Became.UNREADABLE, "0 days"),
        (
            "rlm",
            [ROAMS, "EXCLUDEALL_ROAM internet 10.*"],
            Became.NONE,
            "an address is not part",
        ),
    ],
)
def test_what_is_not_translated_says_why(
    dialect: str, lines: list[str], became: Became, why: str
) -> None:
    outcome = found(lines, dialect).outcomes[-1]
    assert outcome.became is became
    assert any(why in reason for reason in outcome.reasons), outcome.reasons


@pytest.mark.parametrize(
    ("dialect", "lines"),
    [
        ("flexnet", [LENT, "EXCLUDE_BORROW solver USER ada"]),
        ("rlm", [ROAMS, "EXCLUDEALL_ROAM user ada"]),
    ],
)
def test_who_may_borrow(dialect: str, lines: list[str]) -> None:
    translation = found(lines, dialect)
    assert 'exclude: {holders: [ada, "ada@*"]}' in translation.text
    assert translation.outcomes[-1].targets == ["pools.solver.borrow"]
