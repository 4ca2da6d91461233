"""What the rules of a pool promise, said without their code; and rules that a seed draws."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace

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
    drawn = PoolRules(groups, include, exclude, per_holder, per_project)
    # Not drawn from the same: what else happens in a seed stays as it is.
    return _with_hosts(drawn, random.Random(repr(drawn)), seats)


def _with_hosts(rules: PoolRules, own: random.Random, seats: int) -> PoolRules:
    """Return rules that look at hosts, too, in some cases. Those who come last say none."""
    include, exclude, most = rules.include, rules.exclude, AtMost()
    if own.random() < 0.3 and not include.is_empty:
        include = replace(include, hosts=("HOST-1",))
    if own.random() < 0.2:
        exclude = replace(exclude, hosts=("*-0",))
    if own.random() < 0.3:
        most = AtMost(own.randint(1, max(1, seats)), own.choice([None, 1]))
    return replace(rules, include=include, exclude=exclude, per_host=most)


def breach(rules: PoolRules, asked: Asked) -> str:
    """Return what of the rules a grant breaks by itself; empty: nothing."""
    if is_among(rules, rules.exclude, asked):
        return f"{asked.holder} of {asked.project} is excluded"
    who = rules.include
    if (who.projects or who.holders or who.groups or who.hosts) and not is_among(
        rules, who, asked
    ):
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
        seats["host", grant.host.lower()] += grant.seats
    most_h, most_p = rules.per_holder.seats, rules.per_project.seats
    most_on = rules.per_host.seats
    found, behind = set(), set()
    for ticket in sorted(waiting, key=lambda each: (-each.priority, each.number)):
        queue = "holder", ticket.holder, ticket.project if is_shared else ""
        of_project = "project", ticket.project, ""
        host = ticket.host.lower()
        on = "host", host, ticket.project if is_shared else ""
        if most_h is not None and (
            queue in behind or seats["holder", ticket.holder] + ticket.seats > most_h
        ):
            behind.add(queue)
            found.add(ticket.grant_id)
        elif (
            most_on is not None
            and host
            and (on in behind or seats["host", host] + ticket.seats > most_on)
        ):
            behind.add(on)
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
    hosts = [each.lower() for each in who.hosts] if asked.host else []
    return (
        _fits(asked.project, who.projects)
        or _fits(asked.holder, holders)
        or _fits(asked.host.lower(), hosts)
    )


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(
        re.fullmatch(re.escape(each).replace(r"\*", ".*"), name, re.DOTALL) for each in patterns
    )
