"""What requests to a node must look like. Pure; the functions raise ``Malformed``."""

from __future__ import annotations

import re
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from seatkeeper.core.projects import (
    POLICY_TIME_MAX,
    POLICY_TIME_MIN,
    PROJECTS_MAX,
    reclaim_faults,
)
from seatkeeper.core.reclaim import MINIMUM_HOLD_MAX, NOTICE_MAX, NOTICE_MIN
from seatkeeper.core.text import hidden_in, named
from seatkeeper.core.validate import (
    DESCRIPTION_MAX,
    HOLDER_MAX,
    SEATS_MAX,
    Malformed,
    check_duration,
    check_id,
    check_name,
    is_id,
    is_name,
)
from seatkeeper.server.domain import PoolSpec, To, attribution, policy_fault
from seatkeeper.server.wire.borrowing import check_borrow
from seatkeeper.server.wire.counting import check_count_once, check_counting
from seatkeeper.server.wire.gangs import check_gang
from seatkeeper.server.wire.hold_rules import check_activity, check_hold
from seatkeeper.server.wire.lots import check_lots
from seatkeeper.server.wire.policies import decode_policy
from seatkeeper.server.wire.pool_rules import check_rules
from seatkeeper.server.wire.stays import check_stay
from seatkeeper.v1 import pool_service_pb2, seat_pb2, seat_service_pb2

CLIENT_LENGTHS_MAX = {"host": 253, "command": 100, "library": 100}
SECRET_BYTES = range(16, 65)
TTL_MIN = timedelta(seconds=2)
TTL_MAX = timedelta(hours=1)
WAIT_MAX = timedelta(days=7)
TOKENS_MAX = 10_000
WORK_MESSAGE_MAX = 2_000
REASON_MAX = 200
_FAILURE = re.compile(r"[A-Za-z0-9_]{0,64}")


def check_acquire(request: seat_pb2.Acquire) -> None:
    """Check a request for seats."""
    check_name("pool", request.pool)
    check_id("grant_id", request.grant_id)
    if request.take_over:
        _check_take_over(request)
    elif request.attributes.gang or request.attributes.alternatives:
        check_gang(request)
    elif request.seats < 1:
        raise Malformed("seats", f"{request.seats} seats asked; ask for at least 1")
    if request.seats > SEATS_MAX:
        raise Malformed("seats", f"{request.seats} seats asked; no pool has over {SEATS_MAX}")
    if request.project:
        check_name("project", request.project)
    attribution.check(request)
    if request.HasField("wait"):
        check_duration("wait", request.wait, timedelta(0), WAIT_MAX, "0 to 7 days")


def _check_take_over(request: seat_pb2.Acquire) -> None:
    """Check a request that takes seats over: what it would say of them is the other grant's."""
    check_id("take_over", request.take_over)
    said = [
        *(name for name in ("seats", "project", "priority") if getattr(request, name)),
        *(["attributes"] if request.HasField("attributes") else []),
    ]
    if said:
        raise Malformed(
            said[0], "not set where seats are taken over: it is as that grant has it"
        )
    if request.take_over == request.grant_id:
        raise Malformed("take_over", "the id of another grant, not of this request")


def check_grant_ref(grant: seat_service_pb2.GrantRef) -> None:
    """Check the name of a grant."""
    check_name("grant.pool", grant.pool)
    check_id("grant.grant_id", grant.grant_id)


def check_work_end(release: seat_service_pb2.Release) -> None:
    """Check what a release says of the end of its work. It is shown to those who wait for the same."""
    if not release.HasField("work_end"):
        return
    end = release.work_end
    if not _FAILURE.fullmatch(end.failure):
        raise Malformed(
            "work_end.failure", f"{end.failure[:65]!r} is not at most 64 of `A-Z a-z 0-9 _`"
        )
    if len(end.message) > WORK_MESSAGE_MAX:
        raise Malformed("work_end.message", f"has over {WORK_MESSAGE_MAX} characters")


