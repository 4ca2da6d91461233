"""What a pool's rules will never serve: those who are not let in, and more than each may hold."""

from __future__ import annotations

from seatkeeper.server.domain.commands import Acquire, Refusal
from seatkeeper.server.domain.state import PoolSpec, Ticket
from seatkeeper.server.policy.rules import Reason, Rule


def refused_by_rules(spec: PoolSpec, asked: Acquire | Ticket) -> tuple[Refusal, str] | None:
    """Return why a request can never be served, by the rules of its pool; None: it can.

    Does not depend on what is held, or by whom.
    """
    rules, holder, project = spec.policy.rules, asked.holder, asked.project
    name = rules.broken_by(holder, project, asked.seats, asked.host)
    if name is None:
        return None
    rule = Rule(name)
    if rule is Rule.EXCLUDE:
        by = rules.excluded_by(holder, project, asked.host)
        text = f"pool {spec.name} is not for holder {holder} of project {project}: {by} is excluded"
        return Refusal.NOT_ALLOWED, f"{Reason(rule, text)}; ask its administrator"
    if rule is Rule.INCLUDE:
        text = f"pool {spec.name} includes neither holder {holder} nor project {project}"
        if rules.include.hosts:
            text += f", nor host {asked.host}" if asked.host else ", and its host is not known"
        todo = "ask for a project that it includes, or ask its administrator"
        return Refusal.NOT_ALLOWED, f"{Reason(rule, text)}; {todo}"
    most, who = dict(rules.limits)[name].seats, name.removeprefix("per_")
    text = f"each {who} may hold at most {most}, not {asked.seats}, seats of pool {spec.name}"
    return Refusal.TOO_MANY_SEATS, f"{Reason(rule, text)}; ask for fewer"
