"""What the rules of a pool promise, said without their code; and rules that a seed draws."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Collection, Iterable

from seatkeeper.core.pool_rules import AtMost, HolderGroup, PoolRules, Who
from seatkeeper.server.domain import Grant, Ticket

Asked = Grant | Ticket


def drawn_rules(rng: random.Random, seats: int) -> PoolRules:
    """Return rules that a pool of so many seats can have, for users of the simulation.

    Those who come last are let in, and may each have a seat.
    """
    groups = (HolderGroup("some", ("user-2", "user-4*")), HolderGroup("last", ("last-at-*",)))
    include = rng.choice(
        [
            *[Who()] * 3,
            Who(holders=("user-*",), groups=("last",)),
            Who(projects=("cv", "*m"), holders=("user-1",), groups=("last", "some")),
        ]
    )
    exclude = rng.choice(
        [*[Who()] * 3, Who(holders=("user-1",)), Who(groups=("some",), holders=("*-0",))]
    )
    per_holder, per_project = (
        AtMost(
            rng.choice([None, 1, rng.randint(1, max(1, seats))]), rng.choice([None, None, 1])
        )
        for _ in range(2)
    )
    return PoolRules(groups, include, exclude, per_holder, per_project)


def breach(rules: PoolRules, asked: Asked) -> str:
    """Return what of the rules a grant breaks by itself; empty: nothing."""
    if is_among(rules, rules.exclude, asked):
        return f"{asked.holder} of {asked.project} is excluded"
    who = rules.include
    if (who.projects or who.holders or who.groups) and not is_among(rules, who, asked):
        return f"{asked.holder} of {asked.project} is not included"
    return ""


def held_back(
    rules: PoolRules, waiting: Iterable[Ticket], held: Iterable[Asked], *, is_shared: bool
) -> Collection[str]:
    """Return the ids of the tickets that limits of each hold back, as things stand."""
    seats: Counter[tuple[str, str]] = Counter()
    for grant in held:
        seats["holder", grant.holder] += grant.seats
        seats["project", grant.project] += grant.seats
    most_h, most_p = rules.per_holder.seats, rules.per_project.seats
    found, behind = set(), set()
    for ticket in sorted(waiting, key=lambda each: (-each.priority, each.number)):
        queue = "holder", ticket.holder, ticket.project if is_shared else ""
        of_project = "project", ticket.project, ""
        if most_h is not None and (
            queue in behind or seats["holder", ticket.holder] + ticket.seats > most_h
        ):
            behind.add(queue)
            found.add(ticket.grant_id)
        elif most_p is not None and (
            of_project in behind or seats["project", ticket.project] + ticket.seats > most_p
        ):
            behind.add(of_project)
            found.add(ticket.grant_id)
    return found


def is_among(rules: PoolRules, who: Who, asked: Asked) -> bool:
    """Return whether one is among those that ``who`` names."""
    members = {group.name: group.holders for group in rules.groups}
    holders = [*who.holders, *(each for name in who.groups for each in members[name])]
    return _fits(asked.project, who.projects) or _fits(asked.holder, holders)


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(
        re.fullmatch(re.escape(each).replace(r"\*", ".*"), name, re.DOTALL) for each in patterns
    )
