"""Scripts: what a file says, and which verbs there are. See README.md."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.conformance.values import Json, ScriptError

FOLDER = Path(__file__).parent / "scripts"
SIDES = ("server", "client")

_COMMON = {"note"}
SERVER_VERBS: Mapping[str, set[str]] = {
    "let": set(),
    "pool": {"seats", "description"},
    "session": {"ttl", "holder", "project", "node"},
    "call": {"request", "timeout", "expect", "start", "repeat", "node"},
    "await": {"expect", "within"},
    "cancel": set(),
    "stream": {"open", "resume", "node"},
    "send": {"commands", "request"},
    "expect": {"events", "unordered", "ignore", "within"},
    "half_close": set(),
    "expect_end": {"status", "ignore", "within"},
    "poll": {"request", "until", "within", "node"},
    "control": set(),
}
"""Verbs of scripts for a server, and the keys that may stand beside each."""
CLIENT_VERBS: Mapping[str, set[str]] = {
    "let": set(),
    "start": {"holder", "project", "ttl"},
    "do": {"id", "pool", "seats", "priority", "project", "wait"},
    "event": {"ignore", "within"},
    "accept": {"on", "not_on", "bind", "within", "not_before"},
    "answer": {"request", "response", "status", "within"},
    "expect": {"commands", "unordered", "ignore", "within", "not_before"},
    "send": {"events", "response"},
    "auto_renew": {"ttl", "renew_in", "sequence"},
    "end": {"status"},
    "expect_end": {"ignore", "within"},
    "node": {"becomes"},
}
"""The same for a client."""


@dataclass(frozen=True)
class Script:
    """One script."""

    name: str
    side: str
    title: str
    covers: tuple[str, ...]
    steps: tuple[dict[str, Json], ...]
    nodes: tuple[str, ...] = ("a",)
    needs: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Script:
        """Read a file. Raises `ScriptError`, naming the file, when it is not a script."""
        try:
            content = json.loads(path.read_text())
            script = cls(
                name=path.stem,
                side=path.parent.name,
                title=content.pop("title"),
                covers=tuple(content.pop("covers")),
                steps=tuple(content.pop("steps")),
                nodes=tuple(content.pop("nodes", ("a",))),
                needs=tuple(content.pop("needs", ())),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ScriptError(f"{path}: {error!r}") from error
        if content:
            raise ScriptError(f"{path}: unknown: {', '.join(content)}")
        for number, step in enumerate(script.steps, 1):
            try:
                verb_of(step, SERVER_VERBS if script.side == "server" else CLIENT_VERBS)
            except ScriptError as error:
                raise ScriptError(f"{path}: step {number}: {error}") from None
        return script


def scripts(side: str, name: str = "", folder: Path = FOLDER) -> Iterator[Script]:
    """Yield the scripts of one side, in the order of names; those with ``name`` in theirs."""
    for path in sorted((folder / side).glob("*.json")):
        if name in path.stem:
            yield Script.read(path)


def verb_of(step: Mapping[str, Json], verbs: Mapping[str, set[str]]) -> str:
    """Return the verb of a step. Raises `ScriptError` when it has none, or keys of another."""
    for verb in verbs:
        if verb in step and not set(step) - {verb} - verbs[verb] - _COMMON:
            return verb
    raise ScriptError(f"{sorted(step)} are not the keys of any step")


@dataclass(frozen=True)
class Result:
    """What became of one script."""

    script: str
    ok: bool
    seconds: float = 0.0
    skipped: str = ""
    """Why it was not run."""
    step: int = 0
    """The step that failed, from 1."""
    error: str = ""
    covers: tuple[str, ...] = field(default=())

    def line(self) -> str:
        """Return it as one line for people."""
        if self.skipped:
            return f"skip {self.script}: {self.skipped}"
        if self.ok:
            return f"ok   {self.script} ({self.seconds:.1f} s)"
        return f"FAIL {self.script}, step {self.step}: {self.error}"

    def record(self) -> dict[str, Json]:
        """Return it as JSON."""
        return asdict(self)
