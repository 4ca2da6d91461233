"""Running a command under a seat, as a program would that is not the command line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest
from tests.client.programs import Program, wait_until

from seatkeeper.hold.runner import GRACE_SECONDS, MARGIN_OF_LEASE, lease_for
from seatkeeper.testing.service import InMemoryService

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the watchdog needs Linux")

RUNS = """
from seatkeeper.hold.runner import RunConfig, RunFailed, SeatRunner
from seatkeeper.hold.signals import Signals

def connect(ttl, margin):
    config = ClientConfig(ttl=ttl, safety_margin=margin, keeper="process")
    return AsyncSeatClient(ADDRESS, config=config)

config = RunConfig(command=sys.argv[3:], pool="tensorrt", terms={"wait": float(sys.argv[2])})
runner = SeatRunner(
    config, connect, Signals(), notify=lambda event: say(type(event).__name__), die=os._exit
)
try:
    say(asyncio.run(runner.run()))
except RunFailed as error:
    say("failed:", error, error.problem is not None)
except asyncio.CancelledError:
    say("ended by", runner.ended_by)
except SeatError as error:
    say(type(error).__name__)
"""


@pytest.fixture
def service() -> Iterator[InMemoryService]:
    with InMemoryService({"tensorrt": 1}) as service:
        yield service


def running(service: InMemoryService, *command: str, wait: float = 60) -> Program:
    return Program(RUNS, service.address, str(wait), *command)


def lines(program: Program, number: int) -> list[str]:
    return [program.line() for _ in range(number)]


@pytest.mark.parametrize(
    ("script", "outcome"), [("exit 3", "Outcome(code=3)"), ("kill -9 $$", "Outcome(code=-9)")]
)
def test_the_outcome_is_the_commands_and_the_seat_is_given_back(
    service: InMemoryService, script: str, outcome: str
) -> None:
    with running(service, "sh", "-c", script) as program:
        assert lines(program, 4) == ["WaitEnded", "Granted", "CommandEnded", outcome]
        assert program.ended() == 0
    assert service.held("tensorrt") == 0


def test_a_command_that_does_not_start_fails_and_holds_nothing(
    service: InMemoryService,
) -> None:
    with running(service, "/nonexistent/program") as program:
        assert lines(program, 2) == ["WaitEnded", "Granted"]
        assert program.line() == (
            "failed: /nonexistent/program: No such file or directory True"
        )
        assert program.ended() == 0
    assert service.held("tensorrt") == 0


def test_a_seat_that_is_lost_stops_the_command(service: InMemoryService) -> None:
    with running(service, "sleep", "600") as program:
        assert lines(program, 2) == ["WaitEnded", "Granted"]
        service.lose_sessions()
        assert lines(program, 2) == ["SeatIsLost", "Outcome(code=None)"]
        assert program.ended() == 0


def test_without_a_seat_nothing_runs(service: InMemoryService) -> None:
    with (
        service.client() as other,
        other.seat("tensorrt"),
        running(service, "sh", "-c", "echo it ran", wait=0) as program,
    ):
        assert lines(program, 2) == ["WaitEnded", "NoSeatFree"]
        assert program.ended() == 0


def test_a_signal_ends_the_wait_and_takes_the_request_back(service: InMemoryService) -> None:
    with service.client() as other, other.seat("tensorrt"):
        with running(service, "sh", "-c", "echo it ran") as program:
            assert program.line() == "Queued"
            program.signal(signal.SIGTERM)
            assert lines(program, 2) == ["WaitEnded", f"ended by {int(signal.SIGTERM)}"]
            assert program.ended() == 0
        wait_until(lambda: service.waiting("tensorrt") == 0, "the request still waits")


def test_a_signal_while_it_runs_is_the_commands(service: InMemoryService) -> None:
    with running(service, "sleep", "600") as program:
        assert lines(program, 2) == ["WaitEnded", "Granted"]
        wait_until(lambda: service.held("tensorrt") == 1, "no seat is held")
        program.signal(signal.SIGTERM)
        assert lines(program, 3) == ["CommandEnded", "GivenBack", "Outcome(code=-15)"]
        assert program.ended() == 0
    assert service.held("tensorrt") == 0


@pytest.mark.parametrize("grace", [0, GRACE_SECONDS, GRACE_SECONDS + 0.1, 600])
def test_the_grace_fits_into_the_margin_and_that_into_the_lease(grace: float) -> None:
    lease, margin = lease_for(grace)
    assert margin > timedelta(seconds=grace)
    if grace <= GRACE_SECONDS:
        assert lease is None
    else:
        assert lease is not None
        assert margin * MARGIN_OF_LEASE <= lease
