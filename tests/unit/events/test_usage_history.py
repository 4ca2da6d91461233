"""What each kind of revision says of the seats that began and ended at it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from tests.unit.kit import (
    KEYS,
    NOW,
    POOL,
    a_grant,
    a_ticket,
    acquire,
    in_revisions,
    release,
    uuid7,
)

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.decide import Decision, decide
from seatkeeper.server.domain import (
    Denied,
    Guard,
    Instant,
    Limits,
    PoolSpec,
    PoolState,
    Refusal,
    Watermark,
)
from seatkeeper.server.events.facts import REFUSED_MAX, decode_facts, encode_facts
from seatkeeper.server.events.history import UsageHistory, usage_events
from seatkeeper.server.events.usage import SESSION_ENDED, UsageEvent, UsageKind
from seatkeeper.server.store import Change, Entry, Listing, records

LATER = Instant(NOW + 60_000)
DECISION = 4711


def put(key: str, value: bytes) -> Change:
    return Change(key, Entry(key, value, 0), 0)


def gone(key: str) -> Change:
    return Change(key, None, 0)


def guard(
    *,
    decided_at_millis: int = 0,
    released_fences: Iterable[int] = (),
    reclaimed_fences: Iterable[int] = (),
) -> Change:
    """A guard that its decision left, with what it says of itself."""
    about = state_pb2.DecisionFacts(
        decision_id=DECISION,
        decided_at_millis=decided_at_millis,
        released_fences=released_fences,
        reclaimed_fences=reclaimed_fences,
    )
    facts = about.SerializeToString()
    return put(KEYS.guard(POOL), records.encode_guard(Guard(9, 9), DECISION, facts))


GRANT = a_grant(1, fence=7)
TICKET = a_ticket(2)
GRANT_KEY, TICKET_KEY = KEYS.grant(POOL, uuid7(1)), KEYS.ticket(POOL, uuid7(2))
MADE = [
    put(GRANT_KEY, records.encode_grant(GRANT)),
    put(TICKET_KEY, records.encode_ticket(TICKET)),
    guard(),
]
ENDED = gone(KEYS.session("anna"))


def denied(reason: Refusal) -> Change:
    mark = Watermark(1, uuid7(2), denied=[Denied(uuid7(2), reason, "because")])
    return put(KEYS.mark(POOL, "anna"), records.encode_watermark(mark))


def after(*revisions: Iterable[Change]) -> list[UsageEvent]:
    """The events of these revisions, once a grant and a ticket were made."""
    return usage_events(in_revisions([MADE, *revisions]), KEYS, seen_at=LATER)[2:]


def test_what_begins_has_what_its_record_says() -> None:
    granted, queued = usage_events(in_revisions([MADE]), KEYS, seen_at=LATER)
    assert (granted.kind, granted.fence, granted.at) == (UsageKind.GRANTED, 7, NOW)
    assert (queued.kind, queued.fence, queued.at) == (UsageKind.QUEUED, 0, NOW)
    assert granted.attribution.holder == queued.attribution.holder == "anna@host"


@pytest.mark.parametrize(
    ("changes", "kind", "reason", "at"),
    [
        ([guard(decided_at_millis=NOW + 5, released_fences=[7])], "released", "", NOW + 5),
        ([guard(decided_at_millis=NOW + 5, reclaimed_fences=[7])], "reclaimed", "", NOW + 5),
        # A decision of an earlier version says nothing of itself, and only released.
        ([put(KEYS.guard(POOL), records.encode_guard(Guard(9, 9)))], "released", "", LATER),
        ([ENDED], "expired", SESSION_ENDED, LATER),
        # While etcd is full, it deletes and writes nothing.
        ([], "released", "", LATER),
    ],
)
def test_why_a_grant_ended(changes: list[Change], kind: str, reason: str, at: int) -> None:
    (event,) = after([*changes, gone(GRANT_KEY)])
    assert (event.kind, event.reason, event.at) == (kind, reason, at)
    assert (event.grant_id, event.fence, event.since) == (uuid7(1), 7, NOW)


@pytest.mark.parametrize(
    ("changes", "kind", "reason"),
    [
        ([guard()], "cancelled", ""),
        ([guard(), denied(Refusal.NO_SEAT_FREE)], "gave_up", "NO_SEAT_FREE"),
        ([guard(), denied(Refusal.TOO_MANY_SEATS)], "denied", "TOO_MANY_SEATS"),
        ([ENDED], "cancelled", SESSION_ENDED),
    ],
)
def test_why_a_ticket_ended(changes: list[Change], kind: str, reason: str) -> None:
    (event,) = after([*changes, gone(TICKET_KEY)])
    assert (event.kind, event.reason) == (kind, reason)


def test_a_ticket_that_was_served_did_not_end() -> None:
    served = a_grant(2, fence=8)
    put_grant = put(KEYS.grant(POOL, uuid7(2)), records.encode_grant(served))
    (event,) = after([guard(), put_grant, gone(TICKET_KEY)])
    assert (event.kind, event.fence) == (UsageKind.GRANTED, 8)


def test_a_grant_that_is_claimed_did_not_begin_again() -> None:
    claimed = put(GRANT_KEY, records.encode_grant(replace(GRANT, agent_id="a", claim_id="c")))
    assert after([claimed]) == []


def test_facts_that_a_node_kept_from_an_earlier_decision_are_not_read_again() -> None:
    """As one does that does not know them, and keeps what it does not know."""
    record = state_pb2.GuardRecord(fence=9, ticket_number=9, decision_id=DECISION + 1)
    facts = state_pb2.DecisionFacts(decision_id=DECISION, reclaimed_fences=[7])
    record.facts = facts.SerializeToString()
    kept = put(KEYS.guard(POOL), record.SerializeToString())
    (event,) = after([kept, gone(GRANT_KEY)])
    assert event.kind is UsageKind.RELEASED


def test_a_reader_may_begin_with_a_listing() -> None:
    entries = tuple(change.entry for change in MADE if change.entry)
    history = UsageHistory(KEYS)
    history.begin(Listing(entries, 5))
    (event,) = history.read([gone(GRANT_KEY), ENDED], LATER)
    assert (event.kind, event.attribution.project) == (UsageKind.EXPIRED, "cv")


def decision(*numbers: int, seats: int = 0) -> Decision:
    """Decide on requests that cannot wait."""
    pool = PoolState(spec=PoolSpec(POOL, seats))
    commands = [acquire(number, may_wait=False) for number in numbers]
    return decide(pool, commands, NOW, Limits())


def facts_of(made: Decision) -> bytes:
    return encode_facts(DECISION, made.decided_at, made.released_fences, made.outcomes)


def test_a_refusal_rides_in_the_guard_with_its_request() -> None:
    value = records.encode_guard(Guard(), DECISION, facts_of(decision(3)))
    (event,) = after([put(KEYS.guard(POOL), value)])
    assert (event.kind, event.reason, event.at) == (UsageKind.DENIED, "NO_SEAT_FREE", NOW)
    assert (event.grant_id, event.session_id, event.seats) == (uuid7(3), "anna", 1)
    assert event.attribution.holder == "anna@host"


def test_a_refusal_has_the_labels_of_its_request() -> None:
    command = acquire(3, may_wait=False)
    attribution = replace(command.attribution, labels=(("team", "cv"),))
    labelled = replace(command, attribution=attribution)
    made = decide(PoolState(spec=PoolSpec(POOL, 0)), [labelled], NOW, Limits())
    value = records.encode_guard(Guard(), DECISION, facts_of(made))
    (event,) = after([put(KEYS.guard(POOL), value)])
    assert event.attribution == attribution


def test_more_refusals_than_fit_are_counted() -> None:
    many = decision(*range(1, REFUSED_MAX + 4))
    value = records.encode_guard(Guard(), DECISION, facts_of(many))
    facts = decode_facts(value)
    assert (len(facts.refused), facts.refused_left_out) == (REFUSED_MAX, 3)


def test_a_decision_names_the_fences_that_it_released() -> None:
    pool = PoolState(spec=PoolSpec(POOL, 1))
    pool.put_grant(GRANT)
    made = decide(pool, [release(1)], NOW, Limits())
    facts = decode_facts(records.encode_guard(made.guard, DECISION, facts_of(made)))
    assert (facts.released, facts.decided_at) == (frozenset({7}), NOW)
