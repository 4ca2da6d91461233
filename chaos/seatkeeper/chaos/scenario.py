"""Scenarios, as people write them. Pure.

::

    The node that decides for the pool dies, again and again.

    row: kill -9 service node (owner) mid batch
    promises: I1 I2 I3 I4 I6 I8

    5 times
        KillNode.owner for 1 s
        calm for 2 s

The first paragraph says what it is about. Then come ``row`` (of the fault matrix) and ``promises``
(the invariants it is there to try; all are checked always), ``users`` (who is at work; without it:
those who take seats of pools without a policy) and ``needs`` (what must have happened meanwhile, such
as a reclaim; otherwise the scenario is inconclusive), any of which may be missing. Then what happens,
one thing a line:

- ``calm for 2 s``: nothing is done, and users go on.
- ``KillNode.owner for 1 s``: this fault, recovered after so long. Without ``for``: recovered at once,
  which is what is meant where there is nothing to recover.
- ``Network.slow while``: this fault, for as long as the lines below it take.
- ``5 times``: the lines below it, so often.

What is below a line is indented by four spaces. Lines that begin with ``#`` are for readers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from seatkeeper.oracle.seen import KINDS

INDENT = 4
TIMES_MAX = 10_000
RENAMED = {"Upgrade.rolling": "Restart.rolling"}
"""Faults by the names that they had; scenarios that people have written go on working."""
SECONDS_MAX = 86_400.0
PROMISES = tuple(f"I{number}" for number in range(1, 11))
_EMPTY_LINE = re.compile(r"\n[ \t]*\n")
_HEADER = re.compile(r"(?P<name>row|promises|users|needs): *(?P<value>.*)")
_CALM = re.compile(r"calm for (?P<seconds>\d+(\.\d+)?) s")
_TIMES = re.compile(r"(?P<times>\d+) times")
_INJECTION = re.compile(
    r"(?P<fault>[A-Z]\w*\.\w+)( (?P<during>while)| for (?P<seconds>\d+(\.\d+)?) s)?"
)


class ScenarioError(Exception):
    """A scenario cannot be understood; the message says where, and what would be."""


@dataclass(frozen=True, slots=True)
class Calm:
    """Nothing is done for a while."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Injection:
    """A fault is injected, held, and recovered."""

    fault: str
    seconds: float = 0.0
    during: tuple[Step, ...] = ()
    """What happens before it is recovered, instead of waiting ``seconds``."""
    line: int = field(default=0, compare=False)
    """Where it says so."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """The same again and again."""

    times: int
    steps: tuple[Step, ...]


Step = Calm | Injection | Repeat


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens to a service while it is used."""

    name: str
    sentence: str
    steps: tuple[Step, ...]
    row: str = ""
    promises: tuple[str, ...] = ()
    users: str = ""
    """Who is at work; empty: as always."""
    needs: tuple[str, ...] = ()
    """What must have happened meanwhile: of ``seatkeeper.oracle.seen.KINDS``."""

    @property
    def injections(self) -> Sequence[Injection]:
        """All faults in it, in the order of the text."""
        return [step for step in _flat(self.steps) if isinstance(step, Injection)]

    @property
    def faults(self) -> frozenset[str]:
        """The names of all faults in it."""
        return frozenset(step.fault for step in self.injections)

    @property
    def seconds(self) -> float:
        """How long it takes if nothing has to be waited for."""
        return _length(self.steps)


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    depth: int
    text: str