def is_grant(ref: seat_service_pb2.GrantRef) -> bool:
    """Return whether a grant is named as it should be."""
    return is_name(ref.pool) and is_id(ref.grant_id)


def check_tokens_for(renew: seat_service_pb2.Renew) -> None:
    """Check the grants that a renewal asks tokens for."""
    if len(renew.tokens_for) > TOKENS_MAX:
        raise Malformed(
            "renew.tokens_for", f"{len(renew.tokens_for)} at once; at most {TOKENS_MAX}"
        )
    for ref in renew.tokens_for:
        check_name("renew.tokens_for.pool", ref.pool)
        check_id("renew.tokens_for.grant_id", ref.grant_id)


def check_reclaimable(renew: seat_service_pb2.Renew) -> None:
    """Check what a renewal asks and says of grants that may be called back."""
    check_activity(renew)
    if len(renew.reclaimable) > TOKENS_MAX:
        raise Malformed(
            "renew.reclaimable", f"{len(renew.reclaimable)} at once; at most {TOKENS_MAX}"
        )
    for ref in renew.reclaimable:
        check_name("renew.reclaimable.pool", ref.pool)
        check_id("renew.reclaimable.grant_id", ref.grant_id)


def wrong_grant(renew: seat_service_pb2.Renew) -> str:
    """Return the id of the first grant that is not named as it should be; empty: there is none."""
    active = (each.grant for each in renew.activity)
    refs = (*renew.tokens_for, *renew.reclaimable, *active)
    return next((ref.grant_id for ref in refs if not is_grant(ref)), "")


def check_credentials(credentials: seat_service_pb2.SessionCredentials) -> None:
    """Check what proves that a caller owns a session."""
    check_id("credentials.session_id", credentials.session_id)
    if len(credentials.secret) not in SECRET_BYTES:
        raise Malformed(
            "credentials.secret",
            f"has {len(credentials.secret)} bytes; use 16 to 64 random ones",
        )


def check_open(request: seat_service_pb2.Open) -> None:
    """Check a request for a session."""
    check_credentials(request.credentials)
    if not request.holder or len(request.holder) > HOLDER_MAX:
        raise Malformed("holder", f"must have 1 to {HOLDER_MAX} characters")
    if hidden := hidden_in(request.holder):
        raise Malformed(
            "holder", f"has characters that cannot be printed, such as {named(hidden)}"
        )
    if request.project:
        check_name("project", request.project)
    _check_client(request.client)
    if request.HasField("ttl"):
        check_duration("ttl", request.ttl, TTL_MIN, TTL_MAX, "2 s to 1 h")


def _check_client(client: seat_pb2.ClientInfo) -> None:
    """Check what a program says about itself. Nothing of it is believed; it must fit, and be shown."""
    for name, most in CLIENT_LENGTHS_MAX.items():
        text = getattr(client, name)
        if len(text) > most:
            raise Malformed(f"client.{name}", f"has over {most} characters")
        if hidden := hidden_in(text):
            raise Malformed(
                f"client.{name}", f"has characters that cannot be printed, as {named(hidden)}"
            )
    if not 0 <= client.pid < 1 << 31:
        raise Malformed("client.pid", f"{client.pid} is no process id")


def check_spec(spec: pool_service_pb2.PoolSpec) -> PoolSpec:
    """Check a pool's specification and return it."""
    check_name("spec.name", spec.name)
    lots = check_lots(spec)
    if not spec.HasField("seats") and not lots:
        raise Malformed("spec.seats", f"say how many, from 0 (closed) to {SEATS_MAX}")
    if not 0 <= spec.seats <= SEATS_MAX:
        raise Malformed("spec.seats", f"{spec.seats} is not from 0 (closed) to {SEATS_MAX}")
    if len(spec.description) > DESCRIPTION_MAX:
        raise Malformed("spec.description", f"has over {DESCRIPTION_MAX} characters")
    if hidden := hidden_in(spec.description):
        raise Malformed(
            "spec.description", f"has characters that cannot be shown, such as {named(hidden)}"
        )
    if spec.HasField("policy"):
        check_policy(spec.policy, lots.guaranteed_most if lots else spec.seats)
    found = PoolSpec(spec.name, spec.seats, spec.description, decode_policy(spec.policy))
    return found.with_lots(lots)


