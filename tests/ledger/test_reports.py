"""Reports, against a count by hand over the same rows."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cli.commands import in_process
from tests.ledger.conftest import Opened
from tests.ledger.written import reading
from tests.unit.kit import NOW, POOL

from seatkeeper.cli.exits import Exit
from seatkeeper.cli.processes import report
from seatkeeper.ledger import config
from seatkeeper.ledger.database import (
    DatabaseError,
    HistorySource,
    LedgerDatabase,
    NewHistory,
    open_database,
)
from seatkeeper.ledger.following import NOTHING
from seatkeeper.ledger.questions import ask_usage
from seatkeeper.ledger.reports import ReportError, Used
from seatkeeper.ledger.rows import Asked, Ending, Gap, GrantRow, Page, Position, Standing
from seatkeeper.ledger.schema import metadata
from seatkeeper.server.domain import Instant
from seatkeeper.server.domain.attribution import Attribution
from seatkeeper.server.events.usage import UsageKind

HOUR = 3_600_000


@pytest.fixture
def database(opened: Opened) -> LedgerDatabase:
    return opened()


def row(
    number: int,
    begin: float,
    end: float | None,
    *,
    seats: int = 1,
    project: str = "cv",
    labels: tuple[tuple[str, str], ...] = (),
    known: float | None = None,
) -> GrantRow:
    """Seats from one hour to another; ``known``: up to when it is known that they were held."""
    where = Position(1, number, 0)
    attribution = Attribution(f"holder-{number}", project, labels=labels)
    asked = Asked(POOL, f"grant-{number}", "session", attribution, seats)
    made = GrantRow(where, asked, number, None, _at(begin), _at(begin), (), "", b"record")
    if end is not None:
        after = None if known is None else _at(known)
        position = Position(1, number + 1000, 0)
        made.ended = Ending(position, UsageKind.RELEASED, _at(end), after=after)
    return made


def _at(hours: float) -> Instant:
    return Instant(NOW + round(hours * HOUR))


def write(
    database: LedgerDatabase, rows: list[GrantRow], *found: Gap, until: float = 100
) -> None:
    epoch = database.take_over("a test").epoch
    page = Page(NOTHING, Standing(1, 5000, 0, b"", NOW))
    page.after = replace(page.after, at=_at(until))
    page.grants = {each.began: each for each in rows}
    page.gaps = list(found)
    begun = replace(page, after=Standing(1, 1, 0, b"", _at(-100)))
    begun.grants, begun.gaps = {}, []
    database.write(begun, epoch, NewHistory(HistorySource(1, "d"), "began"))
    page.before = begun.after
    database.write(page, epoch)


def ask(url: str, begin: float, end: float, by: str = "project") -> list[Used]:
    return list(ask_usage(url, "default", _at(begin), _at(end), by).rows)


def test_what_was_held_within_the_time_counts(database: LedgerDatabase, url: str) -> None:
    rows = [
        row(1, 0, 2),
        row(2, 1, 3, seats=4),
        row(3, 2.5, None, project="nlp"),
        row(4, -2, 0),  # over as the time begins
        row(5, 3, 4),  # begins as it ends
        row(6, -1, 9, project="long"),
    ]
    write(database, rows)
    assert ask(url, 0, 3) == [
        Used("cv", 2 + 8, 2, 0, 0),
        Used("long", 3, 1, 0, 0),
        Used("nlp", 0.5, 1, 1, 0),
    ]
    assert ask(url, 5, 6) == [Used("long", 1, 1, 0, 0), Used("nlp", 1, 1, 1, 0)]
    assert ask(url, 20, 21, "pool") == [Used(POOL, 1, 1, 1, 0)]


def test_labels_are_what_a_report_may_be_by(database: LedgerDatabase, url: str) -> None:
    team = (("a.b/team", "it's"), ("run", "1"))
    write(database, [row(1, 0, 1, labels=team), row(2, 0, 2)])
    assert ask(url, 0, 3, "label:a.b/team") == [Used("", 2, 1, 0, 0), Used("it's", 1, 1, 0, 0)]
    for wrong in ("label:", 'label:"', "label:\\", "seats", ""):
        with pytest.raises(ReportError, match="--by"):
            ask(url, 0, 3, wrong)


def test_what_is_not_known_is_named_and_counted_apart(
    database: LedgerDatabase, url: str
) -> None:
    gap = Gap(1, "compacted", 10, 20, _at(1), _at(3))
    write(database, [row(1, 0, 3, seats=2, known=1), row(2, 0, 1)], gap)
    found = ask_usage(url, "default", _at(0), _at(4), "project")
    assert found.rows == (Used("cv", 7, 2, 0, 4),)
    assert [(each.cause, each.from_at, each.to_at) for each in found.gaps] == [
        ("compacted", _at(1), _at(3))
    ]
    assert not ask_usage(url, "default", _at(4), _at(5), "project").gaps
    assert ask(url, 2, 4) == [Used("cv", 2, 1, 0, 2)]


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_any_rows_are_counted_as_by_hand(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = random.Random(seed)
    url = f"sqlite:///{tmp_path_factory.mktemp('any')}/ledger.db"
    rows = []
    for number in range(1, 30):
        begin = rng.randrange(-20, 20) / 4
        end = rng.choice([None, begin + rng.randrange(40) / 4])
        seats, project = rng.randrange(1, 5), rng.choice("abc")
        rows.append(row(number, begin, end, seats=seats, project=project))
    database = open_database(url)
    write(database, rows)
    database.close()
    first, last = sorted(rng.sample(range(-20, 40), 2))
    expected: dict[str, float] = {}
    for each in rows:
        ended = _at(last) if each.ended is None else each.ended.at
        overlap = min(ended, _at(last)) - max(each.granted_at, _at(first))
        is_within = each.granted_at < _at(last) and (
            each.ended is None or each.ended.at > _at(first)
        )
        if is_within:
            hours = each.asked.seats * overlap / HOUR
            project = each.asked.attribution.project
            expected[project] = expected.get(project, 0) + hours
    found = {each.name: each.seat_hours for each in ask(url, first, last)}
    assert found == pytest.approx(expected)


def test_the_tables_are_those_of_the_migrations(database: LedgerDatabase, url: str) -> None:
    database.take_over("a test")
    with reading(url) as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_database_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for url in (
        f"sqlite:///{tmp_path}/no/folder/ledger.db",
        f"postgresql+psycopg://u:secret@/d?host={tmp_path}",
    ):
        with pytest.raises(DatabaseError) as refused:
            open_database(url)
        assert "secret" not in str(refused.value)


def test_opening_it_again_changes_nothing(
    database: LedgerDatabase, url: str, opened: Opened
) -> None:
    write(database, [row(1, 0, 2)])
    again = opened()
    standing = again.take_over("another").standing
    assert standing is not None
    assert standing.revision == 5000
    assert [each.name for each in ask(url, 0, 3)] == ["cv"]


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "sqlite3://x",
        "postgresql+nothing://u:secret@h/d",
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql://h:port/d",
    ],
)
def test_a_url_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(DatabaseError) as refused:
        open_database(url)
    assert "secret" not in str(refused.value)


def test_a_report_makes_no_database(tmp_path: Path) -> None:
    missing = tmp_path / "no.db"
    url = f"sqlite:///{missing}"
    said = in_process("report", "usage", "--ledger-database", url).check(Exit.UNAVAILABLE)
    assert "unable to open" in said.err
    assert not missing.exists()
    missing.write_bytes(b"")
    said = in_process("report", "usage", "--ledger-database", url).check(Exit.UNAVAILABLE)
    assert "`seatkeeper ledger` writes one" in said.err


def test_a_report_is_written_as_it_is_wanted(database: LedgerDatabase, url: str) -> None:
    gap = Gap(1, "compacted", 10, 20, _at(1), _at(3))
    write(database, [row(1, 0, 3, project='a,"b')], gap)
    command = ("report", "usage", "--ledger-database", url, "--from", "2023-11-01")
    ends = ("--to", "2023-12-01T00:00:00+01:00")
    table = in_process(*command, *ends).check().out
    assert "2023-11-01 00:00 UTC to 2023-11-30 23:00 UTC" in table
    assert 'a,"b' in table
    assert "gap: not all is known" in table
    said = in_process(*command, *ends, "--format", "csv").check()
    assert said.out.splitlines()[1] == '"a,""b",3.000000,1,0,0.000000'
    assert "gap: not all is known" in said.err
    found = in_process(*command, *ends, "--format", "json").check().json
    assert found["rows"][0]["seat_hours"] == 3
    assert found["gaps"][0]["cause"] == "compacted"
    for option in (("--from", "yesterday"), ("--to", "1969-01-01"), ("--by", "seats")):
        refused = in_process(*command, *option).check(Exit.USAGE)
        assert option[0] in refused.err
    nothing = in_process(*command, "--ledger-name", "other").check(Exit.USAGE)
    assert "there is no ledger 'other'" in nothing.err


def test_what_is_before_the_ledger_or_not_written_yet_is_named(
    database: LedgerDatabase, url: str
) -> None:
    write(database, [row(1, 0, None)], until=4)
    found = ask_usage(url, "default", _at(-200), _at(10), "project")
    assert found.rows == (Used("cv", 10, 1, 1, 6),)
    assert [(each.cause, each.from_at, each.to_at) for each in found.gaps] == [
        ("before the ledger began", _at(-200), _at(-100)),
        ("not written yet", _at(4), _at(10)),
    ]
    fresh = ask_usage(url, "default", _at(0), _at(4 + 0.01), "project")
    assert fresh.gaps == ()
    assert fresh.rows[0].uncertain_hours == 0


def test_a_report_may_begin_with_time_itself(database: LedgerDatabase, url: str) -> None:
    write(database, [row(1, 0, 1)])
    command = ("report", "usage", "--ledger-database", url, "--format", "json")
    found = in_process(*command, "--from", "1970-01-01", "--to", "2023-12-01").check().json
    assert found["from"] == "1970-01-01T00:00:00.000Z"


def test_a_report_reads_where_a_ledger_writes_if_neither_is_said() -> None:
    assert report.DATABASE_DEFAULT == config.DATABASE_DEFAULT
