"""Files of FlexNet and RLM, and the pools and the report that each must give.

A case is a folder of ``corpus``: the files that are read, in the order of their names; ``pools.yaml``,
unless they are refused; and ``report.txt``.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.client.imports.cases import (
    DIALECTS,
    folders,
    inputs,
    name_of,
    translated,
)

from seatkeeper.client.imports import Became, report_lines
from seatkeeper.client.imports.lexer import lines_of
from seatkeeper.client.pools_file import Kind, plan, read_pools

FOLDERS = folders()
every_case = pytest.mark.parametrize("folder", FOLDERS, ids=map(name_of, FOLDERS))


def test_the_corpus_is_as_large_as_it_must_be() -> None:
    counts = Counter(folder.parent.name for folder in FOLDERS)
    assert counts["flexnet"] >= 30
    assert counts["rlm"] >= 12
    assert sum(len(inputs(folder)) for folder in FOLDERS) >= 24


@every_case
def test_a_case_gives_its_pools_and_its_report(folder: Path) -> None:
    found = translated(folder)
    expected = folder / "pools.yaml"
    assert found.text == (expected.read_text("utf-8") if expected.exists() else "")
    report = [*report_lines(found), *(f"refused: {refusal}" for refusal in found.refusals)]
    assert report == (folder / "report.txt").read_text("utf-8").splitlines()


@every_case
def test_no_line_is_dropped(folder: Path) -> None:
    """Each line is of a statement, blank, or a comment, and of one of them alone."""
    found = translated(folder)
    for name, data in inputs(folder):
        file = found.files[name]
        of_statements = {
            line
            for outcome in found.outcomes
            if outcome.statement.file == name
            for line in outcome.statement.lines
        }
        others = [*file.blanks, *file.comments]
        assert not of_statements & {*others}
        assert len({*others}) == len(others)
        assert of_statements | {*others} == {*range(1, len(lines_of(data)) + 1)}


@every_case
def test_each_statement_is_translated_or_says_why_not(folder: Path) -> None:
    found = translated(folder)
    named = "\n".join(report_lines(found))
    for outcome in found.outcomes:
        statement = outcome.statement
        if outcome.became is Became.TRANSLATED:
            assert outcome.reasons == []
            is_there = statement.keyword in ("GROUP", "PACKAGE") or outcome.targets
            assert is_there or found.refusals, statement.shown
        else:
            assert all(reason.strip() for reason in outcome.reasons)
            assert outcome.reasons
            assert f"{statement.place}: {outcome.became.value}: " in named
        if found.text and outcome.targets:
            assert f"# {statement.place}: " in found.text


@every_case
def test_what_is_written_is_what_pool_plan_reads(folder: Path) -> None:
    found = translated(folder)
    if not found.text:
        assert found.refusals
        return
    read = read_pools(found.text.encode())
    assert read.faults == ()
    assert len(read.pools) == found.pools
    planned = plan(read.pools, [])
    assert {change.kind for change in planned.changes} == {Kind.CREATE}


@pytest.mark.parametrize("name", DIALECTS)
def test_every_keyword_is_in_the_corpus(name: str) -> None:
    seen = {
        outcome.statement.keyword
        for folder in FOLDERS
        if folder.parent.name == name
        for outcome in translated(folder).outcomes
    }
    assert DIALECTS[name].readings.keys() - seen == set()
