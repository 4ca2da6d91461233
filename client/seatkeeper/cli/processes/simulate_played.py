"""Which of a pool's rules a simulation has played, and what came of each that depends on dates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from seatkeeper.core.amounts import count, span
from seatkeeper.core.lots import LotKind
from seatkeeper.core.pool_rules import NO_RULES
from seatkeeper.core.rule_bursts import cost_micros
from seatkeeper.server.domain import PoolSpec
from seatkeeper.server.replay.calendar import (
    LOT_BEGAN,
    LOT_ENDED,
    WINDOW_CLOSED,
    WINDOW_OPENED,
    Written,
)
from seatkeeper.server.replay.outcome import Outcome

MICROS = 1_000_000
SHOWN_MAX = 50
"""Most bursts, and most windows, that are listed one by one for programs."""


def played(spec: PoolSpec) -> list[str]:
    """Return the rules of a pool that are played, for people; plain seats and arrival alone: none."""
    return list(_played(spec))


def _played(spec: PoolSpec) -> Iterator[str]:
    policy, lots = spec.policy, spec.lots
    if policy.counting.is_advisory:
        yield "advisory: none waits for seats"
    kinds = Counter(lot.kind for lot in lots.lots if not lot.is_by_rule)
    if kinds[LotKind.BASE]:
        yield count(kinds[LotKind.BASE], "contract")
    if kinds[LotKind.BURST]:
        yield count(kinds[LotKind.BURST], "burst")
    if over := sum(lot.overdraft for lot in lots.lots):
        yield f"overdraft of {over}"
    if lots.rule:
        yield "a rule that starts bursts"
    if policy.projects:
        yield f"shares of {count(len(policy.projects), 'project')}"
    if policy.usage_half_life is not None:
        yield f"usage, half of it forgotten in {span(policy.usage_half_life.total_seconds())}"
    if policy.overtaking is not None:
        yield f"overtaking {policy.overtaking}"
    if policy.reclaim is not None:
        yield f"reclaim {policy.reclaim}"
    if policy.hold is not None:
        yield f"hold {policy.hold}"
    if policy.reservations:
        yield count(len(policy.reservations), "reservation")
    if policy.counting.costs:
        yield f"costs {','.join(map(str, policy.counting.costs))}"
    if policy.rules != NO_RULES:
        yield "who may use it, and how much each"


def left_out(spec: PoolSpec) -> list[str]:
    """Return what a pool says that a trace cannot play."""
    hold = spec.policy.hold
    return ["idle harvest: a trace does not say what is done with seats"] * (
        hold is not None and hold.idle is not None
    )


def facts_of(outcome: Outcome, total: float) -> list[tuple[str, str]]:
    """Return what came of these rules, for people; ``total``: the seat time there was."""
    found = []
    if rules := played(outcome.spec):
        found.append(("played", "; ".join(rules)))
    if missing := left_out(outcome.spec):
        found.append(("not played", "; ".join(missing)))
    if outcome.overdraft:
        found.append(
            ("overdraft", f"{_part(outcome.overdraft, total)} beyond the seats in force")
        )
    if outcome.surplus:
        words = "beyond its seats" if _is_advisory(outcome) else "beyond them, which drained"
        found.append(("surplus", f"{_part(outcome.surplus, total)} {words}"))
    found += [("bursts", text) for text in _burst_texts(outcome)]
    opened = _named(outcome, WINDOW_OPENED)
    if opened or outcome.spec.policy.reservations:
        times = ", ".join(f"{name} {count(n, 'time')}" for name, n in opened.items())
        kept = f"{_part(outcome.kept, total)} kept idle"
        found.append(("windows", f"{times or 'none'} opened; {kept}"))
    if outcome.called_back:
        taken = count(sum(outcome.called_back.values()), "grant")
        by = ", ".join(f"{n} {cause}" for cause, n in outcome.called_back.items())
        found.append(("called back", f"{taken}, taken before its hold was over ({by})"))
    if outcome.marked:
        by = ", ".join(
            f"{n} {'refused' if refused else 'waited'} by {rule}"
            for (rule, refused), n in outcome.marked.items()
        )
        found.append(("if it bound", f"would have {by}"))
    return found


def json_of(outcome: Outcome) -> dict[str, Any]:
    """Return the same for programs."""
    spec = outcome.spec
    return {
        "played": played(spec),
        "not_played": left_out(spec),
        "advisory": _is_advisory(outcome),
        "costs": {each.name: each.seats for each in spec.policy.counting.costs},
        "seats_least": outcome.seats_least,
        "seats_most": outcome.seats_most,
        "overdraft_seat_seconds": round(outcome.overdraft, 3),
        "surplus_seat_seconds": round(outcome.surplus, 3),
        "kept_seat_seconds": round(outcome.kept, 3),
        "lots": {name: round(seconds, 3) for name, seconds in outcome.lots.items()},
        "bursts": [_span_json(outcome, each) for each in _bursts(outcome)][:SHOWN_MAX],
        "windows": [
            _span_json(outcome, each) for each in outcome.written if each.kind == WINDOW_OPENED
        ][:SHOWN_MAX],
        "windows_opened": dict(_named(outcome, WINDOW_OPENED)),
        "called_back": dict(outcome.called_back),
        "marked": [
            {"rule": rule, "refused": refused, "requests": number}
            for (rule, refused), number in outcome.marked.items()
        ],
    }


def _burst_texts(outcome: Outcome) -> Iterator[str]:
    by_rule = [each for each in _bursts(outcome) if each.is_by_rule]
    rule = outcome.spec.lots.rule
    if not rule:
        return
    if not by_rule:
        yield "the rule started none"
        return
    text = f"{len(by_rule)} by the rule"
    if rule.price is not None:
        cost = len(by_rule) * cost_micros(rule, rule.length) / MICROS
        text += f", {cost:.2f} {rule.price.currency}"
    yield text


def _bursts(outcome: Outcome) -> list[Written]:
    """Return the bursts that began: those of the rule, and those that the pool had."""
    named = {lot.name for lot in outcome.spec.lots.lots if lot.kind is LotKind.BURST}
    return [
        each
        for each in outcome.written
        if each.kind == LOT_BEGAN and (each.is_by_rule or each.name in named)
    ]


def _span_json(outcome: Outcome, begun: Written) -> dict[str, Any]:
    over = LOT_ENDED if begun.kind == LOT_BEGAN else WINDOW_CLOSED
    ends = (
        each.at
        for each in outcome.written
        if (each.kind, each.name, each.began_at) == (over, begun.name, begun.began_at)
    )
    until = next(ends, None)
    return {
        "name": begun.name,
        "seats": begun.seats,
        "by_rule": begun.is_by_rule,
        "from": _iso(begun.at),
        "until": None if until is None else _iso(until),
    }


def _iso(millis: int) -> str:
    return datetime.fromtimestamp(millis / 1000, UTC).isoformat().replace("+00:00", "Z")


def _named(outcome: Outcome, kind: str) -> Mapping[str, int]:
    return Counter(each.name for each in outcome.written if each.kind == kind)


def _is_advisory(outcome: Outcome) -> bool:
    return outcome.spec.policy.counting.is_advisory


def _part(of: float, total: float) -> str:
    return f"{of / total:.1%}" if total else "-"
