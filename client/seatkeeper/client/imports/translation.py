"""From licence and options files to a file of pools, and what became of every line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from seatkeeper.client.imports.borrowing import lend
from seatkeeper.client.imports.daemons import Daemons
from seatkeeper.client.imports.dialect import Dialect
from seatkeeper.client.imports.groups import Groups
from seatkeeper.client.imports.lexer import Lexed, lexed
from seatkeeper.client.imports.lingers import lingering_of
from seatkeeper.client.imports.made import REFUSALS_MAX, Made, Refusal, Renamed
from seatkeeper.client.imports.parsed import (
    Access,
    Became,
    Claim,
    Group,
    IdleTime,
    Lending,
    Licence,
    Linger,
    MostOverdraft,
    Outcome,
    Package,
    Unreadable,
)
from seatkeeper.client.imports.seats import Features, features_of
from seatkeeper.client.imports.shares import Shared, shares_of
from seatkeeper.client.imports.terms import TermsOf
from seatkeeper.client.imports.who_may import Ruled, WhoMay, is_of_every_user

FILE_BYTES_MAX = 8 << 20
FILES_MAX = 100
STATEMENTS_MAX = 100_000


@dataclass(frozen=True)
class Translation:
    """What files say, as pools, and what became of every line."""

    text: str
    """The file of pools, which `pool apply` reads; empty where there are ``refusals``."""
    outcomes: tuple[Outcome, ...]
    """In the order of the files."""
    files: Mapping[str, Lexed]
    renamed: tuple[Renamed, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    pools: int = 0

    def of(self, *became: Became) -> tuple[Outcome, ...]:
        """Return the statements of which that became."""
        return tuple(outcome for outcome in self.outcomes if outcome.became in became)

    @property
    def is_whole(self) -> bool:
        """Whether nothing was lost that decides who gets a seat."""
        return not self.of(Became.PARTLY, Became.NONE, Became.UNREADABLE)


def translate(
    dialect: Dialect,
    files: Sequence[tuple[str, bytes]],
    *,
    today: date,
    names: Mapping[str, str] | None = None,
    with_vendor: bool = False,
    as_ascii: bool = False,
) -> Translation:
    """Return what files say, whatever bytes they are.

    ``files``: the name of each, for messages, and what is in it. ``today``: licences that are not in
    force then have no seats. ``prefix``: of the name of every pool. The text is checked as `pool apply`
    checks it; with any fault there is no text, and ``refusals`` say why.
    """
    if len(files) > FILES_MAX:
        return Translation("", (), {}, refusals=(Refusal(f"more than {FILES_MAX} files"),))
    large = [name for name, data in files if len(data) > FILE_BYTES_MAX]
    if large:
        reason = f"a file has more than {FILE_BYTES_MAX} bytes"
        return Translation("", (), {}, refusals=(Refusal(reason, tuple(large)),))
    read = {name: lexed(name, data, dialect.grammar) for name, data in files}
    statements = [each for found in read.values() for each in found.statements]
    if len(statements) > STATEMENTS_MAX:
        reason = f"the files have more than {STATEMENTS_MAX} statements: import fewer at once"
        return Translation("", (), read, refusals=(Refusal(reason),))
    meant = _Meant()
    for statement in statements:
        meant.add(dialect, Outcome(statement))
    features = features_of(dialect, meant.licences, meant.packages, today)
    daemons = Daemons(dialect, features, (each.statement for each in meant.outcomes))
    shared, ruled, borrowers = _shared_and_ruled(dialect, features, meant, daemons)
    lend(dialect, features, meant.lendings)
    terms = TermsOf(dialect, features, daemons)
    for outcome, said in sorted(meant.terms, key=lambda each: not each[1].feature):
        terms.add(outcome, said)
    made = Made(dialect, names or {}, with_vendor)
    made.borrowers = borrowers
    made.lingering = lingering_of(dialect, features, meant.lingers)
    made.add(features, shared, ruled, terms)
    head = f"From {', '.join(name for name, _ in files)}, by `seatkeeper import {dialect.name}`"
    text = (
        ""
        if made.refusals and (not made.entries or made.is_too_large)
        else made.text(head, as_ascii)
    )
    return Translation(
        text="" if made.refusals else text,
        outcomes=tuple(meant.outcomes),
        files=read,
        renamed=made.renamed,
        refusals=tuple(made.refusals[:REFUSALS_MAX]),
        pools=len(made.entries),
    )


def _shared_and_ruled(
    dialect: Dialect, features: Features, meant: _Meant, daemons: Daemons
) -> tuple[dict[int, Shared], dict[int, Ruled], dict[int, Ruled]]:
    """Return what options files say of pools, by the identity of each."""
    groups = Groups(dialect, meant.groups)
    limits = [each for each in meant.claims if is_of_every_user(each[1])]
    others = [each for each in meant.claims if not is_of_every_user(each[1])]
    shared = shares_of(dialect, features, others, groups)
    who_may = WhoMay(dialect, features, groups, daemons)
    borrowers = WhoMay(dialect, features, groups, daemons, is_of_borrowing=True)
    for outcome, limit in limits:
        who_may.limit(outcome, limit)
    for outcome, access in meant.accesses:
        (borrowers if access.is_of_borrowing else who_may).access(outcome, access)
    ruled, of_borrowers = who_may.made(), borrowers.made()
    groups.say()
    return shared, ruled, of_borrowers


@dataclass
class _Meant:
    """Statements, by what they mean."""

    outcomes: list[Outcome] = field(default_factory=list)
    licences: list[tuple[Outcome, Licence]] = field(default_factory=list)
    packages: list[tuple[Outcome, Package]] = field(default_factory=list)
    claims: list[tuple[Outcome, Claim]] = field(default_factory=list)
    accesses: list[tuple[Outcome, Access]] = field(default_factory=list)
    groups: list[tuple[Outcome, Group]] = field(default_factory=list)
    lingers: list[tuple[Outcome, Linger]] = field(default_factory=list)
    terms: list[tuple[Outcome, IdleTime | MostOverdraft]] = field(default_factory=list)
    lendings: list[tuple[Outcome, Lending]] = field(default_factory=list)

    def add(self, dialect: Dialect, outcome: Outcome) -> None:
        """Read one more statement."""
        self.outcomes.append(outcome)
        statement = outcome.statement
        if statement.damage:
            outcome.ends_as(Became.UNREADABLE, statement.damage)
            return
        try:
            parsed = dialect.read(statement)
        except Unreadable as error:
            outcome.ends_as(Became.UNREADABLE, str(error))
            return
        match parsed:
            case Licence():
                self.licences.append((outcome, parsed))
            case Package():
                self.packages.append((outcome, parsed))
            case Claim():
                self.claims.append((outcome, parsed))
            case Access():
                self.accesses.append((outcome, parsed))
            case Lending():
                self.lendings.append((outcome, parsed))
            case Group():
                self.groups.append((outcome, parsed))
            case Linger():
                self.lingers.append((outcome, parsed))
            case IdleTime() | MostOverdraft():
                self.terms.append((outcome, parsed))
            case None:
                hint = dialect.unknown(statement)
                known = f"{dialect.title} has no keyword of this name that is known here"
                outcome.ends_as(Became.UNREADABLE, hint or known)
            case _:
                outcome.ends_as(parsed.became, parsed.reason)
