"""What a pool, its grants and its tickets look like to clients."""

from __future__ import annotations

from collections import Counter
from heapq import nsmallest
from itertools import chain, islice

from seatkeeper.core.lot_messages import encode_seats
from seatkeeper.core.lot_use import counted
from seatkeeper.core.pool_rules import finder
from seatkeeper.server.decide import Forecast, Place
from seatkeeper.server.domain import Grant, PoolSpec, PoolState, Reclaim, Stay, Ticket
from seatkeeper.server.domain.counted_once import SeatSum
from seatkeeper.server.domain.state import NO_USAGE
from seatkeeper.server.policy.returning import may_return
from seatkeeper.server.policy.waiting import Waiting
from seatkeeper.server.pool.admin import PoolView
from seatkeeper.server.store import records
from seatkeeper.server.wire.borrowing import fill_borrowed
from seatkeeper.server.wire.counting import counted_by, encode_mark, fill_counts
from seatkeeper.server.wire.denials import encode_basis, fill_estimate
from seatkeeper.server.wire.hold_rules import fill_hold
from seatkeeper.server.wire.reclaims import fill_reclaiming
from seatkeeper.server.wire.stays import kept_by
from seatkeeper.v1 import pool_service_pb2

SHOWN_MAX = 1_000
"""Most grants, and most tickets, shown of one pool."""


def pool_message(
    view: PoolView, forecast: Forecast, owner: str, *, details: bool = True
) -> pool_service_pb2.Pool:
    """Return what clients are shown of a pool; ``details``: also its grants and tickets.

    ``owner``: id of the node that decides for it.
    """
    spec, state = view.spec, view.state
    message = pool_service_pb2.Pool(
        spec=records.spec_message(spec),
        revision=view.revision,
        held=state.held,
        free=max(0, spec.open_seats - state.held),
        queued=len(state.tickets),
        fence=state.guard.fence,
        owner=owner,
        borrowed=state.borrowed_seats,
    )
    if spec.policy.projects:
        _add_projects(message, spec, state)
    if spec.lots:
        _add_lot_use(message, spec, state)
    if spec.policy.reservations:
        _add_reservations(message, spec, state)
    message.kept = state.kept_seats
    if state.guard.advisory is not None:
        fill_counts(message.advisory, state.guard.advisory)
    kept = state.guard.hold_back
    if kept is not None and kept.grant_id in state.tickets:
        message.hold_back.grant_id, message.hold_back.idle = kept.grant_id, message.free
        message.hold_back.since.FromMilliseconds(kept.since)
        message.hold_back.until.FromMilliseconds(kept.until)
    if details:
        _add_grants(message, state)
        _add_tickets(message, forecast)
    return message


def grant_message(
    grant: Grant, pool: str = "", reclaim: Reclaim | None = None
) -> pool_service_pb2.HeldGrant:
    """Return what clients are shown of a grant, which may be called back."""
    held = pool_service_pb2.HeldGrant(
        grant_id=grant.grant_id,
        session_id=grant.session_id,
        seats=grant.seats,
        fence=grant.fence,
        agent_id=grant.agent_id,
    )
    grant.attribution.write(held)
    held.granted_at.FromMilliseconds(grant.granted_at)
    if grant.marks is not None:
        held.lots.extend(map(encode_seats, grant.marks.lots))
        held.overdraft = grant.marks.overdraft
    if grant.mark is not None:
        held.advisory.CopyFrom(encode_mark(grant.mark))
    held.continues_fence = grant.continues
    fill_borrowed(held, grant)
    held.counts_once.extend(counted_by(grant.group))
    if reclaim is not None:
        fill_reclaiming(held.reclaiming, pool, grant.grant_id, reclaim)
    return held


