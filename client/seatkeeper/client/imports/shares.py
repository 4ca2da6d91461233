"""From reservations and limits to the projects of pools."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from seatkeeper.client.imports.dialect import Dialect
from seatkeeper.client.imports.groups import DefinedGroup, Groups, not_defined
from seatkeeper.client.imports.names import name_of
from seatkeeper.client.imports.parsed import Became, Claim, Outcome
from seatkeeper.client.imports.seats import Features, Pool

APPLIED_MAX = 200_000
"""Most projects that lines may change, in all: `ALL_GROUPS` changes many."""
_NOT_PROJECTS = {
    "USER": "users",
    "DISPLAY": "displays",
    "INTERNET": "addresses",
    "INTERNET_GROUP": "addresses",
}


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


def shares_of(
    dialect: Dialect,
    features: Features,
    claims: list[tuple[Outcome, Claim]],
    groups: Groups,
) -> dict[int, Shared]:
    """Return the projects of pools, by the identity of each, and say of each line what became of it."""
    shares = _Shares(dialect, features, groups)
    for outcome, claim in claims:
        shares.apply(outcome, claim)
    return shares.found


class _Shares:
    def __init__(self, dialect: Dialect, features: Features, groups: Groups) -> None:
        self.found = {id(pool): Shared(pool) for pool in features.pools.values()}
        self._dialect = dialect
        self._features = features
        self._groups = groups
        self._applied = 0

    def apply(self, outcome: Outcome, claim: Claim) -> None:
        if claim.kind not in ("PROJECT", "GROUP"):
            outcome.ends_as(Became.NONE, _not_a_project(claim))
            return
        file = outcome.statement.file
        groups: list[DefinedGroup] = []
        whom = [(self._dialect.key(claim.who), claim.who)]
        if claim.kind == "GROUP":
            if claim.is_limit and claim.who == self._dialect.all_groups:
                groups = self._groups.of_users(file)
                whom = [(self._dialect.key(group.name), group.name) for group in groups]
            elif (group := self._groups.named(file, "GROUP", claim.who)) is not None:
                groups = [group]
            else:
                outcome.ends_as(*not_defined(claim.who))
                return
        feature = self._dialect.key(claim.feature)
        pools = self._features.named(feature)
        if not pools or not whom:
            no_group = (Became.NOT_NEEDED, "this file defines no group")
            outcome.ends_as(*(no_group if pools else self._features.absent(feature)))
            return
        for each in (*_differences(self._dialect, claim, pools), *claim.losses):
            outcome.partly(each)
        self._applied += len(whom) * len(pools)
        if self._applied > APPLIED_MAX:
            reason = f"lines before it have changed {APPLIED_MAX} projects: import fewer files at once"
            outcome.ends_as(Became.UNREADABLE, reason)
            return
        for group in groups:
            group.is_project = True
        did = [
            self._give(self.found[id(pool)], claim, each, outcome)
            for pool in pools
            for each in whom
        ]
        if not any(did):
            outcome.ends_as(
                Became.NOT_NEEDED, "an earlier line limits this already, and counts"
            )

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
    if claim.is_limit and claim.kind == "USER":
        return (
            "a pool limits all holders alike, with `per_holder`, or a project; give this user a "
            "project with a limit"
        )
    what = _NOT_PROJECTS.get(claim.kind, "hosts")
    if claim.is_limit:
        return f"a limit is of a project, not of {what}; give it to a project that is theirs"
    text = f"seats are guaranteed to projects, not to {what}; make it a GROUP, or a PROJECT"
    if claim.kind in ("USER", "HOST", "HOST_GROUP"):
        text += ", or keep seats idle for them with `reservations`"
    return text


def of_these_alone(qualifier: str) -> str:
    """Return what is lost of a line that is about some licences of a feature."""
    return f"{qualifier[:60]}: it is for all licences of the pool here, not for these alone"


def _differences(dialect: Dialect, claim: Claim, pools: list[Pool]) -> Iterator[str]:
    if claim.qualifier:
        yield of_these_alone(claim.qualifier)
    versions = max(len(pool.versions) for pool in pools)
    if dialect.of_each_version and not claim.qualifier and not claim.is_limit and versions > 1:
        yield (
            f"the server reserves so many of each of its {versions} versions, "
            f"{claim.seats * versions} in all; here it is {claim.seats} in all"
        )
