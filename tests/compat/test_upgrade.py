"""What a run does, and when it proves something."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.compat.__main__ import SHORT, wrong
from tests.compat.program import Config
from tests.compat.upgrade import FAULTS, Size, WorkerConfig, round_of

from seatkeeper.chaos.scenario import Injection, Scenario
from seatkeeper.chaos.worker_pool import WorkerPool

GOOD: dict[str, Any] = {
    "old": "0" * 40,
    "rounds": 3,
    "violations": 0,
    "lost_fields": 0,
    "failed_calls": 0,
    "lost_by_old": 9,
    "fields_kept_by_new": 12,
    "probe_steps": 100,
    "answers_checked": 1000,
    "faults": 30,
    "inconclusive": 0,
    "bad_exits": 0,
    "compilers": 2,
    "compilers_expected": 2,
}


def injections(scenario: Scenario) -> list[str]:
    return [step.fault for step in scenario.steps if isinstance(step, Injection)]


@pytest.mark.parametrize("seed", range(5))
def test_a_round_upgrades_every_node_and_takes_every_one_back(seed: int) -> None:
    scenarios = round_of(1, Size(3, 6.0), random.Random(seed))

    injected = [injections(scenario) for scenario in scenarios]
    first = [names[0] for names in injected]
    assert first == ["Upgrade.forward"] * 3 + ["Upgrade.back"] * 3
    assert [scenario.sentence[0] for scenario in scenarios] == list("123210")
    others = {name for names in injected for name in names[1:]}
    assert others == {"Upgrade.agents", *(fault.fault for fault in FAULTS)}
    assert sum(names.count("Upgrade.agents") for names in injected) == 2  # and are as before


def test_a_short_run_has_a_fault_in_every_mixture() -> None:
    scenarios = round_of(1, SHORT, random.Random(0))

    assert [len(injections(scenario)) for scenario in scenarios] == [2] * 6
    assert sum(scenario.seconds for scenario in scenarios) < 25


def test_seconds_are_those_of_calm() -> None:
    (_, second, *_) = round_of(1, Size(3, 6.0), random.Random(0))

    in_faults = sum(step.seconds for step in second.steps if isinstance(step, Injection))
    assert second.seconds == pytest.approx(6.0 + in_faults)


def test_a_run_without_any_trouble_passes() -> None:
    assert wrong(GOOD) == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("violations", 1),
        ("lost_fields", 1),
        ("failed_calls", 1),
        ("inconclusive", 1),
        ("bad_exits", 1),
        ("rounds", 0),
        ("fields_kept_by_new", 0),
        ("probe_steps", 0),
        ("answers_checked", 0),
        ("faults", 0),
        ("compilers", 1),
    ],
)
def test_a_run_with_trouble_or_without_proof_does_not(name: str, value: object) -> None:
    assert name.partition("_")[0].rstrip("s") in wrong({**GOOD, name: value}) or (
        name == "compilers" and "agents" in wrong({**GOOD, name: value})
    )


def test_what_the_old_version_loses_does_not_fail_a_run() -> None:
    assert wrong({**GOOD, "lost_by_old": 100}) == ""


async def test_calls_that_users_say_have_failed_are_in_the_record(tmp_path: Path) -> None:
    lines = (
        '{"ttls": {"u": 1.0}}',
        '{"event": "Failed", "user": "u", "call": "get", "reason": "because", "at": 1.0}',
    )
    text = f"import sys; print('\\n'.join({lines!r})); sys.stdout.flush(); sys.stdin.read()"
    config = Config("users-1", "old", 1, [], [], "", "", "", "", 10.0, {})
    worker_pool = WorkerPool(
        lambda name, number: WorkerConfig(config),
        workers=1,
        folder=tmp_path,
        program=lambda name: (sys.executable, "-c", text),
    )

    await worker_pool.start()
    await worker_pool.end()

    (failed,) = worker_pool.record.failed
    assert str(failed) == "u, get, at 1.00 s: because"
