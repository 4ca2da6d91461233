"""From reservations and limits to the projects of pools."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from seatkeeper.client.imports.dialect import Dialect
from seatkeeper.client.imports.names import name_of
from seatkeeper.client.imports.parsed import Became, Claim, Group, Outcome
from seatkeeper.client.imports.seats import Features, Pool

MEMBERS_SHOWN = 5
APPLIED_MAX = 200_000
"""Most projects that lines may change, in all: `ALL_GROUPS` changes many."""
_NOT_PROJECTS = {
    "USER": "users",
    "DISPLAY": "displays",
    "INTERNET": "addresses",
    "INTERNET_GROUP": "addresses",
}
_ALL_USERS = frozenset({"ALL_USERS", "*"})

Key = Callable[[str], str]


@dataclass
class Project:
    """What a project of a pool gets, and from which lines."""

    name: str
    kind: str
    who: str
    guaranteed: int = 0
    limit: int | None = None
    outcomes: list[Outcome] = field(default_factory=list)


@dataclass
class Shared:
    """A pool and its projects, in the order in which lines name them."""

    pool: Pool
    projects: dict[tuple[str, str], Project] = field(default_factory=dict)
    """By kind and name of who they are for, as the file has it."""


@dataclass
class _Groups:
    """The groups of one options file."""

    lines: dict[str, list[tuple[Outcome, Group]]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)


def shares_of(
    dialect: Dialect,
    features: Features,
    claims: list[tuple[Outcome, Claim]],
    groups: list[tuple[Outcome, Group]],
) -> dict[int, Shared]:
    """Return the projects of pools, by the identity of each, and say of each line what became of it."""
    return _Shares(dialect, features).made(claims, groups)


class _Shares:
    def __init__(self, dialect: Dialect, features: Features) -> None:
        self._dialect = dialect
        self._features = features
        self._found = {id(pool): Shared(pool) for pool in features.pools.values()}
        self._groups: dict[str, _Groups] = {}
        self._applied = 0

    def _key(self, text: str) -> str:
        return text if self._dialect.is_name_case_sensitive else text.lower()

    def made(
        self, claims: list[tuple[Outcome, Claim]], groups: list[tuple[Outcome, Group]]
    ) -> dict[int, Shared]:
        for outcome, group in groups:
            of_file = self._groups.setdefault(outcome.statement.file, _Groups())
            of_file.lines.setdefault(self._key(group.name), []).append((outcome, group))
        for outcome, claim in claims:
            self._apply(outcome, claim)
        for of_file in self._groups.values():
            for name, lines in of_file.lines.items():
                for outcome, group in lines:
                    _say_of_members(outcome, group, is_used=name in of_file.used)
        return self._found

    def _apply(self, outcome: Outcome, claim: Claim) -> None:
        of_file = self._groups.get(outcome.statement.file, _Groups())
        if claim.kind not in ("PROJECT", "GROUP"):
            outcome.ends_as(Became.NONE, _not_a_project(claim))
            return
        whom = [(self._key(claim.who), claim.who)]
        if claim.kind == "GROUP" and claim.is_limit and claim.who == self._dialect.all_groups:
            whom = [(name, lines[0][1].name) for name, lines in of_file.lines.items()]
        elif claim.kind == "GROUP" and whom[0][0] not in of_file.lines:
            reason = (
                f"no GROUP line of this file defines {claim.who[:60]}, so the server ignores it"
            )
            outcome.ends_as(Became.UNREADABLE, reason)
            return
        feature = self._key(claim.feature)
        pools = self._features.named(feature)
        if not pools or not whom:
            outcome.ends_as(*self._no_pool(feature, bool(pools)))
            return
        for each in (*_differences(self._dialect, claim, pools), *claim.losses):
            outcome.partly(each)
        self._applied += len(whom) * len(pools)
        if self._applied > APPLIED_MAX:
            reason = f"lines before it have changed {APPLIED_MAX} projects: import fewer files at once"
            outcome.ends_as(Became.UNREADABLE, reason)
            return
        did = False
        for pool in pools:
            for name, who in whom:
                did = self._give(self._found[id(pool)], claim, (name, who), outcome) or did
                if claim.kind == "GROUP":
                    of_file.used.add(name)
        if not did:
            outcome.ends_as(
                Became.NOT_NEEDED, "an earlier line limits this already, and counts"
            )

    def _no_pool(self, feature: str, has_pool: bool) -> tuple[Became, str]:
        if has_pool:
            return Became.NOT_NEEDED, "this file defines no group"
        absent = "no licence line of this feature was read: name its licence file, too"
        return self._features.out.get(feature, (Became.NONE, absent))

    def _give(
        self, shared: Shared, claim: Claim, whom: tuple[str, str], outcome: Outcome
    ) -> bool:
        """Give a project what a line says; return whether that changes anything."""
        at = claim.kind, whom[0]
        project = shared.projects.get(at)
        if project is None:
            project = Project(name_of(whom[1]), claim.kind, whom[1])
            shared.projects[at] = project
        if not claim.is_limit:
            project.guaranteed += claim.seats
        elif project.limit is None or (
            self._dialect.is_lowest_limit_in_force and claim.seats < project.limit
        ):
            project.limit = claim.seats
        else:
            return False
        project.outcomes.append(outcome)
        return True


def _not_a_project(claim: Claim) -> str:
    if claim.is_limit and claim.who in _ALL_USERS:
        return "a pool does not limit how many seats each user has yet"
    what = _NOT_PROJECTS.get(claim.kind, "hosts")
    if claim.is_limit:
        return f"a limit is of a project, not of {what}; give it to a project that is theirs"
    return f"seats are guaranteed to projects, not to {what}; make it a GROUP, or a PROJECT"


def _differences(dialect: Dialect, claim: Claim, pools: list[Pool]) -> Iterator[str]:
    if claim.qualifier:
        yield f"{claim.qualifier[:60]}: it is for all licences of the pool here, not for these alone"
    versions = max(len(pool.versions) for pool in pools)
    if dialect.of_each_version and not claim.qualifier and not claim.is_limit and versions > 1:
        yield (
            f"the server reserves so many of each of its {versions} versions, "
            f"{claim.seats * versions} in all; here it is {claim.seats} in all"
        )


def _say_of_members(outcome: Outcome, group: Group, *, is_used: bool) -> None:
    if not is_used:
        outcome.ends_as(Became.NOT_NEEDED, "no line that is translated uses it")
        return
    name = name_of(group.name)
    if not group.members:
        return
    shown = ", ".join(each[:40] for each in group.members[:MEMBERS_SHOWN])
    more = len(group.members) - MEMBERS_SHOWN
    others = f" and {more} more" if more > 0 else ""
    outcome.partly(
        f"a project does not list its users; have {shown}{others} set SEATKEEPER_PROJECT={name}"
    )
