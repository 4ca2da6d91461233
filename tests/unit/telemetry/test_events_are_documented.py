"""Every event that nodes and agents log, and every metric, is in docs/how-to/operate.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pytest
from tests.tree import ROOT

from seatkeeper.server.events.usage import UsageKind
from seatkeeper.server.telemetry.metrics import MetricsObserver

PAGE = (ROOT / "docs/how-to/operate.md").read_text(encoding="utf-8")
FOLDERS = ("core", "server", "builder", "client/seatkeeper/cli")
"""The processes that we run. The client library logs into programs of others, for people."""
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
FUNCTIONS = {"happened", "events.happened", "events.session", "administrative_act"}
"""Functions of ours whose first argument is the name of an event."""
FORWARDED = {
    "server/seatkeeper/server/events/lines.py": "the kind of a usage event",
    "server/seatkeeper/server/events/log.py": "the first argument of `happened`",
    "server/seatkeeper/server/identity/audit.py": "the first argument of `administrative_act`",
}
"""Files that log under a name which they are given."""
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
MAY_LOG = re.compile(
    r"\b_*(log|logger|libraries)_*\b|getLogger|happened|events\.session|administrative_act"
)
"""In every file with such a call: what has none of it needs no parsing."""


@dataclass(frozen=True)
class Call:
    """A call that logs, and the name it gives; None: it is no constant."""

    file: str
    line: int
    name: str | None


def calls_in(file: str, source: str) -> Iterator[Call]:
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        match node.func:
            case ast.Attribute(value=owner, attr=attr) if attr in LEVELS and is_logger(owner):
                named = node.args[1 if attr == "log" else 0]
            case ast.Name() | ast.Attribute(value=ast.Name()) as function if (
                ast.unparse(function) in FUNCTIONS
            ):
                named = node.args[0]
            case _:
                continue
        constant = named.value if isinstance(named, ast.Constant) else None
        yield Call(file, node.lineno, constant if isinstance(constant, str) else None)


def is_logger(owner: ast.expr) -> bool:
    match owner:
        case ast.Name(id=name):
            return name.strip("_") in {"logger", "log", "libraries"}
        case ast.Call(func=ast.Attribute(attr="getLogger")):
            return True
        case _:
            return False


@cache
def calls() -> list[Call]:
    """All of them. Looked for by the first test that asks: each worker imports this file."""
    files = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))
    found = [
        call
        for file in files
        if MAY_LOG.search(source := file.read_text(encoding="utf-8"))
        for call in calls_in(str(file.relative_to(ROOT)), source)
    ]
    assert len(found) > 40
    return found


def test_every_event_has_a_name_in_snake_case() -> None:
    wrong = [
        call
        for call in calls()
        if call.file not in FORWARDED and (call.name is None or not NAME.fullmatch(call.name))
    ]
    assert wrong == []


def test_the_exceptions_are_needed() -> None:
    assert {call.file for call in calls() if call.name is None} == FORWARDED.keys()


@pytest.mark.parametrize(
    "call", ['logger.warning("the store failed")', "logger.info(name)", 'log.log(3, "No")']
)
def test_a_sentence_is_found(call: str) -> None:
    (found,) = calls_in("x.py", call)
    assert found.name is None or not NAME.fullmatch(found.name)


def test_every_event_is_documented() -> None:
    names = {call.name for call in calls() if call.name is not None}
    names |= {kind.value for kind in UsageKind}
    assert [name for name in sorted(names) if f"`{name}`" not in PAGE] == []


@pytest.mark.parametrize(
    "name", [metric.name for metric in MetricsObserver().registry.collect()]
)
def test_a_metric_is_documented(name: str) -> None:
    assert name in PAGE or name.startswith(("process_", "python_"))
