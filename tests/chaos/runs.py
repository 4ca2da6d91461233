"""Runs that were never run, for those who draw and describe them."""

from __future__ import annotations

from seatkeeper.chaos.result import Injected, Outcome, Sample, ScenarioResult

NOTHING = Outcome(target="nothing", checked_by="nothing", capacity=0)


def scenario_result(
    name: str, began: float, *injected: Injected, seconds: float = 10.0
) -> ScenarioResult:
    return ScenarioResult(
        name=name,
        sentence=f"What {name} is about.",
        row="kill -9 owner",
        promises=("I1", "I8"),
        began=began,
        ended=began + seconds,
        injected=list(injected),
        requests=12_345,
        acknowledged=11_000,
        unanswered=45,
    )


def run(*scenario_results: ScenarioResult) -> Outcome:
    end = int(max(each.ended for each in scenario_results))
    return Outcome(
        target="three nodes",
        checked_by="etcd's change stream",
        capacity=24,
        samples=[Sample(at / 4, at % 25, at % 7, at * 100) for at in range(end * 4)],
        scenario_results=list(scenario_results),
    )


def a_run() -> Outcome:
    """A run of two scenarios, in which three faults affected."""
    return run(
        scenario_result("owner-dies", 0.0, Injected("KillNode.owner", "node-1", 2.0, 3.5)),
        scenario_result(
            "network-breaks",
            10.0,
            Injected("Network.slow", "all nodes", 11.0, 19.0),
            Injected("Network.connections_break", "all nodes", 14.0, 14.0),
        ),
    )
