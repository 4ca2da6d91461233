"""Who may use a pool, and how much each may have of it, as text and as messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from seatkeeper.core.errors import InvalidArgument
from seatkeeper.v1 import pool_service_pb2 as pb

NONE = "none"
_KINDS = ("project", "holder", "group", "host")
_FIELDS = ("seats", "tickets")

Rules = pb.PoolRules | Callable[[pb.PoolRules], pb.PoolRules]
"""Rules that take the place of those there are, or what makes them of those there are."""


@dataclass(frozen=True, kw_only=True)
class RulesChange:
    """What is to become of a pool's rules; None: it stays as it is."""

    include: pb.Who | None = None
    """An empty one: all are let in."""
    exclude: pb.Who | None = None
    """An empty one: none is kept out."""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Groups to add or to change; one without holders is left out from now on."""
    per_holder: pb.AtMost | None = None
    """An empty one: all there is."""
    per_project: pb.AtMost | None = None
    per_host: pb.AtMost | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes."""
        return self == RulesChange()

    def applied_to(self, rules: pb.PoolRules) -> pb.PoolRules:
        """Return the rules as they are to be. Raises `InvalidArgument` for an unknown group."""
        changed = pb.PoolRules()
        changed.CopyFrom(rules)
        for name in ("include", "exclude", "per_holder", "per_project", "per_host"):
            given = getattr(self, name)
            if given is not None:
                changed.ClearField(name)
                if given.ByteSize():
                    getattr(changed, name).CopyFrom(given)
        groups = {group.name: group for group in rules.groups}
        for name, holders in self.groups.items():
            if holders:
                groups[name] = pb.HolderGroup(name=name, holders=holders)
            elif groups.pop(name, None) is None:
                raise InvalidArgument(f"the pool has no group {name}")
        del changed.groups[:]
        changed.groups.extend(groups.values())
        return changed


def with_rules(policy: pb.PoolPolicy, rules: Rules) -> None:
    """Put rules into a policy, or take them out of it where they say nothing."""
    changed = rules(policy.rules) if callable(rules) else rules
    policy.ClearField("rules")
    if changed.ByteSize():
        policy.rules.CopyFrom(changed)


def parse_who(texts: Iterable[str]) -> pb.Who:
    """Return what texts say, such as ``project:vision`` or ``holder:ci-*``; ``none`` alone: none.

    Raises `InvalidArgument` for what cannot be read; whether there is such a group is for a node to
    say.
    """
    texts = [each.strip() for each in texts]
    if texts == [NONE]:
        return pb.Who()
    who = pb.Who()
    for text in texts:
        kind, colon, name = text.partition(":")
        if not colon or kind not in _KINDS or not name:
            wanted = ", ".join(f"{each}:NAME" for each in _KINDS)
            raise InvalidArgument(f"{text[:100]!r} is none of {wanted}; {NONE} stands alone")
        getattr(who, f"{kind}s").append(name)
    return who


def parse_group(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the name and the holders of a group, such as ``students:alice,s-*``; none: ``students:``.

    Raises `InvalidArgument` for what cannot be read.
    """
    name, colon, rest = text.partition(":")
    if not colon or not name.strip():
        raise InvalidArgument(f"{text[:100]!r} is no group; write NAME:HOLDER,HOLDER")
    return name.strip(), tuple(filter(None, (each.strip() for each in rest.split(","))))


def parse_most(text: str) -> pb.AtMost:
    """Return what ``text`` says, such as ``seats=2,tickets=5``; ``none``: an empty message.

    Raises `InvalidArgument` for what cannot be read; whether the values make sense is for a node to
    say.
    """
    most = pb.AtMost()
    if text.strip() == NONE:
        return most
    seen: set[str] = set()
    for part in text.split(","):
        name, equals, value = (each.strip() for each in part.partition("="))
        if not equals or name not in _FIELDS:
            raise InvalidArgument(
                f"{part[:100]!r} is neither seats=N nor tickets=N, and {NONE} stands alone"
            )
        if name in seen:
            raise InvalidArgument(f"{name} is given twice in {text[:100]!r}")
        seen.add(name)
        if not (value.isascii() and value.isdecimal() and len(value) < 10):
            raise InvalidArgument(f"{name}={value[:100]} is no whole number from 0 on")
        setattr(most, name, int(value))
    return most


def most_text(most: pb.AtMost) -> str:
    """Return the text that `parse_most` reads it from."""
    said = [f"seats={most.seats}"] if most.HasField("seats") else []
    said += [f"tickets={most.tickets}"] if most.HasField("tickets") else []
    return ",".join(said) or NONE


def who_texts(who: pb.Who) -> list[str]:
    """Return the texts that `parse_who` reads it from."""
    return [f"{kind}:{name}" for kind in _KINDS for name in getattr(who, f"{kind}s")]
