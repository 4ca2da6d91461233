"""What was set aside says why, and what can be set is read."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.tree import PORTIONS, ROOT

PROJECT = (ROOT / "pyproject.toml").read_text()
CONFIGURATION = tomllib.loads(PROJECT)
SETTINGS = ("Config", "Limits", "Options", "Settings")
"""How classes of settings are called."""
RULE = re.compile(r'"[A-Z]+[0-9]+"')
DIRECTIVES = re.compile(
    r"# *(?:ruff: *noqa|noqa|type: *ignore|fmt: *(?:off|skip)|pragma: *no cover)"
    r"(?:: [A-Z0-9, ]*[A-Z0-9]|\[[a-z, -]+\])?"
)
"""What makes a tool look away, with its codes."""
OURS = [
    path
    for portion in PORTIONS
    for path in sorted((ROOT / portion / "seatkeeper").rglob("*.py"))
    if "_pb2" not in path.name
]


@cache
def trees() -> dict[Path, ast.Module]:
    """Our modules, read once, and not by those who only collect tests."""
    return {path: ast.parse(path.read_text()) for path in OURS}


def settings() -> Iterator[tuple[Path, ast.ClassDef, str]]:
    """Every field of a class of settings."""
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name.endswith(SETTINGS):
                for field in node.body:
                    if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                        yield path, node, field.target.id


def reads(node: ast.AST) -> set[str]:
    """The attributes, and the keys of typed dictionaries, that some code reads."""
    found: set[str] = set()
    for each in ast.walk(node):
        match each:
            case (
                ast.Attribute(attr=name, ctx=ast.Load())
                | ast.Subscript(slice=ast.Constant(value=str(name)), ctx=ast.Load())
                | ast.Call(
                    func=ast.Attribute(attr="get" | "pop"),
                    args=[ast.Constant(value=str(name)), *_],
                )
            ):
                found.add(name)
    return found


def reads_but_for_checks(tree: ast.Module) -> set[str]:
    """The same, without the methods in which a class of settings checks its own fields."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name.endswith(SETTINGS):
            for member in node.body:
                is_check = isinstance(member, ast.FunctionDef) and member.name.startswith("_")
                found |= set() if is_check else reads(member)
        else:
            found |= reads(node)
    return found


def test_every_setting_is_read_somewhere() -> None:
    read = set[str]().union(*map(reads_but_for_checks, trees().values()))
    unread = [
        f"{path.relative_to(ROOT)}: {owner.name}.{setting}"
        for path, owner, setting in settings()
        if setting not in read
    ]
    assert len([*settings()]) > 100
    assert unread == [], "use it or remove it"


def test_a_setting_that_only_its_own_check_reads_is_noticed() -> None:
    tree = ast.parse(
        "class DoorConfig:\n"
        "    width: int = 1\n"
        "    height: int = 1\n"
        "    def _check(self): assert self.width and self.height\n"
        "    @property\n"
        "    def area(self): return self.height\n"
    )
    assert reads_but_for_checks(tree) == {"height"}


def test_every_rule_that_is_not_held_to_says_why() -> None:
    section = PROJECT.partition("[tool.ruff.lint]")[2].partition("ignore = [")[2]
    ignored = section.partition("\n]")[0].strip().splitlines()
    per_file = PROJECT.partition("[tool.ruff.lint.per-file-ignores]")[2].partition("\n[")[0]
    silent = [
        line.strip()
        for line in ignored + per_file.splitlines()
        if RULE.search(line) and not re.search(r"# \S.{9,}", line)
    ]
    assert ignored
    assert silent == [], "say why behind the rule, on the same line"


def python_files() -> Iterator[Path]:
    """All modules of the tree but those that are generated."""
    for folder in (*PORTIONS, "bench", "docs", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "_pb2" not in path.name:
                yield path


def silenced(source: str) -> list[int]:
    """Return the lines on which a tool is made to look away without a reason."""
    if not DIRECTIVES.search(source):
        return []  # most files; reading tokens takes ten times as long
    return [
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and DIRECTIVES.match(token.string)
        if not DIRECTIVES.sub("", token.string).strip("# ()-")
    ]


def test_every_line_at_which_a_tool_looks_away_says_why() -> None:
    unexplained = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in python_files()
        for line in silenced(path.read_text())
    ]
    assert unexplained == [], "say why behind it:  # noqa: X123  # the reason"


def test_a_directive_alone_gives_no_reason_and_words_behind_it_do() -> None:
    source = (
        "import a  # noqa: F401\n"
        "import b  # type: ignore[misc, arg-type]  # noqa: E501, F401\n"
        "import c  # noqa: F401  # other modules look for it here\n"
        "import d  # type: ignore[misc] # noqa: F401 (what was opened counts)\n"
        "text = '# noqa: F401'\n"
    )
    assert silenced(source) == [1, 2]


def test_no_tool_is_configured_that_nothing_installs() -> None:
    wanted = {
        re.split(r"[^A-Za-z0-9-]", name)[0]
        for names in CONFIGURATION["project"]["optional-dependencies"].values()
        for name in names
    }
    wanted |= {"hatch"}  # what builds the package, as build-system.requires says
    assert set(CONFIGURATION["tool"]) <= wanted


def test_the_changelog_has_the_version_and_what_is_not_released_is_on_top() -> None:
    version = CONFIGURATION["project"]["version"]
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    released = [
        re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d", each) for each in headings[1:]
    ]
    assert None not in released, "a release is: ## [1.2.3] - 2026-11-28"
    assert version in [found[1] for found in released if found], f"CHANGELOG.md: no [{version}]"


def test_the_page_on_security_says_whether_this_version_is_supported() -> None:
    minor = CONFIGURATION["project"]["version"].rpartition(".")[0]
    assert f"| {minor}.x |" in (ROOT / "SECURITY.md").read_text()