def parse(name: str, text: str) -> Scenario:
    """Return the scenario that ``text`` describes. Raises ``ScenarioError``."""
    body = text.lstrip()
    paragraph, *rest = _EMPTY_LINE.split(body.rstrip(), maxsplit=1)
    above = text.count("\n", 0, len(text) - len(body)) + paragraph.count("\n") + 2
    lines = list(_lines(name, "".join(rest), first=above + 1))
    opening = [line.strip() for line in paragraph.splitlines() if not line.startswith("#")]
    sentence = " ".join(opening)
    if not sentence or any(map(_is_step, opening)):
        raise ScenarioError(
            f"{name}: the first paragraph must say what it is about; then an empty line"
        )
    headers: dict[str, str] = {}
    while lines and (header := _HEADER.fullmatch(lines[0].text)):
        headers[header["name"]] = header["value"].strip()
        lines.pop(0)
    promises = tuple(headers.get("promises", "").split())
    if unknown := [promise for promise in promises if promise not in PROMISES]:
        raise ScenarioError(
            f"{name}: {unknown[0]} is no promise; there are {PROMISES[0]} to {PROMISES[-1]}"
        )
    needs = tuple(headers.get("needs", "").split())
    if unknown := [each for each in needs if each not in KINDS]:
        raise ScenarioError(f"{name}: {unknown[0]} is not counted; what is: {', '.join(KINDS)}")
    steps = _block(name, lines, 0)
    if not steps:
        raise ScenarioError(f"{name}: nothing happens in it; add a line such as: calm for 2 s")
    row, users = headers.get("row", ""), headers.get("users", "")
    return Scenario(name, sentence, steps, row, promises, users, needs)


def _lines(name: str, text: str, *, first: int) -> Iterator[_Line]:
    for number, line in enumerate(text.splitlines(), start=first):
        if line.strip() and not line.lstrip().startswith("#"):
            indent = line[: len(line) - len(line.lstrip())]
            if indent.strip(" ") or len(indent) % INDENT:
                raise ScenarioError(
                    f"{name}, line {number}: indent by {INDENT} spaces, not by {indent!r}"
                )
            yield _Line(number, len(indent) // INDENT, line.strip())


def _block(name: str, lines: list[_Line], depth: int) -> tuple[Step, ...]:
    """Take the lines of this depth, and what is below them, off ``lines``."""
    steps: list[Step] = []
    while lines and lines[0].depth >= depth:
        line = lines.pop(0)
        if line.depth > depth:
            raise ScenarioError(f"{name}, line {line.number}: is below a line that has no room")
        steps.append(_step(name, line, lines))
    return tuple(steps)


def _step(name: str, line: _Line, lines: list[_Line]) -> Step:
    where = f"{name}, line {line.number}"
    if calm := _CALM.fullmatch(line.text):
        return Calm(_seconds(where, calm["seconds"]))
    if times := _TIMES.fullmatch(line.text):
        count = int(times["times"])
        if not 1 <= count <= TIMES_MAX:
            raise ScenarioError(f"{where}: from 1 to {TIMES_MAX} times")
        return Repeat(count, _inside(where, name, line, lines))
    if inject := _INJECTION.fullmatch(line.text):
        fault = RENAMED.get(inject["fault"], inject["fault"])
        if inject["during"]:
            inside = _inside(where, name, line, lines)
            return Injection(fault, during=inside, line=line.number)
        seconds = _seconds(where, inject["seconds"] or "0")
        return Injection(fault, seconds, line=line.number)
    raise ScenarioError(
        f"{where}: not understood: {line.text!r}; write `calm for 2 s`, `Fault.place for 2 s`, "
        "`Fault.place while`, or `5 times`"
    )


def _inside(where: str, name: str, line: _Line, lines: list[_Line]) -> tuple[Step, ...]:
    steps = _block(name, lines, line.depth + 1)
    if not steps:
        raise ScenarioError(f"{where}: put what happens below it, {INDENT} spaces further in")
    return steps


def _seconds(where: str, text: str) -> float:
    seconds = float(text)
    if seconds > SECONDS_MAX:
        raise ScenarioError(f"{where}: at most {SECONDS_MAX:g} s")
    return seconds


def _is_step(text: str) -> bool:
    return any(pattern.fullmatch(text) for pattern in (_HEADER, _CALM, _TIMES, _INJECTION))


def _flat(steps: Sequence[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        if isinstance(step, Repeat):
            yield from _flat(step.steps)
        elif isinstance(step, Injection):
            yield from _flat(step.during)


def _length(steps: Sequence[Step]) -> float:
    total = 0.0
    for step in steps:
        match step:
            case Calm(seconds):
                total += seconds
            case Injection(_, seconds, during):
                total += seconds + _length(during)
            case Repeat(times, inner):
                total += times * _length(inner)
    return total
