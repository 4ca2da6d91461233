"""`make demo POLICY=1`: all that it shows happens, and it fails when something does not."""

from __future__ import annotations

import json

import pytest
from bench.demo_policy import Plan, main

SMALL = Plan(reclaim="notice=1,minimum_hold=0,hourly=20", burst_seconds=1.5)


async def ended(plan: Plan, capsys: pytest.CaptureFixture[str]) -> tuple[object, list[str]]:
    with pytest.raises(SystemExit) as exit_:
        await main(plan)
    return exit_.value.code, capsys.readouterr().out.splitlines()


async def test_the_demo_shows_lending_reclaim_burst_and_gang(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, lines = await ended(SMALL, capsys)
    result = json.loads(lines[-1])
    assert code == 0, lines
    assert (result["demo"], result["gang"], result["max_over_capacity"]) == ("ok", "all", 0)
    assert (result["lent"], result["reclaimed"], result["burst_seats"]) == (2, 2, 2)
    assert result["nodes_killed"] == 1
    said = "\n".join(lines)
    for words in (
        "Lending",
        "is warned: project vision",
        "the burst has ended",
        "has all three",
    ):
        assert words in said


async def test_a_demo_in_which_nothing_is_called_back_fails(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, lines = await ended(Plan(reclaim="none", step_seconds=2), capsys)
    result = json.loads(lines[-1])
    assert code == 1
    assert result["demo"] == "failed"
    assert "2 holders of lent seats are warned" in result["why"]
    assert "no lent seat was called back" in result["why"]
    assert result["lent"] == 2, "what was shown before is in the line"
    assert any("FAILED" in line for line in lines)


async def test_a_demo_without_a_service_fails_with_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise FileNotFoundError("no etcd on this machine")

    monkeypatch.setattr("bench.service.find_etcd", broken)
    code, lines = await ended(SMALL, capsys)
    assert code == 1
    assert json.loads(lines[-1])["why"].startswith("no etcd on this machine; no seat was lent")
