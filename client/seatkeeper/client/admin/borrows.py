"""How seats of a pool are borrowed, as text and as a message."""

from __future__ import annotations

from seatkeeper.client.admin.rule_values import is_whole, length_of, values_in
from seatkeeper.core.borrowing import SKEW_DEFAULT, BorrowRule
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.core.pool_rules import Who
from seatkeeper.v1 import pool_service_pb2 as pb

EXAMPLE = "longest=30d,seats=5"
_LENGTHS, _NUMBERS = ("longest", "skew"), ("seats", "low_water", "per_project")


def parse_borrow(text: str) -> pb.BorrowRule:
    """Return what ``text`` says, such as ``longest=30d,seats=5,low_water=2,skew=10m``.

    Lengths as in `parse_length`, or a number of seconds. ``none``: an empty message. Raises
    `InvalidArgument` for what cannot be read; whether the values make sense is for a node to say.
    """
    rule = pb.BorrowRule()
    values = values_in("borrow", text, (*_LENGTHS, *_NUMBERS), EXAMPLE)
    for key, value in values.items():
        if key in _LENGTHS:
            getattr(rule, key).FromTimedelta(length_of("borrow", key, value))
        elif not is_whole(value):
            raise InvalidArgument(f"borrow: {key}={value[:100]} is no number from 0 on")
        else:
            setattr(rule, key, int(value))
    if values and not rule.HasField("longest"):
        raise InvalidArgument(f"borrow: {text[:100]!r} gives no longest=LENGTH")
    return rule


def borrow_rule(message: pb.BorrowRule) -> BorrowRule:
    """Return the rule in a message."""
    return BorrowRule(
        message.longest.ToTimedelta(),
        message.seats if message.HasField("seats") else None,
        message.skew.ToTimedelta() if message.HasField("skew") else SKEW_DEFAULT,
        message.low_water,
        _who(message.include),
        _who(message.exclude),
        message.per_project if message.HasField("per_project") else None,
    )


def _who(message: pb.Who) -> Who:
    names = tuple(message.projects), tuple(message.holders), tuple(message.groups)
    return Who(*names, tuple(message.hosts))


def borrow_text(message: pb.BorrowRule) -> str:
    """Return the text that `parse_borrow` reads it from; without who may borrow."""
    return str(borrow_rule(message))


def with_borrow(
    policy: pb.PoolPolicy,
    rule: pb.BorrowRule | None,
    include: pb.Who | None = None,
    exclude: pb.Who | None = None,
) -> None:
    """Change how seats are borrowed; None: as before; an empty rule: none are.

    A rule that does not say who may borrow leaves that as it is. Raises `InvalidArgument` where it is
    said of a pool that lends none.
    """
    if rule is not None:
        before = pb.BorrowRule()
        before.CopyFrom(policy.borrow)
        policy.ClearField("borrow")
        if rule.ByteSize():
            policy.borrow.CopyFrom(rule)
            for key in ("include", "exclude"):
                if before.HasField(key) and not rule.HasField(key):
                    getattr(policy.borrow, key).CopyFrom(getattr(before, key))
    if (include is not None or exclude is not None) and not policy.HasField("borrow"):
        raise InvalidArgument("the pool lends no seats: say how, too, such as longest=30d")
    if include is not None:
        policy.borrow.ClearField("include")
        if include.ByteSize():
            policy.borrow.include.CopyFrom(include)
    if exclude is not None:
        policy.borrow.ClearField("exclude")
        if exclude.ByteSize():
            policy.borrow.exclude.CopyFrom(exclude)
