"""Between a pool's rules and their message, in requests and in the store."""

from __future__ import annotations

from seatkeeper.core.pool_rule_faults import rule_faults
from seatkeeper.core.pool_rules import NO_RULES, AtMost, HolderGroup, PoolRules, Who
from seatkeeper.core.validate import Malformed
from seatkeeper.v1 import pool_service_pb2


def encode_rules(rules: PoolRules) -> pool_service_pb2.PoolRules:
    """Return the message for rules."""
    message = pool_service_pb2.PoolRules(
        groups=[
            pool_service_pb2.HolderGroup(name=group.name, holders=group.holders)
            for group in rules.groups
        ]
    )
    write_who(message.include, rules.include)
    write_who(message.exclude, rules.exclude)
    if not rules.per_holder.is_empty:
        message.per_holder.CopyFrom(_encode_most(rules.per_holder))
    if not rules.per_project.is_empty:
        message.per_project.CopyFrom(_encode_most(rules.per_project))
    if not rules.per_host.is_empty:
        message.per_host.CopyFrom(_encode_most(rules.per_host))
    return message


def decode_rules(policy: pool_service_pb2.PoolPolicy) -> PoolRules:
    """Return the rules in the message of a policy; ``NO_RULES`` itself where there are none."""
    if not policy.HasField("rules"):
        return NO_RULES
    message = policy.rules
    rules = PoolRules(
        tuple(HolderGroup(group.name, tuple(group.holders)) for group in message.groups),
        decode_who(message.include),
        decode_who(message.exclude),
        _decode_most(message.per_holder),
        _decode_most(message.per_project),
        _decode_most(message.per_host),
    )
    return NO_RULES if rules == NO_RULES else rules


def check_rules(policy: pool_service_pb2.PoolPolicy) -> None:
    """Check the rules in the message of a policy, as a whole. Raises ``Malformed``."""
    for way, reason in rule_faults(decode_rules(policy)):
        raise Malformed(f"spec.policy.rules{way_text(way)}", reason)


def way_text(way: tuple[str | int, ...]) -> str:
    """Return the way to a field as it is said: ``.groups[1].name``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in way)


def write_who(message: pool_service_pb2.Who, who: Who) -> None:
    """Put who is meant into a message, which stays unset where that is no one."""
    if who.is_empty:
        return
    message.projects.extend(who.projects)
    message.holders.extend(who.holders)
    message.groups.extend(who.groups)
    message.hosts.extend(who.hosts)


def _encode_most(most: AtMost) -> pool_service_pb2.AtMost:
    return pool_service_pb2.AtMost(seats=most.seats, tickets=most.tickets)


def _decode_most(message: pool_service_pb2.AtMost) -> AtMost:
    return AtMost(
        message.seats if message.HasField("seats") else None,
        message.tickets if message.HasField("tickets") else None,
    )


def decode_who(message: pool_service_pb2.Who) -> Who:
    """Return who is meant."""
    who = tuple(message.projects), tuple(message.holders), tuple(message.groups)
    return Who(*who, tuple(message.hosts))
