"""What is handed out: an archive of the sources with all of the project, and a wheel made of it."""

from __future__ import annotations

import ast
import email
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from tests.tree import PORTIONS, ROOT

OURS = (*PORTIONS, "docs", "deploy")
BARE_NAME = re.compile(r"pip install\W+(?:--?[a-z-]+ +)*seatkeeper\b(?!-)")


def build(folder: Path, kind: str, to: Path) -> Path:
    """Build one of them without a network."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(to)],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    (built,) = to.glob("*.tar.gz" if kind == "sdist" else "*.whl")
    return built


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build(ROOT, "sdist", folder)) as archive:
        # Python 3.11.3 and older have no such filter; 3.12 and newer warn where none is set.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    return unpacked


def test_the_archive_has_what_belongs_to_the_sources(sources: Path) -> None:
    for name in (
        *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE"),
        *(
            "constraints.txt",
            "Makefile",
            "pyproject.toml",
            "docker-compose.yml",
            ".dockerignore",
            "PKG-INFO",
        ),
        *(
            "docs/README.md",
            "docs/reference/cli.md",
            "deploy/haproxy/l4.cfg",
            "tests/conftest.py",
        ),
        *("bench", "proto/hatch_build.py", "proto/seatkeeper/v1/seat.proto"),
    ):
        assert (sources / name).exists(), name
    for path in (ROOT / ".ci").rglob("*"):
        assert (sources / path.relative_to(ROOT)).exists(), path


def test_the_archive_has_nothing_that_was_made(sources: Path) -> None:
    made = {
        ".venv",
        ".venv-unit",
        ".tools",
        ".git",
        "__pycache__",
        ".seatkeeper",
        ".mypy_cache",
    }
    found = {path.name for path in sources.rglob("*")}
    assert found.isdisjoint(made)
    assert not list(sources.rglob("*_pb2*.py"))


def test_every_link_of_the_documentation_leads_somewhere(sources: Path) -> None:
    broken = [
        f"{page.name}: {link}"
        for page in [*sources.glob("*.md"), *(sources / "docs").rglob("*.md")]
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert broken == []


def test_a_wheel_can_be_made_of_the_archive_alone(sources: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(build(sources, "wheel", tmp_path)) as wheel:
        names = set(wheel.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        said = email.message_from_bytes(wheel.read(metadata))
    for name in (
        "seatkeeper/core/text.py",
        "seatkeeper/client/py.typed",
        "seatkeeper/cli/app.py",
        "seatkeeper/server/node.py",
        "seatkeeper/v1/seat_pb2.py",
    ):
        assert name in names, name
    assert "seatkeeper/__init__.py" not in names
    assert said["License-Expression"] == "Apache-2.0"
    # There is no public address; until there is, none is claimed.
    assert said.get_all("Project-URL") is None
    assert not [name for name in names if name.startswith(("tests/", "docs/"))]


def test_no_text_advises_installing_a_name_that_is_on_no_index() -> None:
    # The changelog is about the past.
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "Makefile"]
    code = [path for part in OURS for path in (ROOT / part).rglob("*.py")]
    reported = [
        f"{path.name}: {found}"
        for path in pages
        for found in BARE_NAME.findall(path.read_text())
    ]
    reported += [
        f"{path.name}:{node.lineno}"
        for path in code
        for node in said_in(ast.parse(path.read_text()))
        if BARE_NAME.search(str(node.value))
    ]
    assert reported == [], "seatkeeper.core.extras.how_to_install says how"


def said_in(tree: ast.Module) -> list[ast.Constant]:
    """The texts of a module but its docstrings, which are not output."""
    unsaid = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in unsaid
    ]


def test_the_makefile_installs_what_the_build_wants_and_has_pip_make_nothing_of_its_own() -> (
    None
):
    """``--no-build-isolation`` builds with what is there; another version of it is no error."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {re.split(r"[<>=]", each)[0] for each in project["build-system"]["requires"]}
    makefile = (ROOT / "Makefile").read_text()
    (named,) = re.findall(r"^BUILT_WITH *:= (.*)$", makefile, re.MULTILINE)
    assert set(named.split()) == wanted
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    assert wanted <= {line.partition("==")[0] for line in pinned}
    installs = [line for line in makefile.splitlines() if "--no-build-isolation" in line]
    assert len(installs) == makefile.count(" $(BUILT_WITH)\n") == 2
