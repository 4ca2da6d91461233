"""The project's vocabulary: words that were retired do not come back.

Code, comments, docstrings, log events, error texts, protocol comments, documentation and tests use
the field's terms. `RETIRED` lists the words that are gone and what replaces each, `ALLOWED` the
exceptions with their reasons, `NOT_YET_CLEAN` the folders that still use some: counts only go down.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.tree import ROOT

# Each pattern is searched in text whose identifiers are split into words, in lower case:
# `tellDifference`, `tell_difference` and `TellDifference` read "tell difference". A blank also
# matches a line break. Words that are retired as a term alone ("mark", "floor", "flight", "asks")
# have ordinary uses, so only the old names are searched for.
RETIRED: dict[str, str] = {
    r"told|tells?|telling": "notify, report, say; of a document: describes",
    r"hears?|heard|hearing": "receive",
    r"news": "event, update",
    r"audiences?": "subscribers",
    r"judge[sd]?|judging|verdicts?": "check, checker, result",
    r"voided|void": "inconclusive",
    r"strikes?|struck|striking": "inject",
    r"heal(?:s|ed|ing)?": "recover",
    r"freez(?:e|es|ing)|froze|frozen|thaw(?:s|ed|ing)?": "pause, resume",
    r"story|stories|chapters?|crews?|misdeeds?|workshops?": "record, result, worker pool, attack",
    r"beats?|beating": "heartbeat",
    r"vital signs|last words": "process stats, stderr tail",
    r"patien(?:t|ce|tly)|haste|hurr(?:y|ies|ied)|company": "batch delay, timeout, urgent",
    r"throngs?|bystanders?": "contention, takeover delay",
    r"pass(?:es|ed|ing)? (?:\w+ ){0,3}on": "forward, publish, apply",
    r"finished with|finished.marks?|(?:is|not) spent": "completed, watermark",
    r"forestall\w*|foret(?:ell|old|elling)": "tombstone, presign",
    r"mend(?:s|ed|ing)?": "fix, repair",
    r"for ever": "forever, without limit",
    r"nobody|whoever|whomever": "a component as the subject, or the passive",
    r"takes? in": "apply, read",
    r"guard process": "watchdog",
}
RETIRED_NAMES: dict[str, str] = {
    r"\b(?:Committing|PassedOn|Flight)\b": "Committer, Forwarded, InFlightCommit",
    r"\b(?:Waits|Passing|Asks)\b(?=[\](.:\[])": "WaitTimers, Forwarder, PendingCommand",
    r"\b(?:SessionGone|PoolMissing|EngineMissing|BuildTimeout)\b": "one name per condition",
    r"\b[Dd]oors?\b|\bDoorLimits\b": "API, services, ApiLimits",
    r"\b(?:Stage|Story|Crew|Beat)\b": "Environment, UserRecord, WorkerPool, Heartbeat",
}

# What is allowed, with the reason. These are removed before the search.
ALLOWED: dict[str, str] = {
    r"frozen=True|frozen_default=True|frozenset|FrozenInstanceError|\"frozen\"": "Python's terms",
    r"frozen (?:value|dataclass)": "Python's terms",
    r"program frozen into|\bgc\.(?:un)?freeze\b|\bgc\.get_freeze_count\b|\.tell\(\)": "Python's terms",
    r"freeze_p\d+_s|\"freeze\"|\*freeze\*": "keys of bench output that users read",
    r"\bFreeze\b|\bUsers\.freeze\b|\bdef freeze\b|owner-frozen|users-freeze": "names in scenarios",
    r"\bfreeze_(?:leader|follower)\b|owner_hears_nothing|nobody_reaches_owner": "names in scenarios",
    r"users\.freeze\(|\)\.freeze\(": "the fault of that name",
    r"\bbench\.company\w*|\b[Aa] company's|\bthe company\b": "the customer, and its benchmark",
    r"on_loss\W{1,4}tell\b|\"tell\"": "a public setting's value",
    r"audience=|\baud\b": "a JWT's claim, as PyJWT names it",
    r"`void`|\"void\"|\"chapters\"|\"judged_by\"": "keys of the JSON report that users read",
    r"\blast_words\(self\)": "a public attribute's name before 0.1.0, an alias for a release",
    r"\"?BuildTimeout\"?(?= =|,)": "a public error's name before 0.1.0, an alias for a release",
}
EXEMPT_FILES: dict[str, str] = {
    "CHANGELOG.md": "history",
    "tests/unit/layout/test_words.py": "the list itself",
    "docs/reference/chaos-report.md": "written by a run; the next run renews it",
}
SUFFIXES = {".py", ".md", ".proto", ".toml", ".yml", ".cfg", ".json", ".mjs", ".txt", ".sh"}
NAMES = {"Makefile", "Containerfile"}
SKIPPED_FOLDERS = {"__pycache__", "node_modules", "dist"}

NOT_YET_CLEAN: dict[str, int] = {}
"""Uses left, by folder; what is not named has none."""

CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
BREAK = r"(?: +|\n[ \t]*(?:#|//)? ?)"
WORDS = re.compile(r"\b(?:" + "|".join(RETIRED).replace(" ", BREAK) + r")\b")
TERMS = re.compile("|".join(RETIRED_NAMES))
EXCEPTIONS = re.compile("|".join(ALLOWED))


class Use(NamedTuple):
    """A retired word in a file."""

    file: str
    line: int
    word: str


def in_words(text: str) -> str:
    """The text with identifiers split into words, in lower case."""
    return CAMEL.sub(" ", text).replace("_", " ").lower()


def uses_in(text: str, file: str = "") -> Iterator[Use]:
    """Every retired word of a text."""
    if not (WORDS.search(in_words(text)) or TERMS.search(text)):
        return  # most texts have none, and the exceptions take longest to look for
    plain = EXCEPTIONS.sub(" ", text)
    split = in_words(plain)
    for source, pattern in ((split, WORDS), (plain, TERMS)):
        for match in pattern.finditer(source):
            line = source.count("\n", 0, match.start()) + 1
            yield Use(file, line, " ".join(match[0].split()))


def searched_files() -> Iterator[Path]:
    """Every file of the project that holds prose or identifiers."""
    for folder, folders, names in os.walk(ROOT):
        # Virtual environments are not even listed: they are many times as large as the project.
        folders[:] = sorted(
            name
            for name in folders
            if name not in SKIPPED_FOLDERS and (name == ".ci" or not name.startswith("."))
        )
        for name in sorted(names):
            path = Path(folder, name)
            ours = path.suffix in SUFFIXES or name in NAMES
            is_exempt = path.relative_to(ROOT).as_posix() in EXEMPT_FILES
            if ours and not name.startswith(".") and "_pb2" not in name and not is_exempt:
                yield path


def folder_of(file: str) -> str:
    """The folder to whose count a file's uses go: a room, or a folder of tests or docs."""
    parts = file.split("/")[:-1]
    return "/".join(part for part in parts[:4] if part != "seatkeeper") or "."