def _check_policy_time(field: str, value: Duration) -> None:
    check_duration(field, value, POLICY_TIME_MIN, POLICY_TIME_MAX, "1 s to 90 days")


def check_reason(reason: str) -> None:
    """Check why an administrator does something to another's request; its holder is shown it."""
    if not 1 <= len(reason) <= REASON_MAX or not reason.strip():
        raise Malformed("reason", f"must have 1 to {REASON_MAX} characters: say why")
    if hidden := hidden_in(reason):
        raise Malformed(
            "reason", f"has characters that cannot be shown, such as {named(hidden)}"
        )


def check_move(request: pool_service_pb2.MoveTicketRequest) -> To | str:
    """Check a move of a ticket; return where it is to be moved to."""
    check_reason(request.reason)
    check_id("move_id", request.move_id)
    match request.WhichOneof("to"):
        case "before":
            check_id("before", request.before)
            if request.before == request.grant_id:
                raise Malformed("before", "is the request itself")
            return request.before
        case "first" if request.first:
            return To.FIRST
        case "last" if request.last:
            return To.LAST
    raise Malformed("to", "say where: before which request, first, or last")


def check_policy(policy: pool_service_pb2.PoolPolicy, seats: int) -> None:
    """Check a pool's policy, as a whole and against the pool's seats."""
    field = "spec.policy.projects"
    if len(policy.projects) > PROJECTS_MAX:
        raise Malformed(field, f"{len(policy.projects)} projects are over {PROJECTS_MAX}")
    if policy.HasField("usage_half_life"):
        where = "spec.policy.usage_half_life"
        if not policy.projects:
            raise Malformed(
                where, "the policy lists no projects whose usage could be looked at"
            )
        _check_policy_time(where, policy.usage_half_life)
    if policy.HasField("overtaking"):
        where, seats_before = "spec.policy.overtaking", policy.overtaking.seats
        least = 0 if policy.overtaking.HasField("hold_back") else 1
        if not least <= seats_before <= SEATS_MAX:
            text = f"{seats_before} is not from {least} to {SEATS_MAX}; 0 goes with `hold_back` alone"
            raise Malformed(f"{where}.seats", text)
        _check_policy_time(f"{where}.within", policy.overtaking.within)
        if policy.overtaking.HasField("hold_back"):
            _check_policy_time(f"{where}.hold_back", policy.overtaking.hold_back)
    if policy.HasField("reclaim"):
        _check_reclaim(policy.reclaim)
    if policy.HasField("hold"):
        check_hold(policy.hold)
    if policy.HasField("stay"):
        check_stay(policy.stay)
    check_rules(policy)
    check_counting(policy)
    check_count_once(policy)
    check_borrow(policy)
    for place, share in enumerate(policy.projects):
        check_name(f"{field}[{place}].project", share.project)
    if (fault := policy_fault(decode_policy(policy), seats)) is not None:
        place, name, why = fault
        raise Malformed(f"{field}[{place}].{name}", why)
    for name, why in reclaim_faults(decode_policy(policy)):
        raise Malformed(f"spec.policy.reclaim.{name}" if name else "spec.policy.reclaim", why)


def _check_reclaim(rule: pool_service_pb2.ReclaimRule) -> None:
    where = "spec.policy.reclaim"
    check_duration(f"{where}.notice", rule.notice, NOTICE_MIN, NOTICE_MAX, "1 s to 1 day")
    least = timedelta(0)
    check_duration(
        *(f"{where}.minimum_hold", rule.minimum_hold, least, MINIMUM_HOLD_MAX, "0 s to 90 days")
    )
