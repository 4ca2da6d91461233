"""What becomes of a refused request, as a table."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from seatkeeper.client.session.refusals import REASKS_MAX, AskAnew, AskLater, GiveUp, next_step
from seatkeeper.client.session.requests import PendingRequest, Wanted
from seatkeeper.core.errors import NoSeatFree, Overloaded, SeatLost, ServiceUnavailable
from seatkeeper.v1 import seat_pb2

NOW, CALL_TIMEOUT = 100.0, 10.0
Reason = seat_pb2.DenialReason


@pytest.fixture
def loop() -> Any:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def ask(
    loop: asyncio.AbstractEventLoop, wait: float | None, *, attempt: int = 0
) -> PendingRequest:
    pending = PendingRequest(
        grant_id="g",
        wanted=Wanted(pool="p"),
        wait=wait,
        asked_at=NOW,
        future=loop.create_future(),
        on_queued=None,
        on_state=None,
        expires_at=float("inf") if wait is None else NOW + wait + CALL_TIMEOUT,
    )
    pending.attempt = attempt
    return pending


def denied(reason: seat_pb2.DenialReason.ValueType) -> seat_pb2.Denied:
    return seat_pb2.Denied(grant_id="g", reason=reason)


@pytest.mark.parametrize("wait", [None, 0.0, 5.0])
def test_a_finished_id_is_replaced_at_once(
    loop: asyncio.AbstractEventLoop, wait: float | None
) -> None:
    finished = denied(Reason.DENIAL_REASON_FINISHED)
    assert next_step(ask(loop, wait), finished, NOW, 1.0) == AskAnew()


def test_a_lost_grant_is_asked_for_again_while_its_lease_lives(
    loop: asyncio.AbstractEventLoop,
) -> None:
    lost, others = ask(loop, 60.0), denied(Reason.DENIAL_REASON_NOT_YOURS)
    assert isinstance(next_step(lost, others, NOW, 1.0), GiveUp), "any other request"
    lost.wanted = Wanted(pool="p", again_id="g")
    answer = next_step(lost, others, NOW, 1.0)
    assert isinstance(answer, AskLater)
    assert (answer.at, answer.anew) == (NOW + 1.0, False)
    assert isinstance(next_step(lost, others, NOW + 69.5, 1.0), GiveUp), "its wait is over"
    lost.wanted = Wanted(pool="p", again_id="another")
    assert isinstance(next_step(lost, others, NOW, 1.0), GiveUp), "it has a new id by now"


def test_but_not_forever(loop: asyncio.AbstractEventLoop) -> None:
    tired = ask(loop, None, attempt=REASKS_MAX)
    answer = next_step(tired, denied(Reason.DENIAL_REASON_FINISHED), NOW, 1.0)
    assert isinstance(answer, GiveUp)
    assert isinstance(answer.error, SeatLost)


@pytest.mark.parametrize(
    ("wait", "delay", "again"),
    [
        (None, 1.0, True),
        (0.0, 1.0, True),
        (0.0, 9.9, True),
        (0.0, 10.0, False),
        (5.0, 20.0, False),
    ],
)
def test_an_unknown_outcome_is_asked_about_under_the_same_id_while_there_is_time(
    loop: asyncio.AbstractEventLoop, wait: float | None, delay: float, again: bool
) -> None:
    answer = next_step(ask(loop, wait), denied(Reason.DENIAL_REASON_UNAVAILABLE), NOW, delay)
    if again:
        assert isinstance(answer, AskLater)
        assert (answer.at, answer.anew) == (NOW + delay, False)
        assert isinstance(answer.refusal, ServiceUnavailable)
    else:
        assert isinstance(answer, GiveUp)


@pytest.mark.parametrize(
    ("wait", "delay", "again"),
    [(None, 60.0, True), (0.0, 0.1, False), (5.0, 4.9, True), (5.0, 5.0, False)],
)
def test_a_full_queue_is_tried_again_within_the_wait(
    loop: asyncio.AbstractEventLoop, wait: float | None, delay: float, again: bool
) -> None:
    answer = next_step(ask(loop, wait), denied(Reason.DENIAL_REASON_OVERLOADED), NOW, delay)
    if again:
        assert isinstance(answer, AskLater)
        assert (answer.at, answer.anew) == (NOW + delay, True)
    else:
        assert isinstance(answer, GiveUp)
        assert isinstance(answer.error, Overloaded)


def test_no_seat_is_an_answer(loop: asyncio.AbstractEventLoop) -> None:
    answer = next_step(ask(loop, None), denied(Reason.DENIAL_REASON_NO_SEAT_FREE), NOW, 1.0)
    assert isinstance(answer, GiveUp)
    assert isinstance(answer.error, NoSeatFree)
