"""What a holder believes, compared with what the service does."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatkeeper.client.session import holding
from seatkeeper.client.session.holding import (
    EnterJeopardy,
    HoldingState,
    Lost,
    MoveOn,
    Renew,
    SessionView,
    Wait,
    believes,
    next_step,
)

T0 = 1000.0
TTL = 30.0


@pytest.fixture
def view() -> SessionView:
    """A session opened at T0 for 30 s, of which the holder counts on 29; renew after 8 s."""
    return holding.opened(
        sent_at=T0,
        now=T0,
        ttl=TTL,
        renew_in=8.0,
        margin=1.0,
        answer_timeout=2.0,
        probe_after=1.0,
    )


def test_nothing_is_due_until_the_hint_of_the_service(view: SessionView) -> None:
    assert next_step(view, T0) == Wait(T0 + 8.0)
    assert next_step(view, T0 + 8.0) == Renew()


def test_a_hint_later_than_a_third_of_the_lease_is_not_followed(view: SessionView) -> None:
    late = holding.opened(
        sent_at=T0,
        now=T0,
        ttl=TTL,
        renew_in=25.0,
        margin=1.0,
        answer_timeout=2.0,
        probe_after=1.0,
    )
    assert next_step(late, T0) == Wait(T0 + 10.0)


def test_an_answer_counts_from_when_its_renewal_was_sent(view: SessionView) -> None:
    view = holding.renewal_sent(view, T0 + 8.0)
    view = holding.renewal_answered(view, sequence=1, now=T0 + 9.5, ttl=TTL, renew_in=8.0)
    assert view.until == T0 + 8.0 + TTL - 1.0


def test_a_node_that_does_not_answer_is_left(view: SessionView) -> None:
    view = holding.renewal_sent(view, T0 + 8.0)
    assert next_step(view, T0 + 8.1) == Wait(T0 + 10.0)
    assert next_step(view, T0 + 10.0) == MoveOn()


def test_after_resuming_a_renewal_is_due_at_once(view: SessionView) -> None:
    view = holding.resumed(holding.disconnected(view), T0 + 3.0)
    assert view.until == T0 + TTL - 1.0
    assert next_step(view, T0 + 3.0) == Renew()


def test_a_node_that_owes_an_answer_and_is_silent_is_probed(view: SessionView) -> None:
    view = holding.owing(view, T0 + 2.0)
    assert next_step(view, T0 + 2.5) == Wait(T0 + 3.0)
    assert next_step(view, T0 + 3.0) == Renew()


def test_half_of_the_time_without_an_answer_is_jeopardy(view: SessionView) -> None:
    view = holding.disconnected(view)
    assert next_step(view, T0 + 14.4) == Wait(T0 + 14.5)
    assert next_step(view, T0 + 14.5) == EnterJeopardy()
    assert next_step(holding.in_jeopardy(view), T0 + 14.5) == Wait(T0 + 29.0)


def test_no_node_within_reach_is_jeopardy_at_once(view: SessionView) -> None:
    view = holding.unreachable(holding.disconnected(view))
    assert next_step(view, T0 + 1.0) == EnterJeopardy()


def test_an_answered_renewal_ends_jeopardy(view: SessionView) -> None:
    view = holding.in_jeopardy(holding.unreachable(holding.disconnected(view)))
    view = holding.renewal_sent(holding.resumed(view, T0 + 20.0), T0 + 20.0)
    view = holding.renewal_answered(view, sequence=1, now=T0 + 20.1, ttl=TTL, renew_in=8.0)
    assert view.state is HoldingState.SAFE
    assert next_step(view, T0 + 20.1) == Wait(T0 + 28.1)


def test_the_seats_are_lost_when_the_believed_time_is_over(view: SessionView) -> None:
    assert believes(view, T0 + 28.9) is HoldingState.SAFE
    assert believes(view, T0 + 29.0) is HoldingState.LOST
    assert next_step(view, T0 + 29.0) == Lost()


def test_too_late_an_answer_changes_nothing(view: SessionView) -> None:
    view = holding.renewal_sent(view, T0 + 28.0)
    assert view == holding.renewal_answered(
        view, sequence=1, now=T0 + 29.5, ttl=TTL, renew_in=8.0
    )


@pytest.mark.parametrize("sequence", [0, 2, -1])
def test_an_answer_to_something_else_changes_nothing(view: SessionView, sequence: int) -> None:
    view = holding.renewal_sent(view, T0 + 8.0)
    assert view == holding.renewal_answered(
        view, sequence=sequence, now=T0 + 8.5, ttl=TTL, renew_in=8.0
    )


@dataclasses.dataclass
class Lease:
    """The other side: the store's lease, which counts from when a renewal arrives."""

    expires_at: float


@st.composite
def journeys(draw: st.DrawFn) -> list[tuple[str, float, float]]:
    """What happens to a session: (event, seconds until it, seconds on the way there)."""
    kinds = st.sampled_from(["step", "answer", "lose_answer", "break", "resume", "idle"])
    seconds = st.floats(0.0, 8.0)
    return draw(st.lists(st.tuples(kinds, seconds, st.floats(0.0, 1.0)), max_size=60))


@settings(max_examples=400)
@given(journeys(), st.floats(2.0, 60.0), st.floats(0.0, 5.0), st.floats(0.0, 1.0))
def test_no_holder_believes_in_seats_that_the_service_may_have_freed(
    journey: list[tuple[str, float, float]], ttl: float, margin: float, open_delay: float
) -> None:
    now = T0 + open_delay
    # The service received the opening somewhere between sending and answer.
    lease = Lease(expires_at=T0 + ttl)
    view = holding.opened(
        sent_at=T0,
        now=now,
        ttl=ttl,
        renew_in=ttl / 4,
        margin=margin,
        answer_timeout=2.0,
        probe_after=1.0,
    )
    answers: list[int] = []
    for event, wait, on_the_way in journey:
        now += wait
        match event:
            case "step":
                match next_step(view, now):
                    case Renew():
                        view = holding.renewal_sent(view, now)
                        # Received later than sent, or never where the lease is gone by then.
                        if now + on_the_way < lease.expires_at:
                            lease.expires_at = now + on_the_way + ttl
                            answers.append(view.sequence)
                    case MoveOn():
                        view, answers = holding.disconnected(view), []
                    case EnterJeopardy():
                        view = holding.in_jeopardy(view)
                    case Lost():
                        view = holding.lost(view)
                    case Wait(until):
                        assert until > now
            case "answer" if answers:
                view = holding.renewal_answered(
                    view, sequence=answers.pop(), now=now, ttl=ttl, renew_in=ttl / 4
                )
            case "lose_answer":
                answers = []
            case "break":
                view, answers = holding.disconnected(view), []
            case "resume" if not view.connected:
                view = holding.resumed(view, now)
        if believes(view, now) is not HoldingState.LOST:
            assert now < lease.expires_at
            # And by the margin, so that there is time to stop.
            assert view.until <= lease.expires_at - min(margin, ttl / 4) + 1e-6


@given(st.lists(st.floats(0.0, 5.0), max_size=30))
def test_lost_is_final(waits: list[float]) -> None:
    now = T0
    view = holding.lost(
        holding.opened(
            sent_at=T0, now=T0, ttl=TTL, renew_in=8, margin=1, answer_timeout=2, probe_after=1
        )
    )
    for wait in waits:
        now += wait
        assert next_step(view, now) == Lost()
        assert believes(view, now) is HoldingState.LOST
