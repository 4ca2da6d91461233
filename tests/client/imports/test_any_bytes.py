"""Whatever is in a file: pools that can be applied, or reasons, soon; and nothing is lost."""

from __future__ import annotations

import re
import time
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.client.imports.cases import DIALECTS, TODAY

from seatkeeper.client.imports import FLEXNET, RLM, report_lines, translate
from seatkeeper.client.imports.lexer import lexed, lines_of
from seatkeeper.client.imports.translation import FILE_BYTES_MAX, FILES_MAX
from seatkeeper.client.pools_file import read_pools
from seatkeeper.core.instants import parse_instant
from seatkeeper.core.lot_messages import decode_lots
from seatkeeper.core.lots import PoolLots

SECONDS_MAX = 20
Term = tuple[date | None, date | None]
dialects = st.sampled_from(sorted(DIALECTS))
pieces = st.sampled_from(
    [
        *(
            "INCREMENT f1 v 1.0 permanent 5 SIGN=AB",
            "FEATURE f1 v 2.0 1-jan-0 3",
            "increment f2",
        ),
        *("LICENSE v p 1.0 permanent 4 sig=AB", "LICENSE v P 1.0 31-dec-2027 4 share=u"),
        *(
            "RESERVE 1 f1 GROUP g",
            "MAX 3 f1 PROJECT p",
            "GROUP g a b",
            "MAX 1 f1 GROUP ALL_GROUPS",
        ),
        *("PACKAGE f1 v 1.0 COMPONENTS=", '"f2:1.0:2 f3"', "UPGRADE f1 v 1 2 permanent 1"),
        *("SERVER h 00 27000", "HOST h 00", "TIMEOUT f1 60", "EXCLUDE f1 USER", "SUPERSEDE"),
        *(
            " OVERDRAFT=2",
            " soft_limit=3",
            "MAX_OVERDRAFT f1 1",
            "TIMEOUT 60 p",
            "TIMEOUTALL 9",
        ),
        *("INCLUDE f1 GROUP g", "EXCLUDEALL USER a*b", "INCLUDEALL HOST h", "HOST_GROUP g h"),
        *("EXCLUDE f2 HOST_GROUP g", "INCLUDE f1 PROJECT P", "MAX 2 f1 USER ALL_USERS", "f1"),
        *(
            "\n",
            "\r\n",
            "\r",
            "\\\n",
            "\\ # x\n",
            "\n\n",
            "\n\t",
            " ",
            '"',
            "#",
            "\\",
            "=",
            ":",
        ),
        *(
            "ISSUED=1-jan-2026",
            "START=1-jan-2030",
            "\0",
            "\x1a",
            "\x1b[31m",
            "\u202e",
            "é",
            "%%",
        ),
    ]
)
texts = st.lists(pieces | st.text(max_size=6), max_size=30).map("".join)
contents = st.binary(max_size=300) | texts.map(lambda text: text.encode("utf-8", "replace"))
latin = texts.map(lambda text: text.encode("latin-1", "replace"))


@settings(max_examples=400)
@given(dialect=dialects, files=st.lists(contents | latin, max_size=3))
def test_any_bytes_give_pools_or_reasons(dialect: str, files: list[bytes]) -> None:
    named = [(f"file{at}", data) for at, data in enumerate(files)]
    found = translate(DIALECTS[dialect], named, today=TODAY)
    assert bool(found.text) is not bool(found.refusals)
    assert all(str(refusal) for refusal in found.refusals)
    if found.text:
        read = read_pools(found.text.encode())
        assert read.faults == ()
        assert sorted(read.pools) == sorted({*read.pools})
        assert len(read.pools) == found.pools > 0
    assert all(
        len(found.of(became)) <= len(found.outcomes)
        for became in {outcome.became for outcome in found.outcomes}
    )
    assert [*report_lines(found)]
    assert found == translate(DIALECTS[dialect], named, today=TODAY), "the same each time"


@settings(max_examples=400)
@given(dialect=dialects, data=contents | latin)
def test_each_line_of_any_bytes_is_somewhere(dialect: str, data: bytes) -> None:
    found = lexed("file", data, DIALECTS[dialect].grammar)
    of_statements = {line for statement in found.statements for line in statement.lines}
    others = [*found.blanks, *found.comments]
    assert not of_statements & {*others}
    assert sorted([*of_statements, *others]) == [*range(1, len(lines_of(data)) + 1)]


DAYS = [TODAY + timedelta(days=more) for more in (-400, -1, 0, 1, 30, 31, 400)]
days = st.sampled_from([None, *DAYS])


def _is_in_order(term: Term) -> bool:
    starts, expires = term
    return starts is None or expires is None or starts <= expires


terms = st.tuples(days, days).filter(_is_in_order)
counts = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(1, 50), terms), min_size=1, max_size=40
)


def line_of(dialect: str, at: int, feature: str, seats: int, term: Term) -> str:
    """A licence with a beginning and an end."""
    starts, expires = (None if day is None else f"{day:%d-%b-%Y}".lower() for day in term)
    begins = f" start={starts}" if starts else ""
    if dialect == "flexnet":
        return f"INCREMENT {feature} v 1.0 {expires or 'permanent'} {seats}{begins} SN={at}"
    return f"LICENSE v {feature} 1.0 {expires or 'permanent'} {seats}{begins} contract=c"


