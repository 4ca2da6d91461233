"""Between how seats are borrowed and its message, and checks of requests about it. Pure."""

from __future__ import annotations

from datetime import timedelta

from seatkeeper.core.borrowing import (
    BORROW_MAX,
    BORROW_MIN,
    SKEW_DEFAULT,
    SKEW_MAX,
    BorrowRule,
)
from seatkeeper.core.machine_statement import KEY_BYTES, STATEMENT_MAX
from seatkeeper.core.pool_rule_faults import borrower_faults
from seatkeeper.core.validate import (
    SEATS_MAX,
    Malformed,
    check_duration,
    check_id,
    check_name,
)
from seatkeeper.server.domain import Grant
from seatkeeper.server.wire.pool_rules import decode_rules, decode_who, way_text, write_who
from seatkeeper.v1 import borrow_service_pb2, pool_service_pb2


def encode_borrow(rule: BorrowRule) -> pool_service_pb2.BorrowRule:
    """Return the message for a rule."""
    message = pool_service_pb2.BorrowRule(low_water=rule.low_water, seats=rule.seats)
    message.longest.FromTimedelta(rule.longest)
    message.skew.FromTimedelta(rule.skew)
    write_who(message.include, rule.include)
    write_who(message.exclude, rule.exclude)
    if rule.per_project is not None:
        message.per_project = rule.per_project
    return message


def decode_borrow(message: pool_service_pb2.BorrowRule) -> BorrowRule:
    """Return the rule in a message."""
    return BorrowRule(
        message.longest.ToTimedelta(),
        message.seats if message.HasField("seats") else None,
        message.skew.ToTimedelta() if message.HasField("skew") else SKEW_DEFAULT,
        message.low_water,
        decode_who(message.include),
        decode_who(message.exclude),
        message.per_project if message.HasField("per_project") else None,
    )


def check_borrow(policy: pool_service_pb2.PoolPolicy) -> None:
    """Check how seats of a pool are borrowed."""
    if not policy.HasField("borrow"):
        return
    rule, where = policy.borrow, "spec.policy.borrow"
    if not rule.HasField("longest"):
        raise Malformed(f"{where}.longest", "is required: for how long seats are borrowed")
    check_duration(
        *(f"{where}.longest", rule.longest, BORROW_MIN, BORROW_MAX, "2 s to 366 days")
    )
    check_duration(f"{where}.skew", rule.skew, timedelta(0), SKEW_MAX, "0 s to 1 day")
    for name, number in (("seats", rule.seats), ("low_water", rule.low_water)):
        if not 0 <= number <= SEATS_MAX:
            raise Malformed(f"{where}.{name}", f"{number} is not from 0 to {SEATS_MAX}")
    for way, reason in borrower_faults(decode_borrow(rule), decode_rules(policy).groups):
        raise Malformed(f"{where}{way_text(way)}", reason)


def check_borrow_request(
    request: borrow_service_pb2.BorrowGrantRequest,
) -> timedelta:
    """Check a request to borrow a grant, but for its proof; return for how long."""
    check_name("grant.pool", request.grant.pool)
    check_id("grant.grant_id", request.grant.grant_id)
    if not request.HasField("length"):
        raise Malformed("length", "is required: for how long")
    check_duration("length", request.length, BORROW_MIN, BORROW_MAX, "2 s to 366 days")
    if len(request.machine_key) != KEY_BYTES:
        raise Malformed("machine_key", f"has {len(request.machine_key)} bytes, not {KEY_BYTES}")
    _check_length("proof", request.proof)
    return request.length.ToTimedelta()


def check_return_request(request: borrow_service_pb2.ReturnGrantRequest) -> None:
    """Check a request to give a grant back, but for its statement."""
    check_name("pool", request.pool)
    check_id("grant_id", request.grant_id)
    _check_length("statement", request.statement)


def _check_length(field: str, statement: str) -> None:
    if not 0 < len(statement) <= STATEMENT_MAX:
        raise Malformed(field, f"has {len(statement)} characters, not 1 to {STATEMENT_MAX}")


def fill_borrowed(held: pool_service_pb2.HeldGrant, grant: Grant) -> None:
    """Fill in which machine has borrowed a grant."""
    if (borrow := grant.borrow) is None:
        return
    held.borrowed.machine = borrow.machine
    held.borrowed.until.FromMilliseconds(borrow.until)
    held.borrowed.free_at.FromMilliseconds(borrow.free_at)
    held.borrowed.borrowed_at.FromMilliseconds(borrow.borrowed_at)
