"""The table of endings in docs/how-to/take-a-seat.md: each of its rows has a test that exists."""

from __future__ import annotations

import ast

import pytest
from tests.tree import ROOT

TESTS = ROOT / "tests"
PAGE = TESTS.parent / "docs" / "how-to" / "take-a-seat.md"
ROWS_MIN = 20


def rows() -> list[list[str]]:
    section = PAGE.read_text().partition("\n### How it ends\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def test_there_are_enough_and_none_twice() -> None:
    happenings = [row[0] for row in rows()]
    assert len(happenings) == len({*happenings}) >= ROWS_MIN


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_row_names_a_test(row: list[str]) -> None:
    what, work, seat, code, test = row
    assert all((what, work, seat, code))
    file, _, name = test.strip("`").partition("::")
    functions = {
        node.name
        for node in ast.walk(ast.parse((TESTS / file).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert name in functions
