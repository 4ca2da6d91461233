"""A pool's rules in ``pools.yaml``: from what the reader found, and what changes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta

from seatkeeper.core.borrowing import BorrowRule
from seatkeeper.core.pool_rule_faults import borrower_faults, rule_faults
from seatkeeper.core.pool_rules import AtMost, HolderGroup, PoolRules, Who
from seatkeeper.v1 import pool_service_pb2 as pb

CHOICES = ("include", "exclude")
LIMITS = ("per_holder", "per_host", "per_project")


def faults_in(rules: pb.PoolRules) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield what nodes would refuse of rules: the way to it, and the reason."""
    yield from rule_faults(
        PoolRules(
            tuple(HolderGroup(each.name, tuple(each.holders)) for each in rules.groups),
            _who(rules.include),
            _who(rules.exclude),
            _most(rules.per_holder),
            _most(rules.per_project),
            _most(rules.per_host),
        )
    )


def _who(who: pb.Who) -> Who:
    lists = tuple(who.projects), tuple(who.holders), tuple(who.groups)
    return Who(*lists, tuple(who.hosts))


def _most(most: pb.AtMost) -> AtMost:
    return AtMost(
        most.seats if most.HasField("seats") else None,
        most.tickets if most.HasField("tickets") else None,
    )


def rule_values(spec: pb.PoolSpec) -> dict[str, int | float | str | None]:
    """Return what a specification's rules say, by the ways to it in the file."""
    rules = spec.policy.rules
    values: dict[str, int | float | str | None] = {
        f"groups.{group.name}": ", ".join(group.holders) for group in rules.groups
    }
    for key in CHOICES:
        values |= _who_values(key, getattr(rules, key))
        values |= _who_values(f"borrow.{key}", getattr(spec.policy.borrow, key))
    for key in LIMITS:
        most: pb.AtMost = getattr(rules, key)
        values |= {f"{key}.seats": most.seats} if most.HasField("seats") else {}
        values |= {f"{key}.tickets": most.tickets} if most.HasField("tickets") else {}
    return values


def _who_values(key: str, who: pb.Who) -> dict[str, int | float | str | None]:
    lists = {"projects": who.projects, "holders": who.holders, "groups": who.groups}
    named = {**lists, "hosts": who.hosts}
    return {f"{key}.{name}": ", ".join(names) for name, names in named.items() if names}


def borrower_faults_in(policy: pb.PoolPolicy) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield what nodes would refuse of who may borrow: the way to it, and the reason."""
    groups = [HolderGroup(each.name, tuple(each.holders)) for each in policy.rules.groups]
    rule, lists = policy.borrow, (_who(policy.borrow.include), _who(policy.borrow.exclude))
    per_project = rule.per_project if rule.HasField("per_project") else None
    longest = rule.longest.ToTimedelta()
    borrowers = BorrowRule(longest, None, timedelta(0), 0, *lists, per_project)
    yield from borrower_faults(borrowers, groups)


def narrows(before: pb.PoolRules, after: pb.PoolRules) -> bool:
    """Return whether new rules may refuse requests that wait already; true when in doubt."""
    if (before.groups, before.include, before.exclude) != (
        after.groups,
        after.include,
        after.exclude,
    ):
        return after.HasField("include") or after.HasField("exclude")
    return any(_is_less(getattr(before, key), getattr(after, key)) for key in LIMITS)


def _is_less(before: pb.AtMost, after: pb.AtMost) -> bool:
    if not after.HasField("seats"):
        return False
    return not before.HasField("seats") or after.seats < before.seats


def rules_of(values: Mapping[str, object]) -> pb.PoolRules:
    """Return the message of what the keys of a pool are given: lists as tuples, tables as mappings."""
    rules = pb.PoolRules()
    groups = values.get("groups")
    for name, group in (groups or {}).items() if isinstance(groups, Mapping) else ():
        rules.groups.add(name=name, holders=group.get("holders", ()))
    for key in CHOICES:
        who = values.get(key)
        if isinstance(who, Mapping) and any(who.values()):
            getattr(rules, key).CopyFrom(pb.Who(**who))
    for key in LIMITS:
        most = values.get(key)
        if isinstance(most, Mapping) and most:
            getattr(rules, key).CopyFrom(pb.AtMost(**most))
    return rules
