"""Between how a pool counts, with what comes of it, and the messages for that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta

from seatkeeper.core.count_once import count_once_faults
from seatkeeper.core.counting import PLAIN, ClassCost, Counting
from seatkeeper.core.validate import Malformed
from seatkeeper.server.domain.advisory import AdvisoryCounts, AdvisoryMark
from seatkeeper.server.domain.counted_once import Group
from seatkeeper.v1 import pool_service_pb2, seat_pb2


def encode_counting(counting: Counting) -> pool_service_pb2.Counting:
    """Return the message for how a pool counts."""
    return pool_service_pb2.Counting(
        advisory=counting.is_advisory,
        costs=[
            pool_service_pb2.ClassCost(name=each.name, seats=each.seats)
            for each in counting.costs
        ],
    )


def decode_counting(policy: pool_service_pb2.PoolPolicy) -> Counting:
    """Return how a pool counts by the message of its policy; ``PLAIN`` itself where it says nothing."""
    if not policy.HasField("counting"):
        return PLAIN
    costs = tuple(ClassCost(each.name, each.seats) for each in policy.counting.costs)
    found = Counting(policy.counting.advisory, costs)
    return PLAIN if found == PLAIN else found


def check_counting(policy: pool_service_pb2.PoolPolicy) -> None:
    """Check how a pool counts, in the message of its policy. Raises ``Malformed``."""
    for place, field, reason in decode_counting(policy).faults():
        where = f"[{place}].{field}" if field else ""
        raise Malformed(f"spec.policy.counting.costs{where}", reason)


def counted_by(group: Group) -> Iterator[pool_service_pb2.CountedBy]:
    """Yield the messages for what the grants of a group have in common."""
    for attribute, value in group:
        yield pool_service_pb2.CountedBy(attribute=attribute, value=value)


def group_in(said: Iterable[pool_service_pb2.CountedBy]) -> Group:
    """Return the group in messages."""
    return tuple((each.attribute, each.value) for each in said)


def check_count_once(policy: pool_service_pb2.PoolPolicy) -> None:
    """Check which grants count once, in the message of a policy. Raises ``Malformed``."""
    rules = policy.rules
    faults = count_once_faults(
        tuple(policy.count_once),
        limits_holders=rules.per_holder.HasField("seats"),
        limits_hosts=rules.per_host.HasField("seats"),
    )
    for place, reason in faults:
        raise Malformed(f"spec.policy.count_once[{place}]", reason)


def encode_mark(mark: AdvisoryMark) -> seat_pb2.AdvisoryMark:
    """Return the message for the mark of a grant."""
    return seat_pb2.AdvisoryMark(
        rule=mark.rule,
        message=mark.message,
        seats_beyond=mark.seats_beyond,
        refused=mark.is_refusal,
    )


def decode_mark(message: seat_pb2.AdvisoryMark) -> AdvisoryMark:
    """Return the mark in a message."""
    return AdvisoryMark(message.rule, message.message, message.seats_beyond, message.refused)


def fill_counts(message: pool_service_pb2.AdvisoryCounts, counts: AdvisoryCounts) -> None:
    """Put what a pool has counted into a message."""
    message.since.FromMilliseconds(counts.since)
    if counts.until:
        message.until.FromMilliseconds(counts.until)
    message.waited = counts.waited
    message.refused = counts.refused
    message.seats_most = counts.seats_most
    message.over_longest.FromTimedelta(timedelta(milliseconds=counts.over_longest))
