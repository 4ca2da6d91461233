"""Every event that a node or an agent logs, and every metric, is in docs/how-to/operate.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from tests.tree import ROOT

from seatkeeper.server.telemetry.metrics import MetricsObserver

PAGE = (ROOT / "docs/how-to/operate.md").read_text(encoding="utf-8")
LEVELS = {"info", "warning", "error", "exception"}
"""``debug`` of a library's kind is nobody's promise; seats and sessions go through ``happened``."""


def events(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            is_log = node.func.attr in LEVELS and getattr(owner, "id", "") == "logger"
            first = node.args[0] if node.args else None
            if (is_log or node.func.attr == "happened") and isinstance(first, ast.Constant):
                yield str(first.value)


def logged() -> set[str]:
    files = [*(ROOT / "server").rglob("*.py"), *(ROOT / "builder").rglob("*.py")]
    found = {event for file in files for event in events(file.read_text(encoding="utf-8"))}
    assert len(found) > 30
    # Those that begin with another event's name are told of together with one of them.
    return {event for event in found if "%s" not in event}


@pytest.mark.parametrize("event", sorted(logged()))
def test_an_event_is_documented(event: str) -> None:
    assert f"`{event}`" in PAGE


@pytest.mark.parametrize(
    "name", [metric.name for metric in MetricsObserver().registry.collect()]
)
def test_a_metric_is_documented(name: str) -> None:
    assert name in PAGE or name.startswith(("process_", "python_"))
