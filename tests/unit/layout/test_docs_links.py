"""Every relative link of the documentation leads to a file, and to a heading where it names one."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from tests.tree import ROOT

PAGES = sorted(
    {
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "tests").rglob("*.md"),
    }
)
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
HEADING = re.compile(r"^#{1,6} +(.*?)\s*$", re.MULTILINE)
PATH_IN_CODE = re.compile(r"(?<![\w/.-])docs/[\w/-]+\.(?:md|svg)\b")


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and GitLab make them."""
    found: set[str] = set()
    seen: Counter[str] = Counter()
    for heading in HEADING.findall(text):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def broken_links(page: Path) -> list[str]:
    broken = []
    for link, anchor in LINK.findall(prose(page)):
        if ":" in link:
            continue
        target = page.parent / link if link else page
        missing_anchor = (
            anchor and target.suffix == ".md" and anchor not in anchors(prose(target))
            if target.exists()
            else True
        )
        if missing_anchor:
            broken.append(f"{link}#{anchor}" if anchor else link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_anchors_resolve(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_and_a_broken_anchor_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One `word`!\n[a](gone.md) [b](#one-word) [c](#two) [d](page.md#three)\n")
    assert broken_links(page) == ["gone.md", "#two", "page.md#three"]


def test_every_page_is_listed_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / link).resolve() for link, _ in LINK.findall(prose(index))}
    pages = {page for page in PAGES if page.is_relative_to(index.parent)} - {index}
    assert pages <= listed


def test_pages_named_in_code_exist() -> None:
    folders = (
        "client",
        "server",
        "builder",
        "chaos",
        "core",
        "bench",
        "tests",
        "deploy",
        "proto",
    )
    sources = [
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".proto", ".mjs", ".json", ".cfg", ".yml"}
        and path != Path(__file__)
    ]
    sources += [ROOT / "Makefile", ROOT / "docker-compose.yml", ROOT / "pyproject.toml"]
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources
        for name in PATH_IN_CODE.findall(path.read_text(encoding="utf-8"))
        if not (ROOT / name).exists()
    }
    assert missing == set()
