"""What `seatkeeper pool simulate` found, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from seatkeeper.cli.processes.simulate_played import facts_of, json_of
from seatkeeper.cli.render import facts, say, show, table, write_json
from seatkeeper.core.amounts import count, span
from seatkeeper.server.replay.outcome import Outcome, ProjectOutcome, WaitTimes

REFUSALS_SHOWN = 20
WAITED_FOR_SHOWN = 20
QUEUE_SHOWN = 50


def write_outcomes(outcomes: Sequence[Outcome], *, bound_seconds: float | None) -> None:
    """Write one JSON object."""
    found: dict[str, Any] = {
        "requests": len(outcomes[0].requests),
        "simulations": [_json_of(outcome) for outcome in outcomes],
    }
    if bound_seconds is not None:
        enough = outcomes[0].spec.seats
        found["enough"] = {"seats": enough, "p95_wait_seconds": bound_seconds}
    write_json(found)


def show_outcomes(outcomes: Sequence[Outcome], *, bound_seconds: float | None) -> None:
    """Write tables: all about one simulation, or a line for each of several."""
    if bound_seconds is not None:
        seats = count(outcomes[0].spec.seats, "seat")
        words = "serve 95 % of each project's requests within"
        say(f"{seats}: the fewest that {words} {span(bound_seconds)}")
        say("")
    if len(outcomes) > 1:
        show(_comparison(outcomes))
    else:
        _show_one(outcomes[0])


def _show_one(outcome: Outcome) -> None:
    total = outcome.used + outcome.idle
    lines = [
        ("seats", f"{_seats(outcome)}, at most {outcome.held_max} held at once"),
        ("requests", f"{len(outcome.requests)} in {span(outcome.seconds)}"),
        ("used", f"{_part(outcome.used, total)} of the seat time"),
        (
            "idle",
            f"{_part(outcome.idle, total)}; {_part(outcome.idle_while_waited, total)} while a "
            "request waited for more",
        ),
        ("lent", f"{_part(outcome.lent, total)}, out of idle guarantees"),
        ("queue", f"at most {count(outcome.waiting_max, 'request')}"),
    ]
    lines += facts_of(outcome, total)
    show(facts(lines), "", _projects(outcome))
    if outcome.waited_before:
        show("", _queue(outcome))
    waited = _waited_for(outcome)
    if waited:
        headings = ("project", "waited while", ">held above its guarantee, seat time")
        show("", table(headings, waited[:WAITED_FOR_SHOWN]))
    refused = Counter(outcome.refusals).most_common(REFUSALS_SHOWN)
    if refused:
        rows = [(name.lower(), str(number), why) for (name, why), number in refused]
        show("", table(("refused", ">requests", "because"), rows))


def _seats(outcome: Outcome) -> str:
    least, most = outcome.seats_least, outcome.seats_most
    return str(most) if least == most else f"{least} to {most} in force"


def _queue(outcome: Outcome) -> Any:  # noqa: ANN401  # rich's
    """Return when those are served that waited at the beginning, the next one first."""
    never = float("inf")
    rows = [
        (never if each["served_in_seconds"] is None else each["served_in_seconds"], each)
        for each in _queue_json(outcome)
    ]
    rows.sort(key=lambda row: row[0])
    return table(
        ("waits", "project", ">seats", ">since", ">is served in"),
        [
            (
                each["holder"],
                each["project"],
                str(each["seats"]),
                span(each["waited_seconds"]),
                "never" if after == never else span(after),
            )
            for after, each in rows[:QUEUE_SHOWN]
        ],
    )


def _queue_json(outcome: Outcome) -> list[dict[str, Any]]:
    """Return what becomes of those that waited at the beginning."""
    return [
        {
            "holder": each.arrival.holder,
            "project": each.arrival.project,
            "seats": each.arrival.seats,
            "priority": each.arrival.priority,
            "waited_seconds": max(0, outcome.began_at - each.arrival.at) / 1000,
            "served_in_seconds": None
            if each.granted_at is None
            else (each.granted_at - outcome.began_at) / 1000,
            "refused": each.refusal.name if each.refusal else None,
        }
        for each in outcome.requests[: outcome.waited_before]
    ]


def _projects(outcome: Outcome) -> Any:  # noqa: ANN401  # rich's
    headings = ("project", ">guaranteed", ">requests", ">served", ">wait mean", ">p50", ">p95")
    more = (">max", ">used", ">above guarantee", ">held back")
    guaranteed = outcome.spec.policy.guaranteed
    return table(
        (*headings, *more),
        [
            (
                each.project,
                str(guaranteed.get(each.project, 0)),
                str(each.requests),
                str(each.served),
                *map(span, _times(each.waits)),
                _part(each.used, outcome.used),
                _part(each.above, outcome.used),
                span(each.held_back) if each.held_back else "-",
            )
            for each in outcome.projects.values()
        ],
    )


def _comparison(outcomes: Sequence[Outcome]) -> Any:  # noqa: ANN401  # rich's
    headings = (
        ">seats",
        ">used",
        ">lent",
        ">queue",
        ">not served",
        ">wait mean",
        ">p95",
        ">max",
    )
    names = [name for name, each in outcomes[0].projects.items() if each.requests]
    return table(
        (*headings, *(f">p95 of {name}" for name in names)),
        [
            (
                str(outcome.spec.seats),
                _part(outcome.used, outcome.used + outcome.idle),
                _part(outcome.lent, outcome.used + outcome.idle),
                str(outcome.waiting_max),
                str(sum(each.granted_at is None for each in outcome.requests)),
                *(span(getattr(outcome.waits, key)) for key in ("mean", "p95", "max")),
                *(span(outcome.projects[name].waits.p95) for name in names),
            )
            for outcome in outcomes
        ],
    )


def _waited_for(outcome: Outcome) -> list[tuple[str, str, str]]:
    found = [
        (seconds, each.project, other)
        for each in outcome.projects.values()
        for other, seconds in each.waited_for.items()
        if seconds
    ]
    return [
        (name, other, span(seconds)) for seconds, name, other in sorted(found, reverse=True)
    ]


def _times(waits: WaitTimes) -> tuple[float, float, float, float]:
    return waits.mean, waits.p50, waits.p95, waits.max


def _part(of: float, total: float) -> str:
    return f"{of / total:.1%}" if total else "-"


def _json_of(outcome: Outcome) -> dict[str, Any]:
    policy = outcome.spec.policy
    half_life = policy.usage_half_life
    return {
        "pool": outcome.spec.name,
        "seats": outcome.spec.seats,
        "usage_half_life_seconds": half_life.total_seconds() if half_life else None,
        "overtaking": None if policy.overtaking is None else str(policy.overtaking),
        "reclaim": None if policy.reclaim is None else str(policy.reclaim),
        "hold": None if policy.hold is None else str(policy.hold),
        "seconds": outcome.seconds,
        "used_seat_seconds": round(outcome.used, 3),
        "idle_seat_seconds": round(outcome.idle, 3),
        "idle_while_waited_seat_seconds": round(outcome.idle_while_waited, 3),
        "lent_seat_seconds": round(outcome.lent, 3),
        "held_max": outcome.held_max,
        "waiting_max": outcome.waiting_max,
        "reclaimed": outcome.reclaimed,
        **json_of(outcome),
        **_waits_json(outcome.waits),
        "refused": [
            {"reason": name, "message": why, "requests": number}
            for (name, why), number in Counter(outcome.refusals).most_common(REFUSALS_SHOWN)
        ],
        "queue": _queue_json(outcome),
        "projects": [_project_json(outcome, each) for each in outcome.projects.values()],
    }


def _project_json(outcome: Outcome, each: ProjectOutcome) -> dict[str, Any]:
    share = outcome.spec.policy.share(each.project)
    return {
        "project": each.project,
        "parent": share.parent or None,
        "guaranteed": share.guaranteed,
        "limit": share.limit,
        "weight": share.weight,
        "requests": each.requests,
        "served": each.served,
        "waiting": each.waiting,
        "refused": dict(each.refused),
        "reclaimed": each.reclaimed,
        **_waits_json(each.waits),
        "used_seat_seconds": round(each.used, 3),
        "above_guarantee_seat_seconds": round(each.above, 3),
        "held_max": each.held_max,
        "waited_seat_seconds": round(each.waited, 3),
        "held_back_seat_seconds": round(each.held_back, 3),
        "waited_for_seat_seconds": {
            other: round(seconds, 3) for other, seconds in each.waited_for.items() if seconds
        },
    }


def _waits_json(waits: WaitTimes) -> dict[str, float]:
    names = ("wait_mean_seconds", "wait_p50_seconds", "wait_p95_seconds", "wait_max_seconds")
    return {name: round(value, 3) for name, value in zip(names, _times(waits), strict=True)}
