"""An attribution travels whole: what a node does not know of it goes on as it came."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.kit import NOW, acquire, uuid7

from seatkeeper.server.decide import Granted, Limits, PoolSpec, PoolState, Queued, decide
from seatkeeper.server.domain.attribution import PRIORITY_MAX, Attribution
from seatkeeper.server.routing import wire
from seatkeeper.server.store import records
from seatkeeper.v1 import pool_service_pb2, seat_pb2, state_pb2

LATER = b"\xc2\x3e\x05later"
"""Field 1000, of a version to come."""
MESSAGES = [
    state_pb2.TicketRecord,
    state_pb2.GrantRecord,
    pool_service_pb2.HeldGrant,
    pool_service_pb2.QueuedTicket,
]
ATTRIBUTIONS = st.builds(
    Attribution,
    st.text(max_size=20),
    st.text(max_size=20),
    st.integers(-PRIORITY_MAX, PRIORITY_MAX),
    kept=st.sampled_from([b"", LATER]),
)


@pytest.mark.parametrize("message", MESSAGES)
@given(written=ATTRIBUTIONS)
def test_it_survives_every_message_that_carries_it(
    message: type[
        state_pb2.TicketRecord
        | state_pb2.GrantRecord
        | pool_service_pb2.HeldGrant
        | pool_service_pb2.QueuedTicket
    ],
    written: Attribution,
) -> None:
    into = message()
    written.write(into)
    read = Attribution.of(type(into).FromString(into.SerializeToString()))
    assert read == written
    assert read.kept == written.kept


def test_what_a_newer_node_wrote_reaches_the_grant_by_way_of_a_node_that_does_not_know_it() -> (
    None
):
    asked = acquire(1)
    passed_on = wire.encode_command(asked)
    passed_on.acquire.ticket.attributes.MergeFromString(LATER)
    command = wire.decode_command(passed_on)

    full = PoolState(spec=PoolSpec("p", 1), held=1)
    decision = decide(full, [command], NOW, Limits())
    (_, queued) = decision.outcomes[0]
    assert isinstance(queued, Queued)
    stored = records.encode_ticket(queued.ticket)
    assert state_pb2.TicketRecord.FromString(stored).attributes.SerializeToString() == LATER

    free = PoolState(spec=PoolSpec("p", 1))
    free.put_ticket(records.decode_ticket(uuid7(1), stored))
    (grant,) = decide(free, [], NOW, Limits()).grants
    value = records.encode_grant(grant)
    assert state_pb2.GrantRecord.FromString(value).attributes.SerializeToString() == LATER

    outcome = wire.decode_outcome(uuid7(1), wire.encode_outcome(Granted(grant)))
    assert isinstance(outcome, Granted)
    assert outcome.grant.attribution.kept == LATER


def test_what_a_request_says_that_this_node_cannot_check_is_left_out() -> None:
    request = seat_pb2.Acquire(priority=3)
    request.attributes.MergeFromString(LATER)
    taken = Attribution.asked(request, holder="anna@host", project="cv")
    assert taken == Attribution("anna@host", "cv", 3)
    assert not taken.kept


def test_a_request_is_charged_to_its_own_project_before_its_session_s() -> None:
    request = seat_pb2.Acquire(project="nlp")
    assert Attribution.asked(request, holder="anna", project="cv").project == "nlp"


def test_what_asks_again_may_say_more_or_less_of_itself_than_before() -> None:
    """Terms are seats, project and priority: another version's client sends the same request."""
    first = acquire(1, wait=timedelta(minutes=1))
    again = wire.encode_command(first)
    again.acquire.ticket.attributes.MergeFromString(LATER)
    pool = PoolState(spec=PoolSpec("p", 1))
    decision = decide(pool, [first, wire.decode_command(again)], NOW, Limits())
    assert [type(outcome) for _, outcome in decision.outcomes] == [Granted, Granted]
