"""What a holder believes of seats that may be called back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seatkeeper.client.session.holding import HoldingState, SessionView, opened
from seatkeeper.client.session.holdings import Holdings
from seatkeeper.client.session.lease import NEVER, Lease
from seatkeeper.client.session.recallable import NOT_CONFIRMED, Recallable
from seatkeeper.client.session.reclaiming import Recall, is_fresh
from seatkeeper.client.session.requests import Held, PendingRequest, Wanted
from seatkeeper.v1 import seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb

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
    assert recall.until == 3 + WITHIN - MARGIN


def test_one_that_is_made_anew_is_not_called_off_by_an_answer_about_the_one_before() -> None:
    recall = Recall.of(view(), confirmed_at=3)
    recall.call(WITHIN, "nlp", now=7)
    recall.call(WITHIN, "cv", now=9)  # the first was withdrawn meanwhile
    assert not recall.confirm(8)
    assert recall.called is not None
    assert recall.called.message == "cv"
    assert recall.confirm(10)


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


class Desk:
    """The tables that the grants are in, as far as this is concerned."""

    def __init__(self) -> None:
        self.asks: dict[str, PendingRequest] = {}
        self.looked_for: list[str] = []
        self.given_up: list[tuple[str, str]] = []
        self.holdings = Holdings(kills=False)
        self.renewals = 0
        self.states: list[HoldingState] = []
        self.recallable = Recallable(self, self.holdings, self._renew)

    def _renew(self) -> None:
        self.renewals += 1

    def granted_lease(self, ask: PendingRequest) -> Lease | None:
        del self.asks[ask.grant_id]
        return self.lease

    def look_for(self, grant_ids: Iterable[str]) -> None:
        self.looked_for += grant_ids

    def send_ask(self, ask: PendingRequest, now: float) -> None:
        self.looked_for.append(ask.grant_id)

    def give_up(self, held: Held, why: str, now: float) -> None:
        self.given_up.append((held.grant_id, why))
        self.holdings.lose(held, why)

    @property
    def lease(self) -> Lease:
        lease = Lease(pb.SessionCredentials(session_id="s"), 0.0)
        lease.view = view()
        return lease

    def asked(self, grant_id: str = "g") -> PendingRequest:
        return PendingRequest(
            grant_id=grant_id,
            wanted=Wanted(pool="p"),
            wait=None,
            asked_at=0.0,
            future=asyncio.get_running_loop().create_future(),
            on_queued=None,
            on_state=self.states.append,
            expires_at=1e9,
        )

    def held(self, sent_at: float = 0.0, *, reclaimable: bool = True) -> Held:
        granted = seat_pb2.Granted(grant_id="g", seats=1, fence=1, reclaimable=reclaimable)
        return self.holdings.hold(self.asked(), granted, self.lease, sent_at)


def confirmed(*, within: float | None = None, grant_id: str = "g") -> pb.ConfirmedGrant:
    found = pb.ConfirmedGrant(grant=pb.GrantRef(pool="p", grant_id=grant_id))
    if within is not None:
        found.reclaiming.within.FromTimedelta(timedelta(seconds=within))
        found.reclaiming.message = "nlp waits"
    return found


async def test_an_answer_without_a_grant_confirms_nothing() -> None:
    desk = Desk()
    held = desk.held()
    until = held.recall_until()
    desk.recallable.on_confirmed([], ["g"], sent_at=4, now=5)
    assert held.recall_until() == until
    assert desk.looked_for == ["g"], "whether it exists"
    desk.recallable.on_confirmed([confirmed()], ["g"], sent_at=6, now=7)
    assert held.recall_until() > until


async def test_a_reclaim_is_said_once_and_so_is_its_end() -> None:
    desk = Desk()
    held = desk.held()
    for sent_at in (4, 6):
        desk.recallable.on_confirmed([confirmed(within=WITHIN)], ["g"], sent_at, sent_at + 1)
    assert desk.states == [HoldingState.RECLAIMING]
    assert held.recall_until() == WITHIN - MARGIN
    desk.recallable.on_confirmed([confirmed()], ["g"], sent_at=8, now=9)
    assert desk.states == [HoldingState.RECLAIMING, HoldingState.SAFE]
    assert desk.recallable.sweep(9) == 8 + TTL - MARGIN


async def test_a_withdrawal_is_confirmed_by_a_renewal_before_it_counts() -> None:
    desk = Desk()
    held = desk.held()
    event = seat_pb2.Reclaiming(grant_id="g", pool="p")
    event.within.FromTimedelta(timedelta(seconds=WITHIN))
    desk.recallable.on_reclaiming(event, 3)
    event.ClearField("within")
    desk.recallable.on_reclaiming(event, 4)
    assert held.called is not None
    assert desk.renewals == 1


async def test_seats_are_given_up_when_the_notice_is_over_or_no_answer_comes() -> None:
    desk = Desk()
    desk.held()
    assert desk.recallable.sweep(TTL - MARGIN - 0.1) == TTL - MARGIN
    desk.recallable.sweep(TTL - MARGIN)
    assert desk.given_up == [("g", NOT_CONFIRMED)]
    desk.held()
    desk.recallable.on_confirmed([confirmed(within=WITHIN)], ["g"], 4, 5)
    desk.recallable.sweep(WITHIN - MARGIN)
    assert desk.given_up[1] == ("g", "the seats were called back: nlp waits")
    assert desk.states[-1] is HoldingState.LOST


@pytest.mark.parametrize("is_called", [False, True])
async def test_a_grant_that_is_to_be_confirmed_is_handed_over_then(is_called: bool) -> None:
    desk = Desk()
    ask = desk.asks["g"] = desk.asked()
    ask.granted = seat_pb2.Granted(grant_id="g", seats=1, fence=1, reclaimable=True)
    assert [ref.grant_id for ref in desk.recallable.refs()] == ["g"]
    found = confirmed(within=WITHIN if is_called else None)
    desk.recallable.on_confirmed([found], ["g"], sent_at=50, now=51)
    held = await ask.future
    assert held.recall is not None
    assert held.recall.confirmed_at == 50
    assert (held.called is not None) is is_called
    assert not desk.asks


async def test_one_that_is_gone_by_then_is_asked_for_again() -> None:
    desk = Desk()
    ask = desk.asks["g"] = desk.asked()
    ask.granted = seat_pb2.Granted(grant_id="g", seats=1, fence=1, reclaimable=True)
    desk.recallable.on_confirmed([], ["g"], sent_at=50, now=51)
    assert not ask.future.done()
    assert ask.granted is None
    assert desk.looked_for == ["g"]
    assert not desk.renewals


def test_without_a_word_on_it_a_reclaim_is_counted_on_for_a_lease_only() -> None:
    recall = Recall.of(view(), confirmed_at=3)
    recall.call(WITHIN, "nlp", now=6, sent_at=5)
    assert recall.until == 3 + WITHIN - MARGIN
    recall.not_reported()
    assert recall.until == 5 + TTL - MARGIN
    recall.call(WITHIN, "nlp", now=9)
    assert recall.until == 5 + TTL - MARGIN, "an event says nothing of when it was so"
    recall.call(WITHIN, "nlp", now=12, sent_at=11)
    assert recall.until == 3 + WITHIN - MARGIN


@settings(max_examples=500, deadline=None)
@given(
    st.floats(0, 40),
    st.floats(0, 40),
    st.lists(
        st.tuples(
            *(st.floats(0.1, 4), st.floats(0, 3), st.floats(0, 3)),
            st.sampled_from(["word", "word", "no word", "lost"]),
        ),
        max_size=30,
    ),
    st.booleans(),
)
@example(
    called_at=1,
    gap=1,
    renewals=[(0.5, 1, 0, "word"), *[(3, 0, 0, "no word")] * 9],
    has_event=False,
)
def test_one_that_was_followed_by_a_shorter_one_is_not_counted_on(
    called_at: float,
    gap: float,
    renewals: list[tuple[float, float, float, str]],
    has_event: bool,
) -> None:
    """A long reclaim is withdrawn and a short one made, in one moment, and answers may say nothing."""
    long, short, again_at = 10 * WITHIN, TTL + 1, called_at + gap
    freed_at, now, renewed_at = again_at + short, 0.0, 0.0
    recall = Recall.of(view(), confirmed_at=0)
    for pause, there, back, answer in renewals:
        sent_at = now + pause
        at, now = sent_at + there, sent_at + there + back
        if now >= min(recall.until, renewed_at + TTL - MARGIN):
            break  # lost: final
        if has_event and called_at <= now < again_at and recall.called is None:
            recall.call(long, "", now)
        if answer == "lost":
            continue
        if at >= freed_at or answer == "no word":
            recall.not_reported()
        elif at >= called_at:
            recall.call(short if at >= again_at else long, "", now, sent_at=sent_at)
        else:
            recall.confirm(sent_at)
        renewed_at = sent_at
        assert min(recall.until, renewed_at + TTL - MARGIN) < freed_at
    assert min(recall.until, renewed_at + TTL - MARGIN) < freed_at


def revoked(within: float | None = WITHIN, grant_id: str = "g") -> seat_pb2.Reclaiming:
    event = seat_pb2.Reclaiming(grant_id=grant_id, pool="p", message="an administrator")
    if within is not None:
        event.within.FromTimedelta(timedelta(seconds=within))
    return event


async def test_a_grant_that_could_not_be_called_back_is_named_once_it_is() -> None:
    desk = Desk()
    held = desk.held(reclaimable=False)
    assert not desk.recallable.refs()
    assert desk.recallable.sweep(1e6) == NEVER

    desk.recallable.on_reclaiming(revoked(), now=1_000)
    assert [ref.grant_id for ref in desk.recallable.refs()] == ["g"]
    assert desk.renewals == 1, "its notice begins with that"
    assert desk.states == [HoldingState.RECLAIMING]
    assert held.recall_until() == 1_000 + WITHIN - MARGIN
    desk.recallable.on_confirmed([confirmed(within=WITHIN)], ["g"], sent_at=1_001, now=1_002)
    assert held.recall_until() == 1_000 + WITHIN - MARGIN

    desk.recallable.on_confirmed([confirmed()], ["g"], sent_at=1_003, now=1_004)
    assert desk.states[-1] is HoldingState.SAFE
    assert [ref.grant_id for ref in desk.recallable.refs()] == ["g"]


async def test_what_is_not_held_is_not_called_back() -> None:
    desk = Desk()
    desk.held(reclaimable=False)
    desk.recallable.on_reclaiming(revoked(grant_id="other"), now=3)
    desk.recallable.on_reclaiming(revoked(within=None), now=3)
    assert not desk.recallable.refs()
    assert not desk.states


@settings(max_examples=300, deadline=None)
@given(
    st.floats(0, 60),
    st.lists(
        st.tuples(st.floats(0.1, 6), st.floats(0, 5), st.floats(0, 5), st.booleans()),
        max_size=30,
    ),
)
def test_no_holder_of_a_revoked_grant_believes_in_a_seat_that_may_have_been_freed(
    learned_at: float, renewals: list[tuple[float, float, float, bool]]
) -> None:
    """The notice begins when a renewal that names the grant reaches a node."""
    recall, now = Recall.of(view(), learned_at), learned_at
    recall.call(WITHIN, "an administrator", learned_at)
    freed_at = float("inf")
    for pause, there, back, is_lost in renewals:
        sent_at = now + pause
        if sent_at >= recall.until:
            break
        freed_at = min(freed_at, sent_at + there + WITHIN)
        now = sent_at + there + back
        if not is_lost and now < freed_at:
            recall.call(WITHIN, "an administrator", now, sent_at=sent_at)
        assert recall.until < freed_at


async def test_what_programs_report_is_said_of_what_may_be_called_back() -> None:
    desk = Desk()
    held = desk.held(reclaimable=False)
    held.active_at = 3.0
    assert not desk.holdings.activity(10.0), "no pool looks at it"
    desk.recallable.on_reclaiming(revoked(), now=4)
    (said,) = desk.holdings.activity(10.0)
    assert (said.grant.grant_id, said.idle_for.ToTimedelta()) == ("g", timedelta(seconds=7))
    held.active_at = 11.0
    (said,) = desk.holdings.activity(10.0)
    assert said.idle_for.ToTimedelta() == timedelta(0)
    held.active_at = None
    assert not desk.holdings.activity(10.0), "its program reports nothing"
