"""What may be said in a pool's rules. Pure; who writes a specification checks it as nodes do."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from seatkeeper.core.borrowing import BorrowRule
from seatkeeper.core.pool_rules import ANY, HolderGroup, PoolRules, Who
from seatkeeper.core.text import hidden_in, named
from seatkeeper.core.validate import HOLDER_MAX, SEATS_MAX, is_name

NAMES_MAX = 1_000
"""Most names and patterns of one pool, in all its lists together."""
GROUPS_MAX = 100
_PROJECT = re.compile(r"[a-z0-9*][a-z0-9._*-]{0,62}")

RuleFault = tuple[tuple[str | int, ...], str]
"""What is wrong with rules: the way to it, such as ``include``, ``groups``, 1; and the reason."""


def rule_faults(rules: PoolRules) -> Iterator[RuleFault]:
    """Yield all that is wrong with rules."""
    count = len(rules.groups)
    if count > GROUPS_MAX:
        yield ("groups",), f"{count} groups are over {GROUPS_MAX}"
    lists = [("groups", at, "holders") for at in range(count)]
    total = sum(len(group.holders) for group in rules.groups)
    for who in (rules.include, rules.exclude):
        total += len(who.projects) + len(who.holders) + len(who.groups) + len(who.hosts)
    if total > NAMES_MAX:
        first = lists[0][:1] if lists else ("exclude" if rules.include.is_empty else "include",)
        yield first, f"{total} names and patterns in all rules are over {NAMES_MAX}"
    names: set[str] = set()
    for at, group in enumerate(rules.groups):
        if not is_name(group.name):
            yield ("groups", at, "name"), f"{group.name[:64]!r} is not a name"
        elif group.name in names:
            yield ("groups", at, "name"), f"{group.name} is there twice"
        names.add(group.name)
        if not group.holders:
            yield ("groups", at, "holders"), f"group {group.name[:64]} has no holder"
        yield from _in_list(("groups", at, "holders"), group.holders, is_project=False)
    yield from _in_lists(rules.include, rules.exclude, names)
    for key, most in rules.limits:
        if most.seats is not None and not 1 <= most.seats <= SEATS_MAX:
            yield (key, "seats"), f"{most.seats} is not from 1 to {SEATS_MAX}"
        if most.tickets is not None and not 0 <= most.tickets <= SEATS_MAX:
            yield (key, "tickets"), f"{most.tickets} is not from 0 to {SEATS_MAX}"


def borrower_faults(rule: BorrowRule, groups: Iterable[HolderGroup]) -> Iterator[RuleFault]:
    """Yield what is wrong with who may borrow, in a pool with these groups."""
    include, exclude = rule.include, rule.exclude
    total = sum(
        len(who.projects) + len(who.holders) + len(who.groups) + len(who.hosts)
        for who in (include, exclude)
    )
    if total > NAMES_MAX:
        first = "exclude" if include.is_empty else "include"
        yield (first,), f"{total} names and patterns of who may borrow are over {NAMES_MAX}"
    yield from _in_lists(include, exclude, {group.name for group in groups})
    if rule.per_project is not None and not 0 <= rule.per_project <= SEATS_MAX:
        yield ("per_project",), f"{rule.per_project} is not from 0 to {SEATS_MAX}"


def _in_lists(include: Who, exclude: Who, groups: Collection[str]) -> Iterator[RuleFault]:
    for key, who in (("include", include), ("exclude", exclude)):
        yield from _in_list((key, "projects"), who.projects, is_project=True)
        yield from _in_list((key, "holders"), who.holders, is_project=False)
        yield from _in_list((key, "hosts"), who.hosts, is_project=False)
        for at, name in enumerate(who.groups):
            if name not in groups:
                yield (key, "groups", at), f"there is no group {name[:64]}"
            elif name in who.groups[:at]:
                yield (key, "groups", at), f"{name} is there twice"


def _in_list(
    way: tuple[str | int, ...], patterns: tuple[str, ...], *, is_project: bool
) -> Iterator[RuleFault]:
    seen: set[str] = set()
    for at, pattern in enumerate(patterns):
        reason = _fault_of_project(pattern) if is_project else _fault_of_holder(pattern)
        if pattern in seen:
            reason = f"{pattern} is there twice"
        seen.add(pattern)
        if reason:
            yield (*way, at), reason


def _fault_of_project(pattern: str) -> str:
    if _PROJECT.fullmatch(pattern) and pattern.count(ANY) <= 1:
        return ""
    return (
        f"{pattern[:64]!r} is not a project's name, with or without one `*`: "
        "1 to 63 of `a-z 0-9 . _ -`, starting with a letter or a digit"
    )


def _fault_of_holder(pattern: str) -> str:
    if not 1 <= len(pattern) <= HOLDER_MAX:
        return f"it has 1 to {HOLDER_MAX} characters"
    if pattern.count(ANY) > 1:
        return f"{pattern[:64]!r} has more than one `*`"
    if hidden := hidden_in(pattern):
        return f"has characters that cannot be shown, such as {named(hidden)}"
    return ""