def ticket_message(ticket: Ticket, place: Place | None) -> pool_service_pb2.QueuedTicket:
    """Return what clients are shown of a ticket; ``place``: None, and it has none any more."""
    queued = pool_service_pb2.QueuedTicket(
        grant_id=ticket.grant_id,
        session_id=ticket.session_id,
        seats=ticket.seats,
        position=place.position if place is not None else 0,
    )
    ticket.attribution.write(queued)
    queued.queued_at.FromMilliseconds(ticket.queued_at)
    if ticket.move is not None:
        queued.moved.reason = ticket.move.reason
        queued.moved.moved_at.FromMilliseconds(ticket.move.moved_at)
    if place is not None:
        fill_estimate(queued, place.wait)
    return queued


def reason_message(waiting: Waiting) -> pool_service_pb2.WaitReason:
    """Return why a ticket waits, as clients are shown it."""
    reason = waiting.reason
    message = pool_service_pb2.WaitReason(rule=reason.name, message=reason.text)
    for rule, before in waiting.ahead.items():
        message.ahead.add(rule=rule, requests=before.requests, seats=before.seats)
    return message


def _add_grants(message: pool_service_pb2.Pool, state: PoolState) -> None:
    holding = chain(state.grants.values(), state.kept.values())
    for grant in nsmallest(SHOWN_MAX, holding, key=lambda grant: grant.fence):
        reclaim = state.guard.reclaims.running.get(grant.grant_id)
        shown = grant_message(grant, message.spec.name, reclaim)
        fill_hold(shown, state.spec, state.guard, grant)
        if grant.grant_id in state.kept:
            shown.kept.CopyFrom(kept_message(state, state.stays[grant.grant_id]))
        message.grants.append(shown)


def kept_message(state: PoolState, stay: Stay) -> pool_service_pb2.KeptSeats:
    """Return for how long seats are kept, and by which rule."""
    rule = kept_by(stay.was_released, may_return(state, stay))
    message = pool_service_pb2.KeptSeats(rule=rule)
    if stay.until:
        message.since.FromMilliseconds(stay.since)
        message.until.FromMilliseconds(stay.until)
    return message


def _add_tickets(message: pool_service_pb2.Pool, forecast: Forecast) -> None:
    basis = encode_basis(forecast.outlook.basis)
    for ticket, place in islice(forecast.line(), SHOWN_MAX):
        queued = ticket_message(ticket, place)
        if basis is not None:
            queued.basis.CopyFrom(basis)
        message.tickets.append(queued)


def _add_lot_use(message: pool_service_pb2.Pool, spec: PoolSpec, state: PoolState) -> None:
    use = message.lot_use
    use.lots.extend(map(encode_seats, counted(state.marked.by_lot, spec.lots)))
    use.overdraft, use.overdraft_held = spec.overdraft, state.marked.overdraft


def _add_reservations(message: pool_service_pb2.Pool, spec: PoolSpec, state: PoolState) -> None:
    groups = spec.policy.rules.groups
    for reservation in spec.policy.reservations:
        finds = finder(reservation.who, groups)
        in_use = SeatSum()
        for grant in chain(state.grants.values(), state.kept.values()):
            if finds(grant.holder, grant.project, grant.host) is not None:
                in_use.add(grant.seats, grant.group)
        held = in_use.of()
        is_open = reservation.name in spec.windows.open
        kept = max(0, reservation.seats - held) if is_open else 0
        message.reservations.add(name=reservation.name, held=held, kept=kept)


def _add_projects(message: pool_service_pb2.Pool, spec: PoolSpec, state: PoolState) -> None:
    index, policy = state.projects, spec.policy
    held: Counter[str] = Counter()
    queued: Counter[str] = Counter()
    for project in index.held.keys() | index.queues.keys():
        for each in policy.path(project):
            held[each] += index.held.get(project, 0)
            queued[each] += len(index.queues.get(project, ()))
    usage = state.guard.usage if policy.usage_half_life is not None else NO_USAGE
    if usage.at:
        message.usage_at.FromMilliseconds(usage.at)
    for share in policy.projects:
        name = share.project
        used = usage.seat_millis.get(name, 0)
        counts = {"held": held[name], "queued": queued[name], "used_seat_millis": used}
        message.projects.add(project=name, **counts)
