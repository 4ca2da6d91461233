"""The page of models that were built: rows of some models are written anew, the others stay."""

from __future__ import annotations

from bench.models.__main__ import page_of


def row(name: str, precision: str, cell: str) -> str:
    return f"| {name} | {precision} |  |  | {cell} | {cell} | {cell} |"


def rows_on(page: str) -> list[str]:
    return [line for line in page.splitlines() if line.count(" | ") > 5]


def test_rows_of_a_model_replace_its_own_and_no_others() -> None:
    first = page_of(
        [row("minilm", "fp32", "1"), row("magika", "fp32", "2"), row("magika", "fp16", "3")], ""
    )
    second = page_of([row("magika", "fp32", "4")], first)
    assert row("minilm", "fp32", "1") in second
    assert row("magika", "fp32", "4") in second
    assert row("magika", "fp16", "3") not in second
    assert page_of([], second) == second
    assert len(rows_on(second)) == 3  # with the table's head


def test_models_that_are_not_listed_any_more_leave_the_page() -> None:
    page = page_of([row("minilm", "fp32", "1")], page_of([], row("gone", "fp32", "2")))
    assert "gone" not in page
    assert "| minilm | encoder of sentences |" in page
    assert "| magika | classifier" not in page
