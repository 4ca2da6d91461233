"""Who enters the queue of a pool, by the bounds of the node and by the pool's own rules."""

from __future__ import annotations

from collections import Counter

from seatkeeper.server.decide.admission import queue_refusal
from seatkeeper.server.domain import NO_RULES, PoolRules
from seatkeeper.server.domain.commands import Acquire, Refusal
from seatkeeper.server.domain.limits import Limits
from seatkeeper.server.domain.state import PoolState, Ticket
from seatkeeper.server.policy.rules import Reason, Rule


class Entering:
    """Who is let into the queue as a decision stores its tickets, one after the other."""

    def __init__(self, pool: PoolState, limits: Limits, ended: list[str]) -> None:
        """Begin with the tickets that are stored, without those of these ids, which it ends."""
        self._pool = pool
        self._limits = limits
        rules = pool.spec.policy.rules if pool.spec else NO_RULES
        is_binding = pool.spec is None or not pool.spec.policy.counting.is_advisory
        self._most = rules if rules.limits_tickets and is_binding else None
        self._of_holder: Counter[str] = Counter()
        """How many more than are stored."""
        self._of_project: Counter[str] = Counter()
        self._of_host: Counter[str] = Counter()
        for ticket in filter(None, map(pool.tickets.get, ended)):
            self._count(ticket, -1)

    def add(self, command: Acquire) -> None:
        """Count a request that is stored."""
        self._count(command, 1)

    def refusal(self, command: Acquire) -> tuple[Refusal, str] | None:
        """Return why a request may not wait in the queue; None: it may."""
        ahead, of_holder = self._of_holder.total(), self._of_holder[command.holder]
        full = queue_refusal(
            self._pool, command, self._limits, ahead=ahead, ahead_of_holder=of_holder
        )
        if full is not None:
            return Refusal.OVERLOADED, full
        return None if self._most is None else self._refusal_of_rules(command, self._most)

    def _refusal_of_rules(
        self, command: Acquire, most: PoolRules
    ) -> tuple[Refusal, str] | None:
        holder, project = command.holder, command.project
        waiting = self._pool.tickets_of[holder] + self._of_holder[holder]
        if most.per_holder.tickets is not None and waiting >= most.per_holder.tickets:
            return _full(Rule.PER_HOLDER, f"holder {holder}", waiting, most.per_holder.tickets)
        if (host := command.host.lower()) and most.per_host.tickets is not None:
            waiting = self._pool.by_rules.waiting_on[host] + self._of_host[host]
            if waiting >= most.per_host.tickets:
                return _full(Rule.PER_HOST, f"host {host}", waiting, most.per_host.tickets)
        if most.per_project.tickets is None:
            return None
        waiting = len(self._pool.projects.queues.get(project, ())) + self._of_project[project]
        if waiting >= most.per_project.tickets:
            return _full(
                Rule.PER_PROJECT, f"project {project}", waiting, most.per_project.tickets
            )
        return None

    def _count(self, one: Acquire | Ticket, by: int) -> None:
        self._of_holder[one.holder] += by
        if self._most is not None:
            self._of_project[one.project] += by
            self._of_host[one.host.lower()] += by


def _full(rule: Rule, who: str, waiting: int, most: int) -> tuple[Refusal, str]:
    text = f"{who} has {waiting} requests in the queue, and each may have {most}"
    todo = "ask again when one of them is served" if most else "ask when a seat is free"
    return Refusal.TOO_MANY_TICKETS, f"{Reason(rule, text)}; {todo}"