@settings(deadline=None)
@given(
    dialect=dialects,
    licences=counts,
    claims=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9))),
)
def test_seats_and_guarantees_are_those_of_the_lines(
    dialect: str,
    licences: list[tuple[str, int, Term]],
    claims: list[tuple[str, int]],
) -> None:
    """A second rule, which counts the seats of each day and does nothing else."""
    lines = [line_of(dialect, at, *licence) for at, licence in enumerate(licences)]
    lines += [f"RESERVE {seats} {feature} PROJECT p" for feature, seats in claims]
    found = translate(DIALECTS[dialect], [("f", "\n".join(lines).encode())], today=TODAY)
    last = TODAY + timedelta(days=800)
    seats = {
        (name, day): sum(
            many
            for each, many, (starts, expires) in licences
            if each == name and (starts or day) <= day <= (expires or day)
        )
        for name in "abc"
        for day in (*(day for day in DAYS if day >= TODAY), last)
    }
    most = {name: max(n for (each, _), n in seats.items() if each == name) for name in "abc"}
    there = {name for name in "abc" if most[name]}
    sure = {name: sum(n for each, n in claims if each == name) for name in there}
    if not there or any(sure[name] > most[name] for name in there):
        assert found.refusals
        return
    read = read_pools(found.text.encode()).pools
    assert read.keys() == there
    for name, spec in read.items():
        assert sum(share.guaranteed for share in spec.policy.projects) == sure[name]
        lots = decode_lots(spec.lots) or PoolLots(seats=spec.seats)
        for (each, day), many in seats.items():
            for clock in ("00:00:00", "23:59:59") if each == name else ():
                assert lots.at(parse_instant(f"{day}T{clock}Z")) == many
        forever = [many for each, many, term in licences if each == name and _is_plain(term)]
        assert spec.seats == sum(forever), "those without dates are plain seats"


def _is_plain(term: Term) -> bool:
    starts, expires = term
    return expires is None and (starts is None or starts <= TODAY)


@pytest.mark.parametrize(
    "data",
    [
        b"INCREMENT f1 v 1.0 permanent 1 SIGN=%d\n" * 5_000,
        b"".join(b"INCREMENT F%d v 1 permanent 1\n" % n for n in range(5_000)).swapcase()
        + b"".join(b"INCREMENT F%d v 1 permanent 1\n" % n for n in range(5_000)),
        b"".join(b"GROUP g%d u\nMAX 1 f GROUP ALL_GROUPS\n" % n for n in range(2_000))
        + b"INCREMENT f v 1.0 permanent 9\n",
        b'PACKAGE p v 1.0 COMPONENTS="'
        + b" ".join(b"c%d" % n for n in range(1_000))
        + b'"\n'
        + b"INCREMENT p v 1.0 permanent 1 SIGN=1\n"
        + b"".join(b"INCREMENT p v 1.0 permanent 1 SIGN=2%d\n" % n for n in range(500)),
        b'"' * 50_000,
        b'INCREMENT f v 1 permanent 1 N="\n' + b'" "\n' * 20_000,
        b"GROUP g \\\n" + b"a \\\n" * 50_000,
        b"\\\n" * 50_000,
        b"x\n" * 20_000,
        b"\0" * 1_000_000,
        b"RESERVE " + b"9" * 500_000 + b" f PROJECT p",
        b"".join(b"INCREMENT f%d v 1 permanent 1\n" % n for n in range(300))
        + b"".join(b"EXCLUDEALL USER %s%d\n" % (b"u" * 99, n) for n in range(300)),
        b"".join(b"INCREMENT f%d v 1 permanent 1\n" % n for n in range(300))
        + b"".join(b"GROUP g%d u%d\nINCLUDEALL GROUP g%d\n" % (n, n, n) for n in range(300)),
        b"INCREMENT f v 1 permanent 1\nGROUP g"
        + b"".join(b" u%d" % n for n in range(50_000))
        + b"\n"
        + b"EXCLUDE f GROUP g\nINCLUDE f GROUP g\n" * 4_000,
        b"INCREMENT f v 1 permanent 1\n" + b"EXCLUDE f USER a\nINCLUDE f USER b\n" * 8_000,
        b"INCREMENT f v 1 permanent 1\n"
        + b"".join(b"EXCLUDE f USER a%d\n" % n for n in range(20_000)),
    ],
    ids=range(16),
)
def test_large_files_end_soon(data: bytes) -> None:
    began = time.process_time()
    for dialect in (FLEXNET, RLM):
        found = translate(dialect, [("f", data)], today=TODAY)
        assert bool(found.text) is not bool(found.refusals)
        assert sum(len(line) for line in report_lines(found)) < 100 << 20
    assert time.process_time() - began < SECONDS_MAX


def test_what_is_too_much_is_refused() -> None:
    for files in (
        [("f", b" " * (FILE_BYTES_MAX + 1))],
        [(f"f{at}", b"") for at in range(FILES_MAX + 1)],
        [("f", b"x\n" * 100_001)],
        [("f", b"".join(b"INCREMENT f%d v 1 permanent 1\n" % at for at in range(1_001)))],
    ):
        found = translate(FLEXNET, files, today=date(2026, 1, 1))
        assert found.text == ""
        assert re.search("more than|at most", str(found.refusals[0]))
