"""The first hour of CONTRIBUTING.md: its files are there, and its change does what it says."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Callable

import pytest
from tests.tree import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
HOUR = PAGE.partition("## The first hour")[2].partition("\n## ")[0]
TEST, CHANGE = re.findall(r"```python\n(.*?)```", HOUR, re.DOTALL)
NAMED = re.compile(r"`((?:core|client|server|builder|chaos|proto|tests|docs|bench)/[\w./-]+)`")
FUNCTION = "check_name"


def the_test(module: str) -> Callable[[], None]:
    """Return the page's test, made for a module of this source."""
    namespace: dict[str, object] = {"pytest": pytest, "__name__": "changed"}
    exec(module, namespace)
    exec(TEST, namespace)
    (test,) = (value for name, value in namespace.items() if name.startswith("test_"))
    assert callable(test)
    return test


def changed(source: str) -> str:
    """Return a module with the page's lines in the place of the function's, below its docstring."""
    (function,) = (
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.name == FUNCTION
    )
    assert function.end_lineno is not None
    lines = source.splitlines(keepends=True)
    lines[function.body[0].end_lineno : function.end_lineno] = [
        textwrap.indent(textwrap.dedent(CHANGE), "    ")
    ]
    return "".join(lines)


def test_every_file_that_the_page_names_is_there() -> None:
    assert [name for name in NAMED.findall(PAGE) if not (ROOT / name).exists()] == []
    assert "core/seatkeeper/core/validate.py" in NAMED.findall(HOUR)


def test_the_change_turns_its_test_from_red_to_green() -> None:
    source = (ROOT / "core/seatkeeper/core/validate.py").read_text()
    with pytest.raises(AssertionError, match="big-models"):
        the_test(source)()
    the_test(changed(source))()


def test_every_task_that_the_page_names_is_one_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = re.findall(r"(?:^|`)(?:PYTHON=\S+ )?make ([a-z -]+)", PAGE, re.MULTILINE)
    named = {word for command in commands for word in command.split()}
    assert {"unit", "test", "check", "dev"} <= named
    assert named <= targets
