"""Between a pool's policy and its message, in requests and in the store."""

from __future__ import annotations

from seatkeeper.core.reservation_messages import decode_reservations, encode_reservation
from seatkeeper.server.domain import (
    NO_POLICY,
    Overtaking,
    PoolPolicy,
    ProjectShare,
    ReclaimRule,
)
from seatkeeper.server.wire.borrowing import decode_borrow, encode_borrow
from seatkeeper.server.wire.counting import decode_counting, encode_counting
from seatkeeper.server.wire.hold_rules import decode_hold, encode_hold
from seatkeeper.server.wire.pool_rules import decode_rules, encode_rules
from seatkeeper.server.wire.stays import decode_stay, encode_stay
from seatkeeper.v1 import pool_service_pb2


def encode_policy(policy: PoolPolicy) -> pool_service_pb2.PoolPolicy:
    """Return the message for a policy."""
    message = pool_service_pb2.PoolPolicy(
        projects=[
            pool_service_pb2.ProjectShare(
                project=share.project,
                guaranteed=share.guaranteed,
                limit=share.limit,
                weight=share.weight,
                parent=share.parent,
            )
            for share in policy.projects
        ]
    )
    if policy.usage_half_life is not None:
        message.usage_half_life.FromTimedelta(policy.usage_half_life)
    if policy.overtaking is not None:
        message.overtaking.seats = policy.overtaking.seats
        message.overtaking.within.FromTimedelta(policy.overtaking.within)
        if policy.overtaking.hold_back is not None:
            message.overtaking.hold_back.FromTimedelta(policy.overtaking.hold_back)
    if policy.reclaim is not None:
        message.reclaim.notice.FromTimedelta(policy.reclaim.notice)
        message.reclaim.minimum_hold.FromTimedelta(policy.reclaim.minimum_hold)
        message.reclaim.hourly = policy.reclaim.hourly
    if policy.rules != NO_POLICY.rules:
        message.rules.CopyFrom(encode_rules(policy.rules))
    if policy.hold is not None:
        message.hold.CopyFrom(encode_hold(policy.hold))
    if policy.stay is not None:
        message.stay.CopyFrom(encode_stay(policy.stay))
    message.reservations.extend(map(encode_reservation, policy.reservations))
    if policy.counting != NO_POLICY.counting:
        message.counting.CopyFrom(encode_counting(policy.counting))
    if policy.borrow is not None:
        message.borrow.CopyFrom(encode_borrow(policy.borrow))
    message.count_once.extend(policy.count_once)
    return message


def decode_policy(message: pool_service_pb2.PoolPolicy) -> PoolPolicy:
    """Return the policy in a message."""
    overtaking = None
    if message.HasField("overtaking"):
        said = message.overtaking
        hold_back = said.hold_back.ToTimedelta() if said.HasField("hold_back") else None
        overtaking = Overtaking(said.seats, said.within.ToTimedelta(), hold_back)
    reclaim = _decode_reclaim(message.reclaim) if message.HasField("reclaim") else None
    rules, counting = decode_rules(message), decode_counting(message)
    hold = decode_hold(message.hold) if message.HasField("hold") else None
    stay = decode_stay(message.stay) if message.HasField("stay") else None
    borrow = decode_borrow(message.borrow) if message.HasField("borrow") else None
    reservations = decode_reservations(message.reservations)
    if not message.projects:
        found = PoolPolicy(
            overtaking=overtaking,
            reclaim=reclaim,
            rules=rules,
            hold=hold,
            reservations=reservations,
            counting=counting,
            stay=stay,
            borrow=borrow,
            count_once=tuple(message.count_once),
        )
        return NO_POLICY if found == NO_POLICY else found
    return PoolPolicy(
        tuple(
            ProjectShare(
                project=share.project,
                guaranteed=share.guaranteed,
                limit=share.limit if share.HasField("limit") else None,
                weight=share.weight or 1,
                parent=share.parent,
            )
            for share in message.projects
        ),
        message.usage_half_life.ToTimedelta() if message.HasField("usage_half_life") else None,
        overtaking,
        reclaim,
        rules,
        hold,
        reservations,
        counting,
        stay,
        borrow,
        tuple(message.count_once),
    )


def _decode_reclaim(message: pool_service_pb2.ReclaimRule) -> ReclaimRule:
    return ReclaimRule(
        message.notice.ToTimedelta(), message.minimum_hold.ToTimedelta(), message.hourly
    )
