"""What ``seatkeeper run`` says of each event."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import get_args

import pytest

from seatkeeper.cli import run
from seatkeeper.cli.run_report import RunReport, as_shells_say
from seatkeeper.client import QueuePosition
from seatkeeper.hold import runner

PLACE = QueuePosition(position=2, estimate=timedelta(seconds=5), basis=None)
# Each with what people see of it, and what programs do.
EVENTS: list[tuple[runner.Event, str, dict[str, object] | None]] = [
    (runner.Queued(PLACE), "waiting for a seat of tensorrt: place 2", {"event": "queued"}),
    (runner.WaitEnded(), "", None),
    (
        runner.Granted(pool="tensorrt", grant_id="g", fence=7, seats=2),
        "",
        {"event": "granted", "pool": "tensorrt", "grant_id": "g", "fence": 7, "seats": 2},
    ),
    (
        runner.Granted(pool="tensorrt", grant_id="g", fence=7, seats=2, longest_hold=28_800.0),
        "the seat of tensorrt may be held for 8 h 0 min: then it is called back, and train is "
        "stopped",
        {
            "event": "granted",
            "pool": "tensorrt",
            "grant_id": "g",
            "fence": 7,
            "seats": 2,
            "longest_hold_seconds": 28_800.0,
        },
    ),
    (
        runner.TokenFileFailed("/tmp/t: full"),
        "(/tmp/t: full): train has only the first token",
        {"event": "no_token_file", "error": "/tmp/t: full"},
    ),
    (
        runner.Noticed("from 22:00 on, 2 seats are kept"),
        "from 22:00 on, 2 seats are kept",
        {"event": "notice", "notice": "from 22:00 on, 2 seats are kept"},
    ),
    (runner.InJeopardy(), "the seat is in doubt", {"event": "jeopardy"}),
    (
        runner.IsCalledBack("tensorrt", 30.0, "project cv waits", 10),
        "is called back (project cv waits): train goes on, and is stopped in 30 s; train was sent "
        "SIGUSR1",
        {
            "event": "called_back",
            "pool": "tensorrt",
            "reason": "project cv waits",
            "signal": "SIGUSR1",
            "seconds": 30.0,
        },
    ),
    (runner.SafeAgain(), "the seat is safe again", {"event": "safe"}),
    (
        runner.SeatIsLost(2.0, "the session ended"),
        "is lost (the session ended): stopping train (SIGTERM, and SIGKILL after 2.0 s)",
        {"event": "lost", "pool": "tensorrt", "reason": "the session ended"},
    ),
    (
        runner.SeatIsLost(2.0, "revoked", "quantiser"),
        "the seat of quantiser is lost (revoked): stopping train",
        {"event": "lost", "pool": "quantiser", "reason": "revoked"},
    ),
    (runner.NotStopped(3), "3 of the processes", {"event": "not_stopped", "processes": 3}),
    (
        runner.EndedWithIt(1),
        "left 1 background job, ended with it",
        {"event": "ended_with_it", "processes": 1},
    ),
    (runner.WatchdogKilled(), "the watchdog of train was killed", {"event": "guard_killed"}),
    (
        runner.LeftBehind(2),
        "left 2 background jobs running without the seat",
        {"event": "left_behind", "processes": 2},
    ),
    (runner.CommandEnded(-15), "", {"event": "ended", "exit_code": 143}),
    (
        runner.GivenBack(15),
        "train ended after SIGTERM; the seat of tensorrt is given back",
        {"event": "given_back", "pool": "tensorrt", "signal": "SIGTERM"},
    ),
]


def test_every_event_is_tried_here() -> None:
    assert {type(event) for event, *_ in EVENTS} == set(get_args(runner.Event))


@pytest.mark.parametrize(
    ("event", "words", "value"), EVENTS, ids=lambda value: type(value).__name__
)
def test_people_and_programs_see_what_concerns_them(
    event: runner.Event,
    words: str,
    value: dict[str, object] | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    RunReport("train", "tensorrt", as_json=False).write(event)
    said = capsys.readouterr()
    assert words in said.err if words else said.err == ""
    RunReport("train", "tensorrt", as_json=True).write(event)
    written = capsys.readouterr()
    assert said.out == written.out == "", "standard output is the command's own"
    if value is None:
        assert written.err == ""
    else:
        assert json.loads(written.err).items() >= value.items()


def test_the_help_names_the_grace_that_is_used() -> None:
    assert run.GRACE_SECONDS == runner.GRACE_SECONDS


def test_exit_codes_are_a_shells() -> None:
    assert [as_shells_say(code) for code in (0, 3, -9)] == [0, 3, 137]