@pytest.fixture(scope="module")
def uses() -> list[Use]:
    return [
        use
        for path in searched_files()
        for use in uses_in(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))
    ]


def test_no_retired_word_is_used(uses: list[Use]) -> None:
    counts = Counter(folder_of(use.file) for use in uses)
    over = {folder for folder, count in counts.items() if count > NOT_YET_CLEAN.get(folder, 0)}
    shown = [
        f"{use.file}:{use.line}: {use.word}" for use in uses if folder_of(use.file) in over
    ]
    assert not over, "retired words; see RETIRED for what to write:\n" + "\n".join(shown[-60:])


def test_counts_only_go_down(uses: list[Use]) -> None:
    counts = Counter(folder_of(use.file) for use in uses)
    lower = {name: counts[name] for name, most in NOT_YET_CLEAN.items() if counts[name] < most}
    assert lower == {}, "lower these numbers in NOT_YET_CLEAN, or remove those that are 0"


@pytest.mark.parametrize(
    "text",
    [
        "# the client is told",
        "def tell_difference(): ...",
        "class TellDifference: ...",
        "audience_module",
        "last_words",
        "it waits for\n    # ever",
        "passed them on",
        "Passes each event on to every subscriber",
        "than passing a few requests on",
        "class Committing:",
        "raise SessionGone",
        "two doors",
        "a session's finished-mark",
        "the `grant_id` is spent",
    ],
)
def test_a_retired_word_is_found_in_prose_and_in_identifiers(text: str) -> None:
    assert len(list(uses_in(text))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "@dataclass(frozen=True)",
        '"freeze_p99_s": 2.7',
        "the heartbeat",
        "a newsletter",
        "one commit in flight",
        "pytest.mark",
    ],
)
def test_ordinary_and_allowed_words_are_not_found(line: str) -> None:
    assert list(uses_in(line)) == []
