"""Play a demand on a pool through the decisions of nodes, in virtual time.

Theory of operation
-------------------
Nothing here decides. Each moment in which something happens is one call of ``decide``, or several where
one transaction would not hold it all, with the policy that nodes have; what it decides is applied to
the pool as a commit would, and the next moment is the earliest of: the next arrival, the end of a hold,
the end of a wait, the time at which the policy says that its plan may change, and what nodes write
because a time has come: see ``calendar``. So refusals, limits, fences, the bound of the queue and the
order of service are those of the service. In one moment lots and windows are written first, then waits
end, then seats are given back, then arrivals ask, in their order in the demand.

What is left out is what takes milliseconds or fails: a commit takes no time, clients live until
they have given their seats back, and one that was refused does not come again. Nor does one whose
seats are called back; it holds them until the notice is over, and all clients heed it.

The same arguments give the same outcome. What is never true: a grant that leaves more seats held than
are in force then, with the overdraft, unless the pool is advisory; an arrival that is granted twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from heapq import heappop, heappush

from seatkeeper.core.reservations import Following
from seatkeeper.server.decide import Decision, decide
from seatkeeper.server.domain import (
    Acquire,
    Attribution,
    Cause,
    Command,
    Denied,
    Grant,
    Guard,
    Instant,
    Limits,
    PoolSpec,
    PoolState,
    Release,
    Ticket,
    WorkEnd,
)
from seatkeeper.server.domain.holds import NO_HOLDS, Holds
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.plan import Plan, Policy
from seatkeeper.server.policy.snapshot import PoolSnapshot
from seatkeeper.server.replay.calendar import VAIN_MAX, Calendar
from seatkeeper.server.replay.demand import ARRIVALS_MAX, Arrival, Beginning
from seatkeeper.server.replay.outcome import Outcome
from seatkeeper.server.replay.request import Request
from seatkeeper.server.replay.tally import Tally

HEEDS_WITHIN = timedelta(seconds=15)
"""The ttl that sessions have by default: so long before a holder is sure to know of a reclaim."""
COMMANDS_MAX = 128
"""Most commands of one decision. More would be deferred by it: a transaction does not hold them."""
WORK_DONE = WorkEnd()


def replay(
    spec: PoolSpec,
    arrivals: Iterable[Arrival],
    *,
    begin: Beginning | None = None,
    policy: Policy = BY_POOL,
    limits: Limits | None = None,
    following: Following | None = None,
) -> Outcome:
    """Return what the pool would have done with the arrivals, until the last hold has ended.

    Arrivals may come in any order; those of one time ask in the order in which they are given. A pool
    of 0 seats is closed: all wait, and the replay ends with the last arrival. ``begin``: go on from
    there. ``following``: how the windows of reservations are found; without it none opens. Raises
    ``ValueError`` for more than ``ARRIVALS_MAX``, and for an arrival before the beginning.
    """
    ordered = sorted(arrivals, key=lambda each: each.at)
    if begin is not None and ordered and ordered[0].at < begin.at:
        raise ValueError("an arrival before the beginning")
    run = _Run(spec, ordered, policy, limits or Limits(), Calendar(following))
    if begin is not None:
        run.begin(begin)
    while (now := run.next_moment()) is not None:
        run.pass_moment(now)
    return run.outcome()


class _Run:
    """A replay under way."""

    def __init__(
        self,
        spec: PoolSpec,
        arrivals: Sequence[Arrival],
        policy: Policy,
        limits: Limits,
        calendar: Calendar,
    ) -> None:
        if len(arrivals) > ARRIVALS_MAX:
            raise ValueError(f"{len(arrivals)} arrivals; at most {ARRIVALS_MAX}")
        self._state = PoolState(spec=spec)
        self._policy = policy
        self._limits = limits
        self._calendar = calendar
        self._vain = 0
        """Moments in a row in which nothing happened but what the calendar had."""
        self._arrivals = arrivals
        self._arrived = 0
        self._requests: dict[str, Request] = {}
        self._ends: list[tuple[Instant, int, str]] = []
        """When each grant is released; the number orders those of one time."""
        self._dues: list[tuple[Instant, int, str]] = []
        """When the wait of each ticket is over."""
        self._plan: Plan | None = None
        self._number = 0
        """Of the latest request: its id."""
        self._holders: list[Request] = []
        self._waited_before = 0
        self._begins: Instant | None = None
        self._now = arrivals[0].at if arrivals else Instant(0)
        self._tally = Tally(spec, self._now)

    def begin(self, begin: Beginning) -> None:
        """Put into the pool who holds and who waits there, before anything happens."""
        self._now = self._begins = begin.at
        self._tally = Tally(self._state.spec or PoolSpec("", 0), begin.at)
        for fence, arrival in enumerate(begin.holders, start=1):
            asked = self._ask(arrival)
            grant = Grant(
                asked.grant_id,
                asked.session_id,
                asked.lease_id,
                asked.attribution,
                asked.seats,
                fence,
                arrival.at,
                arrival.at,
                heeds_within=asked.heeds_within if self._calls_back else None,
                marks=arrival.marks,
                group=arrival.group,
            )
            self._state.put_grant(grant)
            request = self._requests[grant.grant_id]
            request.granted_at = arrival.at
            self._holders.append(request)
            over = max(begin.at, arrival.at + arrival.hold_millis)
            heappush(self._ends, (Instant(over), fence, grant.grant_id))
        self._waited_before = len(begin.queue)
        for number, arrival in enumerate(begin.queue, start=1):
            self._put_ticket(self._ask(arrival).ticket(number, arrival.at), begin.at)
        extended = {
            f"{number:012}": arrival.extended
            for number, arrival in enumerate(begin.holders, start=1)
            if arrival.extended
        }
        holds = Holds(extended=extended) if extended else NO_HOLDS
        self._state.guard = Guard(
            len(begin.holders), len(begin.queue), usage=begin.usage, holds=holds
        )

    def next_moment(self) -> Instant | None:
        """Return when something happens next; None: nothing does any more."""
        if self._begins is not None:
            return self._begins
        moments = [entries[0][0] for entries in (self._ends, self._dues) if entries]
        if self._arrived < len(self._arrivals):
            moments.append(self._arrivals[self._arrived].at)
        if self._plan and self._plan.next_wake is not None:
            moments.append(self._plan.next_wake)
        moments += self._notices.values()
        # What is written of lots and windows matters as long as anybody holds, waits or comes.
        if (moments or self._state.tickets) and self._vain <= VAIN_MAX:
            due = self._calendar.next_due(self._state, self._now)
            moments += [due] if due is not None else []
        return min(moments, default=None)

    def pass_moment(self, now: Instant) -> None:
        """Go on to ``now``, and have everything decided that happens then."""
        self._tally.advance(self._state, self._plan, now)
        self._now, self._begins = now, None
        self._calendar.write(self._state, now)
        due, commands = self._due(now), [*self._releases(now), *self._new(now)]
        over = {number for number, end in self._notices.items() if end <= now}
        self._vain = 0 if due or commands or over else self._vain + 1
        while True:
            batch, rest = commands[:COMMANDS_MAX], commands[COMMANDS_MAX:]
            decision = decide(
                *(self._state, batch, now, self._limits, due), policy=self._policy, over=over
            )
            progressed = decision.changes or decision.outcomes
            self._vain = 0 if decision.grants else self._vain
            self._apply(decision)
            due = [ticket for ticket in due if ticket.grant_id in self._state.tickets]
            commands = decision.deferred + rest if decision.deferred else rest
            self._plan = self._planned(now)
            if not (commands or due or self._is_left()):
                return
            assert progressed, "a plan that serves must have an effect, or this would not end"

    def outcome(self) -> Outcome:
        """Return what came of it."""
        requests = list(self._requests.values())
        asked = requests[len(self._holders) :]
        found = self._tally.outcome(self._now, asked, self._holders, self._waited_before)
        return replace(found, written=tuple(self._calendar.written))

    @property
    def _calls_back(self) -> bool:
        spec = self._state.spec
        if spec is None:
            return False
        policy = spec.policy
        is_said = policy.reclaim is not None or policy.hold is not None
        return is_said or any(each.notice for each in policy.reservations)

    @property
    def _notices(self) -> Mapping[int, Instant]:
        """When the notices that run are over, by the number of the reclaim."""
        return {
            each.number: Instant(each.decided_at + each.within // timedelta(milliseconds=1))
            for each in self._state.guard.reclaims.running.values()
        }

    def _is_left(self) -> bool:
        """Return whether the plan has something for a decision to do."""
        if self._plan is None:
            return False
        running = self._state.guard.reclaims.running
        wanted = {each.grant.grant_id for each in self._plan.reclaim}
        return bool(self._plan.serve) or wanted != running.keys()

    def _planned(self, now: Instant) -> Plan | None:
        """Return what is still to be done, and for whom no seat helps; None: nothing is."""
        spec = self._state.spec
        is_bounded = spec is not None and self._calls_back and self._state.grants
        if not self._state.tickets and not is_bounded:
            return None
        return self._policy.plan(PoolSnapshot.of(self._state), now)

    def _due(self, now: Instant) -> list[Ticket]:
        found = []
        while self._dues and self._dues[0][0] <= now:
            ticket = self._state.tickets.get(heappop(self._dues)[2])
            if ticket is not None:
                found.append(ticket)
        return found

    def _releases(self, now: Instant) -> Iterable[Command]:
        while self._ends and self._ends[0][0] <= now:
            grant = self._state.grants.get(heappop(self._ends)[2])
            if grant is None:
                continue  # it was called back
            end = WORK_DONE if grant.work_key else None
            yield Release(grant.grant_id, grant.session_id, grant.lease_id, end)

    def _new(self, now: Instant) -> Iterable[Command]:
        while self._arrived < len(self._arrivals):
            arrival = self._arrivals[self._arrived]
            if arrival.at > now:
                return
            self._arrived += 1
            yield self._ask(arrival)

    def _ask(self, arrival: Arrival) -> Acquire:
        """Return the request of an arrival, and remember it."""
        self._number += 1
        grant_id = f"{self._number:012}"
        self._requests[grant_id] = Request(arrival)
        return _acquire(grant_id, arrival)

    def _put_ticket(self, ticket: Ticket, now: Instant) -> None:
        self._state.put_ticket(ticket)
        self._tally.waits(ticket)
        if ticket.wait is not None:
            over = now + ticket.wait // timedelta(milliseconds=1)
            heappush(self._dues, (Instant(over), ticket.number, ticket.grant_id))

    def _apply(self, decision: Decision) -> None:
        """Do to the pool what a commit of the decision does, and note what became of whom."""
        state, now = self._state, decision.decided_at
        for grant_id in decision.grants_ended:
            ended = state.remove_grant(grant_id)
            self._requests[grant_id].ended_at = now
            is_reclaimed = ended is not None and ended.fence in decision.reclaimed_fences
            if is_reclaimed:
                running = state.guard.reclaims.running.get(grant_id)
                cause = running.cause if running is not None else Cause.GUARANTEE
                self._requests[grant_id].reclaimed_for = cause
        granted = {grant.grant_id for grant in decision.grants}
        given_up = {}
        for grant_id in decision.tickets_ended:
            ticket = state.remove_ticket(grant_id)
            assert ticket is not None
            self._tally.stops_waiting(ticket)
            if grant_id not in granted:
                given_up[grant_id] = ticket
        for ticket in decision.tickets:
            self._put_ticket(ticket, now)
        for grant in decision.grants:
            state.put_grant(grant)
            request = self._requests[grant.grant_id]
            assert request.granted_at is None, "granted twice"
            request.granted_at = now
            request.lots, request.mark = grant.marks, grant.mark
            over = now + request.arrival.hold_millis
            heappush(self._ends, (Instant(over), grant.fence, grant.grant_id))
        state.guard = decision.guard
        if given_up:
            for mark in decision.marks.values():
                for denied in mark.denied:
                    self._deny(denied, now)
        for command, outcome in decision.outcomes:
            if isinstance(outcome, Denied) and isinstance(command, Acquire):
                self._deny(outcome, now)

    def _deny(self, denied: Denied, now: Instant) -> None:
        request = self._requests[denied.grant_id]
        request.ended_at, request.refusal = now, denied.reason
        request.message = denied.message


def _acquire(grant_id: str, arrival: Arrival) -> Acquire:
    """Return the request of an arrival. Each has a session of its own, which lives."""
    wait = arrival.wait_millis
    return Acquire(
        grant_id=grant_id,
        session_id=grant_id,
        lease_id=1,
        attribution=Attribution(
            arrival.holder or arrival.project,
            arrival.project,
            arrival.priority,
            arrival.labels,
            arrival.work_key,
            cost_class=arrival.cost_class,
            host=arrival.host,
        ),
        seats=arrival.seats,
        wait=None if wait is None else timedelta(milliseconds=wait),
        may_wait=wait != 0,
        heeds_within=HEEDS_WITHIN,
    )
