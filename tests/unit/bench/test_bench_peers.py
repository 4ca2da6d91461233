"""What is reported of peers is right, and a peer that cannot be had is skipped with its reason."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import peer_clients, peer_programs, peer_servers
from bench.peer_programs import REDIS, UnavailableError, environment, find, need, relocate
from bench.peer_rounds import OURS, Case, Round, figures
from bench.peers import cases

LOCK = Case("lock", "lock", 2, 0.0)
HELD = Case("lock", "lock", 2, 0.005)
ALONE = Case("alone", "lock", 1, 0.0)


def moments(*times: float) -> Iterator[float]:
    yield from times


def a_round(*times: float, clients: int = 2, ends: float = 100.0) -> Round:
    return Round(clients, ends, 10.0, now=moments(*times).__next__)


# A round ------------------------------------------------------------------------------------------


def test_returns_and_turns_are_paired_in_order() -> None:
    shown = a_round(1.0, 1.5, 2.0, 2.5, 4.0, 5.0)  # took, took, returns, returns, took, took
    for _ in range(2):
        shown.took(0, 0.5)
    shown.returns()
    shown.returns()
    shown.took(1, 3.0)
    shown.took(0, 3.0)

    assert shown.handoffs == [2.0, 2.5]
    assert shown.waits == [0.5, 1.0, 1.0, 2.0]
    assert shown.turns == [3, 1]
    assert shown.held_max == 2
    assert shown.least_share == 0.5
    assert shown.cycles_per_s == 0.4


def test_a_turn_after_the_end_counts_as_a_wait_alone() -> None:
    shown = a_round(1.0, 2.0, 11.0, ends=10.0)
    shown.took(0, 0.0)
    shown.returns()
    shown.took(1, 0.0)

    assert shown.turns == [1, 0]
    assert shown.handoffs == []
    assert shown.waits == [1.0, 11.0], "a client that starved until then is not forgotten"
    assert shown.least_share == 0


# All rounds ---------------------------------------------------------------------------------------


def test_a_ratio_is_the_median_of_the_ratios_within_a_round() -> None:
    ours, theirs = (10, 20, 40), (10, 10, 400)
    rounds = {
        (OURS, LOCK): [a_counted(turns) for turns in ours],
        ("redis", LOCK): [a_counted(turns) for turns in theirs],
    }
    found = figures(rounds)
    assert found["seatkeeper_lock_cycles_per_s"] == 4.0
    assert found["redis_lock_cycles_per_s"] == 2.0
    assert found["redis_lock_cycles_over_seatkeeper"] == 1.0
    assert "seatkeeper_lock_cycles_over_seatkeeper" not in found


def a_counted(turns: int) -> Round:
    shown = Round(2, 100.0, 10.0, now=lambda: 1.0)
    for _ in range(turns):
        for client in range(2):
            shown.took(client, 0.5)
            shown.returns()
    return shown


def test_each_kind_of_work_has_its_figures_and_the_most_that_held_at_once() -> None:
    def held(at_once: int) -> Round:
        shown = a_counted(3)
        for _ in range(at_once):
            shown.took(0, 0.9)
        return shown

    alone = Round(1, 100.0, 10.0, now=lambda: 1.0)
    alone.took(0, 0.75)
    found = figures({(OURS, ALONE): [alone], (OURS, LOCK): [held(1)], (OURS, HELD): [held(3)]})
    assert found["seatkeeper_alone_acquire_p50_ms"] == 250.0
    assert found["seatkeeper_lock_handoff_p50_ms"] == 0.0
    assert found["seatkeeper_lock_wait_p99_ms"] == 500.0
    assert found["seatkeeper_lock_held_max"] == 3


def test_a_peer_is_measured_at_the_pools_that_it_has() -> None:
    assert [case.name for case in cases(("lock",), 2)] == ["alone", "lock", "lock"]
    assert [case.name for case in cases(("lock", "seats"), 2)].count("seats") == 2


# What is not there --------------------------------------------------------------------------------


def test_a_library_that_is_not_installed_is_a_reason_that_says_how_to_install_it() -> None:
    with pytest.raises(UnavailableError, match=r"no_such_library.*make peers.*\[peers\]"):
        peer_clients.need_library("no_such_library")


def test_a_server_that_is_not_there_is_a_reason_that_says_how_to_fetch_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_programs, "MACHINE", tmp_path / "machine")
    monkeypatch.setattr(peer_programs, "TOOLS", tmp_path / "tools")
    with pytest.raises(UnavailableError, match=r"redis-server.*make peers"):
        need(REDIS)


def test_a_fetched_server_is_found_and_started_with_its_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_programs, "MACHINE", tmp_path / "machine")
    monkeypatch.setattr(peer_programs, "TOOLS", tmp_path / "tools")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/elsewhere")
    program = tmp_path / "tools" / REDIS.name / "root" / REDIS.inside
    program.parent.mkdir(parents=True)
    program.touch()

    assert find(REDIS) == program
    libraries = tmp_path / "tools" / REDIS.name / "lib"
    assert environment(program)["LD_LIBRARY_PATH"] == f"{libraries}:/elsewhere"
    assert environment(Path("/usr/bin/redis-server"))["LD_LIBRARY_PATH"] == "/elsewhere"


def test_links_to_the_machine_lead_to_what_was_unpacked(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "java.security").write_text("settings")
    (tmp_path / "usr" / "conf").mkdir(parents=True)
    link, other = (tmp_path / "usr" / "conf" / name for name in ("java.security", "other"))
    link.symlink_to("/etc/java.security")
    other.symlink_to("/etc/certainly-not-here")

    relocate(tmp_path)

    assert link.read_text() == "settings"
    assert not link.readlink().is_absolute()
    assert os.fspath(other.readlink()) == "/etc/certainly-not-here"


async def test_a_server_that_does_not_start_is_a_reason_with_the_end_of_its_log(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", "print('no space left'); raise SystemExit(1)"]
    server = peer_servers.running(command, tmp_path / "one.log", os.environ, lambda _: False)
    with pytest.raises(UnavailableError, match="one did not start: no space left"):
        async with server:
            pytest.fail("it does not run")


async def test_a_server_is_stopped_when_its_block_ends(tmp_path: Path) -> None:
    code = "import os, time; print('pid', os.getpid(), 'ready', flush=True); time.sleep(600)"
    log = tmp_path / "one.log"
    command = [sys.executable, "-c", code]
    async with peer_servers.running(command, log, os.environ, lambda text: "ready" in text):
        pid = int(log.read_text().split()[1])
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_polling_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_clients, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(peer_clients, "WAIT_SECONDS_MAX", 0.003)
    attempts = []

    async def attempt() -> bool:
        attempts.append(1)
        return False

    with pytest.raises(TimeoutError):
        await peer_clients.poll(attempt)
    assert len(attempts) == 3
