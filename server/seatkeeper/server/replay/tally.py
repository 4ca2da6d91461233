"""The accounts of a replay: seat time by project, summed up from one moment to the next."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from seatkeeper.server.domain import Instant, PoolSpec, PoolState, Ticket
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.project_tree import with_parts
from seatkeeper.server.replay.outcome import Outcome, ProjectOutcome, WaitTimes
from seatkeeper.server.replay.request import Request

SECOND = 1_000
"""Milliseconds."""


class Tally:
    """What was held, and waited for, by whom and for how long. Sums are of whole milliseconds."""

    def __init__(self, spec: PoolSpec, began_at: Instant) -> None:
        self._spec, self._policy = spec, spec.policy
        self._began = self._now = began_at
        self._guarantee_of = self._policy.guaranteed
        self._is_flat = not any(share.parent for share in self._policy.projects)
        self._guaranteed = sum(
            self._guarantee_of[name] for name in self._policy.parts.get("", ())
        )
        self._unguaranteed = 0
        """Seats that are guaranteed to none."""
        self._seats_least: int | None = None
        self._seats_most = 0
        self._overdraft = self._surplus = self._kept = 0
        self._by_lot: Counter[str] = Counter()
        self._wanted: Counter[str] = Counter()
        """Seats that the requests of each project wait for."""
        self._waiting = 0
        self.waiting_max = 0
        self._held_max: defaultdict[str, int] = defaultdict(int)
        self._pool_held_max = 0
        self._used: Counter[str] = Counter()
        self._above: Counter[str] = Counter()
        self._waited: Counter[str] = Counter()
        self._held_back: Counter[str] = Counter()
        self._waited_for: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._idle = self._idle_while_waited = self._lent = 0

    def waits(self, ticket: Ticket) -> None:
        """Note that a request waits from now on."""
        self._wanted[ticket.project] += ticket.seats
        self._waiting += 1
        self.waiting_max = max(self.waiting_max, self._waiting)

    def stops_waiting(self, ticket: Ticket) -> None:
        """Note that a request waits no longer."""
        self._wanted[ticket.project] -= ticket.seats
        if not self._wanted[ticket.project]:
            del self._wanted[ticket.project]
        self._waiting -= 1

    def advance(self, state: PoolState, plan: Plan | None, now: Instant) -> None:
        """Count what the pool has held, and who has waited, since the moment before."""
        millis = now - self._now
        self._now = now
        if not millis:
            return
        self._count_seats(state, millis)
        own = state.projects.held
        above, lent = self._above_guarantees(own)
        for project, seats in own.items():
            self._used[project] += seats * millis
            self._held_max[project] = max(self._held_max[project], seats)
        for project, seats in above.items():
            self._above[project] += seats * millis
        self._pool_held_max = max(self._pool_held_max, state.held)
        self._idle += self._free(state) * millis
        self._lent += lent * millis
        if self._waiting:
            self._count_waiting(state, plan, above, millis)

    def outcome(
        self,
        ended_at: Instant,
        requests: Sequence[Request],
        holders: Sequence[Request],
        waited_before: int,
    ) -> Outcome:
        """Return all of it."""
        by_project: dict[str, list[Request]] = {name: [] for name in self._policy.shares}
        for each in requests:
            by_project.setdefault(each.arrival.project, []).append(each)
        for each in holders:
            by_project.setdefault(each.arrival.project, [])
        return Outcome(
            spec=self._spec,
            began_at=self._began,
            ended_at=ended_at,
            used=sum(self._used.values()) / SECOND,
            idle=self._idle / SECOND,
            idle_while_waited=self._idle_while_waited / SECOND,
            lent=self._lent / SECOND,
            held_max=self._pool_held_max,
            waiting_max=self.waiting_max,
            projects={name: self._project(name, of) for name, of in by_project.items()},
            requests=requests,
            holders=holders,
            waited_before=waited_before,
            overdraft=self._overdraft / SECOND,
            surplus=self._surplus / SECOND,
            kept=self._kept / SECOND,
            lots={name: millis / SECOND for name, millis in sorted(self._by_lot.items())},
            seats_least=self._spec.seats if self._seats_least is None else self._seats_least,
            seats_most=max(self._seats_most, self._spec.seats),
        )

    def _project(self, name: str, requests: Sequence[Request]) -> ProjectOutcome:
        waits = [wait for each in requests if (wait := each.wait_millis) is not None]
        return ProjectOutcome(
            project=name,
            requests=len(requests),
            served=len(waits),
            waiting=sum(each.is_waiting for each in requests),
            refused=Counter(each.refusal.name for each in requests if each.refusal),
            waits=WaitTimes.of(waits),
            reclaimed=sum(each.is_reclaimed for each in requests),
            used=self._used[name] / SECOND,
            above=self._above[name] / SECOND,
            held_max=self._held_max[name],
            waited=self._waited[name] / SECOND,
            held_back=self._held_back[name] / SECOND,
            waited_for={
                other: millis / SECOND for other, millis in self._waited_for[name].items()
            },
        )

    def _count_waiting(
        self, state: PoolState, plan: Plan | None, above: Mapping[str, int], millis: int
    ) -> None:
        is_kept_waiting = False
        for project, seats in self._wanted.items():
            self._waited[project] += seats * millis
            # Within a project the next one alone counts: those behind it wait for it.
            first = state.tickets[state.projects.queues[project][0][2]]
            if plan is not None and plan.hold_back(first):
                self._held_back[project] += seats * millis
                continue
            is_kept_waiting = True
            waited_for = self._waited_for[project]
            for other, held in above.items():
                if other != project:
                    waited_for[other] += min(seats, held) * millis
        if is_kept_waiting:
            self._idle_while_waited += self._free(state) * millis

    @staticmethod
    def _free(state: PoolState) -> int:
        """Return the seats in force that are idle; those that an overdraft would allow are none."""
        in_force = state.spec.seats if state.spec else 0
        return min(state.free, max(0, in_force + state.marked.overdraft - state.held))

    def _count_seats(self, state: PoolState, millis: int) -> None:
        """Count the seats in force, by which lots they are, and what is held beyond them."""
        spec = state.spec
        seats = spec.seats if spec else 0
        self._unguaranteed = max(0, seats - self._guaranteed)
        if self._seats_least is None:
            self._seats_least = seats
            # The lots that begin at once are in force then, as `outcome` says it.
            self._spec = spec or self._spec
        self._seats_least = min(self._seats_least, seats)
        self._seats_most = max(self._seats_most, seats)
        over = state.marked.overdraft
        self._overdraft += over * millis
        self._surplus += max(0, state.held - seats - over) * millis
        for (name, _), held in state.marked.by_lot.items():
            self._by_lot[name] += held * millis
        if (index := state.by_windows) is not None:
            kept = sum(
                max(0, each.seats - index.held.get(name, 0))
                for name, each in index.reservations.items()
            )
            self._kept += min(kept, self._free(state)) * millis

    def _above_guarantees(self, own: Mapping[str, int]) -> tuple[Mapping[str, int], int]:
        """Return the seats of each project that no guarantee covers, and how many are lent in all.

        Of those projects alone that have any. What is lent is held above guarantees, and more than is
        left when all guarantees are kept.
        """
        if not self._guaranteed:
            return own, 0
        if self._is_flat:
            found = {
                project: seats - guaranteed
                for project, seats in own.items()
                if seats > (guaranteed := self._guarantee_of.get(project, 0))
            }
            return found, max(0, sum(found.values()) - self._unguaranteed)
        held = with_parts(self._policy, own)
        beyond = {name: seats - self._guarantee_of.get(name, 0) for name, seats in held.items()}
        found = {
            project: min(seats, *(beyond[each] for each in self._policy.path(project)))
            for project, seats in own.items()
        }
        total = sum(
            max(0, seats)
            for project, seats in beyond.items()
            if not self._policy.share(project).parent
        )
        return {name: n for name, n in found.items() if n > 0}, max(
            0, total - self._unguaranteed
        )
