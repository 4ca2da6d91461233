"""An attribution travels whole: what a node does not know of it goes on as it came."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.kit import NOW, a_grant, a_ticket, acquire, changed, uuid7

from seatkeeper.core.tokens import TOKEN_BYTES_MAX, verify_token
from seatkeeper.core.validate import HOLDER_MAX, Malformed
from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.decide import decide
from seatkeeper.server.domain import (
    Granted,
    Instant,
    Limits,
    PoolSpec,
    PoolState,
    Queued,
    attribution,
)
from seatkeeper.server.domain.attribution import LABELS_MAX, PRIORITY_MAX, Attribution
from seatkeeper.server.routing import wire
from seatkeeper.server.store import records
from seatkeeper.server.tokens.signer import TokenSigner, jwks
from seatkeeper.v1 import pool_service_pb2, seat_pb2

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
    st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=4).map(
        lambda labels: tuple(sorted(labels.items()))
    ),
    work_key=st.sampled_from(["", "w/1"]),
    cost_class=st.sampled_from(["", "a100"]),
    cost=st.sampled_from([1, 4]),
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
    assert written.kept in read.kept


def test_what_a_newer_node_wrote_reaches_the_grant_by_way_of_a_node_that_does_not_know_it() -> (
    None
):
    asked = acquire(1)
    forwarded = wire.encode_command(asked)
    forwarded.acquire.ticket.attributes.MergeFromString(LATER)
    command = wire.decode_command(forwarded)

    full = PoolState(spec=PoolSpec("p", 1))
    full.put_grant(a_grant(9, session="other"))
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


def test_labels_beside_what_a_newer_node_wrote_are_both_kept() -> None:
    record = state_pb2.GrantRecord(holder="anna")
    record.attributes.labels["team"] = "cv"
    record.attributes.MergeFromString(LATER)
    read = Attribution.of(record)
    assert read.labels == (("team", "cv"),)
    again = state_pb2.GrantRecord()
    read.write(again)
    assert again.attributes.SerializeToString() == record.attributes.SerializeToString()


def test_what_a_request_says_that_this_node_cannot_check_is_left_out() -> None:
    request = seat_pb2.Acquire(priority=3)
    request.attributes.MergeFromString(LATER)
    taken = Attribution.asked(request, holder="anna@host", project="cv")
    assert taken == Attribution("anna@host", "cv", 3)
    assert not taken.kept


def test_a_request_is_charged_to_its_own_project_before_its_session_s() -> None:
    request = seat_pb2.Acquire(project="nlp")
    assert Attribution.asked(request, holder="anna", project="cv").project == "nlp"


LONGEST = {f"{number:063}": "v" * 63 for number in range(LABELS_MAX)}


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"team": "cv"},
        {"team": ""},
        {"ci/pipeline_id.x-1": "https://ci.host:8080/a_b.C+d@e-f"},
        LONGEST,
    ],
    ids=["none", "one", "empty value", "all characters", "as many and as long as may be"],
)
def test_labels_travel_with_the_request(labels: dict[str, str]) -> None:
    request = seat_pb2.Acquire(attributes=seat_pb2.Attributes(labels=labels))
    attribution.check(request)
    taken = Attribution.asked(request, holder="anna@host", project="cv")
    assert dict(taken.labels) == labels
    ticket = changed(a_ticket(1), labels=taken.labels)
    pool = PoolState(spec=PoolSpec("p", 1))
    pool.put_ticket(records.decode_ticket(uuid7(1), records.encode_ticket(ticket)))
    (grant,) = decide(pool, [], NOW, Limits()).grants
    stored = records.decode_grant(uuid7(1), records.encode_grant(grant))
    assert dict(stored.attribution.labels) == labels
    said = {"labels": labels} if labels else {}
    assert stored.attribution.claims() == {"sub": "anna@host", "project": "cv"} | said
    assert stored.attribution.facts().get("labels", {}) == labels


@pytest.mark.parametrize(
    "labels",
    [
        {str(number): "" for number in range(LABELS_MAX + 1)},
        {"": "v"},
        {"k" * 64: "v"},
        {"Team": "cv"},
        {"-team": "cv"},
        {"te am": "cv"},
        {"team": "v" * 64},
        {"team": "c v"},
        {"team": "caf\u00e9"},
        {"team": '"'},
        {"team": "cv\n"},
    ],
    ids=lambda labels: "too many" if len(labels) > LABELS_MAX else repr(labels),
)
def test_a_label_that_is_none_is_refused_by_its_field(labels: dict[str, str]) -> None:
    request = seat_pb2.Acquire(attributes=seat_pb2.Attributes(labels=labels))
    with pytest.raises(Malformed) as refused:
        attribution.check(request)
    assert refused.value.field == "attributes.labels"
    assert len(str(refused.value)) < 300


def test_a_token_of_the_longest_holder_and_labels_is_short_enough_to_be_verified() -> None:
    signer = TokenSigner.generate()
    labels = tuple(sorted(LONGEST.items()))
    grant = changed(
        a_grant(1), holder="\U0001f600" * HOLDER_MAX, project="p" * 63, labels=labels
    )
    token = signer.sign(
        "p" * 63,
        grant,
        issued_at=NOW,
        expires_at=Instant(NOW + 9000),
        certificate_sha256=b"x" * 32,
    )
    moment = datetime.fromtimestamp(NOW / 1000, UTC)
    assert verify_token(token, jwks([signer.jwk_json]), now=moment).labels == LONGEST
    assert len(token) <= TOKEN_BYTES_MAX


def test_what_asks_again_may_say_more_or_less_of_itself_than_before() -> None:
    """Terms are seats, project and priority: another version's client sends the same request."""
    first = acquire(1, wait=timedelta(minutes=1))
    again = wire.encode_command(first)
    again.acquire.ticket.attributes.MergeFromString(LATER)
    pool = PoolState(spec=PoolSpec("p", 1))
    decision = decide(pool, [first, wire.decode_command(again)], NOW, Limits())
    assert [type(outcome) for _, outcome in decision.outcomes] == [Granted, Granted]
