"""How large a function, a class and a file may be, and how many parameters a call may have.

The limits are no targets: most of the tree is far below them. What passes one of them usually does two
things. Counted is what a reader meets:

- *parameters*: all of a function but ``self`` and ``cls``. Those of a dataclass are the fields that its
  constructor must be given; one with a default is state that begins there. A frozen dataclass is a
  value: its fields are its content, named where it is made, and are not counted. A group of keyword
  arguments (``**terms: Unpack[SeatTerms]``) counts as one, and may itself have no more than a function.
- *methods* of a class: all that its body defines, properties and private ones, too.
- *lines* of a class, a function or a file, with comments and docstrings.

Generated code is not looked at.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from tests.tree import ROOT

FOLDERS = ("core", "client", "server", "builder", "chaos", "bench")
PARAMETERS_MAX = 8
METHODS_MAX = 25
CLASS_LINES_MAX = 300
FUNCTION_LINES_MAX = 80
FILE_LINES_MAX = 700

# What is still too large, and shall not stay so. An entry that is no offender any more fails the test.
STILL_TOO_LARGE: set[str] = set()

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def _offences(tree: ast.Module, name: str = "") -> Iterator[str]:
    """Yield a line for everything in ``tree`` that passes a limit: ``Class.method: what``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, _Function | ast.ClassDef):
            yield from _of_definition(node, f"{name}{node.name}")
        else:
            yield from _offences(node, name)  # type: ignore[arg-type] # only its children count


def _of_definition(node: _Function | ast.ClassDef, name: str) -> Iterator[str]:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if isinstance(node, ast.ClassDef):
        methods = sum(isinstance(each, _Function) for each in node.body)
        if lines > CLASS_LINES_MAX:
            yield f"{name}: lines"
        if methods > METHODS_MAX:
            yield f"{name}: methods"
        if _constructor_fields(node) > PARAMETERS_MAX:
            yield f"{name}: parameters"
    else:
        if lines > FUNCTION_LINES_MAX:
            yield f"{name}: lines"
        if _parameters(node) > PARAMETERS_MAX:
            yield f"{name}: parameters"
    for each in ast.iter_child_nodes(node):
        if isinstance(each, _Function | ast.ClassDef):
            yield from _of_definition(each, f"{name}.{each.name}")


def _parameters(function: _Function) -> int:
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    grouped = [each for each in (given.vararg, given.kwarg) if each is not None]
    return len([each for each in named if each.arg not in {"self", "cls"}]) + len(grouped)


def _constructor_fields(node: ast.ClassDef) -> int:
    """Return how many fields a class's constructor must be given, where they are counted."""
    decorators = [ast.unparse(each) for each in node.decorator_list]
    is_dataclass = any(each.split("(")[0].endswith("dataclass") for each in decorators)
    is_value = any("frozen=True" in each for each in decorators)
    is_group = any(ast.unparse(each) == "TypedDict" for each in node.bases)
    if not is_group and (not is_dataclass or is_value):
        return 0
    return sum(
        isinstance(each, ast.AnnAssign)
        and "ClassVar" not in ast.unparse(each.annotation)
        and each.value is None
        for each in node.body
    )


FILES = {
    str(path.relative_to(ROOT)): path
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "_pb2" not in path.name
}


@pytest.mark.parametrize("name", FILES)
def test_every_size_is_within_its_limit(name: str) -> None:
    source = FILES[name].read_text()
    found = {f"{name} {offence}" for offence in _offences(ast.parse(source))}
    if source.count("\n") > FILE_LINES_MAX:
        found.add(f"{name}: lines")
    known = {entry for entry in STILL_TOO_LARGE if entry.split()[0].rstrip(":") == name}
    assert found - known == set(), "too large: split it by what it does"
    assert known - found == set(), "not too large any more: take it off the list"


def test_the_list_of_what_is_still_too_large_names_files_that_exist() -> None:
    assert {entry.split()[0].rstrip(":") for entry in STILL_TOO_LARGE} <= set(FILES)


SAMPLE = """
class Wide:
    def __init__(self, {parameters}) -> None:
        pass

    def f(self, *, {parameters}, **rest) -> None:
        def inner({parameters}, more): ...

@dataclass(slots=True)
class Record:
{fields}
    one_more: int
    count: int = 0
    seen: list[int] = field(default_factory=list)

@dataclass(frozen=True)
class Value:
{fields}
    one_more: int

class Options(TypedDict, total=False):
{fields}
    one_more: int
"""


def test_what_is_counted() -> None:
    names = [f"p{number}" for number in range(PARAMETERS_MAX)]
    fields = "\n".join(f"    {name}: int" for name in names)
    source = SAMPLE.format(parameters=", ".join(names), fields=fields)
    assert list(_offences(ast.parse(source))) == [
        "Wide.f: parameters",
        "Wide.f.inner: parameters",
        "Record: parameters",
        "Options: parameters",
    ]
    methods = "\n".join(f"    def m{number}(self): ..." for number in range(METHODS_MAX + 1))
    assert list(_offences(ast.parse(f"class Busy:\n{methods}"))) == ["Busy: methods"]
    body = "\n".join("    x = 1" for _ in range(CLASS_LINES_MAX))
    assert list(_offences(ast.parse(f"class Long:\n{body}"))) == ["Long: lines"]
    body = "\n".join("    x = 1" for _ in range(FUNCTION_LINES_MAX))
    assert list(_offences(ast.parse(f"if True:\n  def long():\n{body}"))) == ["long: lines"]
