"""What a holder believes of seats that may be called back."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatkeeper.client.session.holding import SessionView, opened
from seatkeeper.client.session.reclaiming import Recall, is_fresh

TTL, MARGIN, NOTICE = 12.0, 1.0, 20.0
WITHIN = NOTICE + TTL


def view(margin: float = MARGIN) -> SessionView:
    return opened(
        sent_at=0,
        now=0,
        ttl=TTL,
        renew_in=TTL / 3,
        margin=margin,
        answer_timeout=2,
        probe_after=1,
    )


def test_without_a_reclaim_it_counts_a_lease_from_the_latest_confirmation() -> None:
    recall = Recall.of(view(), confirmed_at=3)
    assert (recall.until, recall.ends_at) == (3 + TTL - MARGIN, 3 + TTL)
    assert not recall.confirm(5)
    assert recall.until == 5 + TTL - MARGIN


def test_the_margin_takes_no_more_than_a_quarter() -> None:
    assert Recall.of(view(margin=100), 0).until == TTL * 0.75


def test_a_reclaim_counts_from_the_confirmation_before_it() -> None:
    recall = Recall.of(view(), confirmed_at=3)
    assert recall.call(WITHIN, "nlp", now=7)
    assert recall.until == 3 + WITHIN - MARGIN
    assert not recall.call(WITHIN, "nlp", now=9), "known already"
    assert recall.called is not None
    assert recall.called.learned_at == 7


def test_a_confirmation_that_is_older_than_what_is_known_does_not_call_it_off() -> None:
    recall = Recall.of(view(), confirmed_at=3)
    recall.call(WITHIN, "nlp", now=7)
    assert not recall.confirm(6)
    assert recall.called is not None
    assert recall.confirm(8)
    assert recall.called is None


@pytest.mark.parametrize(("sent_at", "now", "expected"), [(0, 3.9, True), (0, 4.1, False)])
def test_a_grant_that_waited_for_long_is_confirmed_first(
    sent_at: float, now: float, expected: bool
) -> None:
    assert is_fresh(view(), sent_at, now) is expected


@dataclass
class Service:
    """The store: when it was asked, and what it says; a reclaim frees the seat when it is over."""

    called_at: float | None = None
    freed: list[float] = field(default_factory=list)

    def says(self, now: float) -> bool | None:
        """Whether the seat is called back now; None: it is gone."""
        if self.called_at is not None and now >= self.called_at + WITHIN:
            return None
        return self.called_at is not None and now >= self.called_at


@settings(max_examples=300, deadline=None)
@given(
    st.floats(0, 60),
    st.lists(
        st.tuples(st.floats(0.1, 6), st.floats(0, 5), st.floats(0, 5), st.booleans()),
        max_size=30,
    ),
)
def test_no_holder_believes_in_a_seat_that_may_have_been_freed(
    called_at: float, renewals: list[tuple[float, float, float, bool]]
) -> None:
    """Whatever is late or lost: each renewal is sent, reaches a node later, and is answered later."""
    service, recall, now = Service(called_at), Recall.of(view(), confirmed_at=0), 0.0
    freed_at = called_at + WITHIN
    for pause, there, back, is_lost in renewals:
        sent_at = now + pause
        said, now = service.says(sent_at + there), sent_at + there + back
        if now >= recall.until:
            break  # lost: final
        if is_lost or said is None:
            continue
        if said:
            recall.call(WITHIN, "", now)
        else:
            recall.confirm(sent_at)
        assert recall.until < freed_at
    assert recall.until < freed_at
