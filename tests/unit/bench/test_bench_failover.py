"""What is reported of failures is right: waits are paired with faults, and lost tickets are found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bench.departures import Departures, Fate, departures
from bench.recovery import Fault, Recovery, Served, recovery
from tests.unit.kit import KEYS, POOL, a_grant, a_ticket, in_revisions, uuid7

from seatkeeper.server.domain import Grant, Guard, Ticket, Watermark
from seatkeeper.server.sessions.sessions import lease_id_of
from seatkeeper.server.store import Change, Entry, records

FAULT = Fault(at=100.0, waiting=frozenset({1, 2, 3}), waiting_there=frozenset({3}))


def served(client: int, taken: float, *, asked: float = 99.0, decided: float = 0.0) -> Served:
    return Served(client, asked, taken, decided or taken - 0.25)


# Pairing faults with seats ------------------------------------------------------------------------


def test_the_first_seat_and_the_first_at_the_faulty_node_are_separate() -> None:
    seats = [served(1, 101.0), served(2, 104.0), served(3, 102.0)]

    found = recovery(FAULT, seats, 105.0)

    assert found == Recovery(first_s=1.0, there_s=2.0, everyone_s=4.0, unserved=0)
    assert found.seconds == 2.0


def test_the_first_of_several_that_waited_there_counts() -> None:
    fault = Fault(100.0, frozenset({1, 2, 3}), frozenset({2, 3}))
    seats = [served(1, 101.0), served(2, 103.0), served(3, 102.0)]
    assert recovery(fault, seats, 105.0).there_s == 2.0


def test_a_seat_that_was_granted_before_and_arrives_after_is_not_the_first() -> None:
    seats = [served(1, 100.5, decided=99.5), served(2, 103.0), served(3, 104.0)]

    found = recovery(FAULT, seats, 105.0)

    assert found.first_s == 3.0
    assert found.unserved == 0, "but it ends the wait of its client"


def test_seats_of_clients_that_did_not_wait_then_do_not_count() -> None:
    seats = [
        served(1, 99.9, asked=99.0),  # had its seat before, and asked again after
        served(1, 100.2, asked=100.1),
        served(9, 100.3),
        *(served(client, 107.0) for client in (1, 2, 3)),
    ]
    found = recovery(FAULT, seats, 110.0)
    assert (found.first_s, found.everyone_s) == (7.0, 7.0)


def test_a_client_that_asks_again_is_served_once() -> None:
    seats = [
        served(1, 101.0),
        served(1, 109.0, asked=101.5),
        served(2, 102.0),
        served(3, 103.0),
    ]
    assert recovery(FAULT, seats, 110.0).everyone_s == 3.0


def test_a_seat_that_never_comes_counts_as_it_is_so_far() -> None:
    assert recovery(FAULT, [], 130.0) == Recovery(30.0, 30.0, 30.0, 3)

    found = recovery(FAULT, [served(1, 101.0), served(2, 101.0)], 130.0)
    assert found == Recovery(first_s=1.0, there_s=30.0, everyone_s=30.0, unserved=1)


def test_where_no_client_waited_at_the_node_the_first_seat_counts() -> None:
    fault = Fault(100.0, frozenset({1}))
    found = recovery(fault, [served(1, 101.0)], 105.0)
    assert found.there_s is None
    assert found.seconds == 1.0


def test_where_all_who_waited_there_had_been_granted_before_the_first_seat_counts() -> None:
    seats = [served(1, 101.0), served(2, 101.0), served(3, 103.0, decided=99.0)]
    found = recovery(FAULT, seats, 105.0)
    assert (found.there_s, found.seconds, found.everyone_s) == (None, 1.0, 3.0)


# How tickets left the queue -----------------------------------------------------------------------


def put(key: str, value: bytes) -> Change:
    return Change(key, Entry(key, value, 0), 0)


def guard() -> Change:
    return put(KEYS.guard(POOL), records.encode_guard(Guard()))


def granted(grant: Grant) -> Change:
    return put(KEYS.grant(POOL, grant.grant_id), records.encode_grant(grant))


def queued(ticket: Ticket) -> Change:
    return put(KEYS.ticket(POOL, ticket.grant_id), records.encode_ticket(ticket))


def mark(number: int, session: str) -> Change:
    record = Watermark(lease_id_of(session), uuid7(number))
    return put(KEYS.mark(POOL, session), records.encode_watermark(record))


def grant_gone(number: int) -> Change:
    return Change(KEYS.grant(POOL, uuid7(number)), None, 0)


def ticket_gone(number: int) -> Change:
    return Change(KEYS.ticket(POOL, uuid7(number)), None, 0)


def looked_at(*revisions: Sequence[Change], closed: Sequence[str] = ()) -> Departures:
    return departures(in_revisions(revisions), POOL, closed_sessions=closed, prefix=KEYS.prefix)


WAITING = [guard(), queued(a_ticket(2, session="bob"))]


def test_a_ticket_that_is_granted_is_not_lost() -> None:
    found = looked_at(
        [guard(), granted(a_grant(1))],
        WAITING,
        [guard(), mark(1, "anna"), grant_gone(1), ticket_gone(2), granted(a_grant(2))],
    )
    assert found == Departures(fates=Counter([Fate.GRANTED]))


def test_a_ticket_that_its_owner_gives_up_leaves_a_mark() -> None:
    found = looked_at(WAITING, [guard(), ticket_gone(2), mark(2, "bob")])
    assert found.fates == {Fate.GIVEN_UP: 1}
    assert not found.lost_tickets


def test_a_mark_above_it_from_before_is_enough() -> None:
    found = looked_at([guard(), mark(3, "bob")], WAITING, [guard(), ticket_gone(2)])
    assert found.fates == {Fate.GIVEN_UP: 1}


def test_a_ticket_that_a_decision_drops_without_a_word_is_lost() -> None:
    found = looked_at(WAITING, [guard(), ticket_gone(2), mark(2, "somebody else")])
    assert [ticket.grant_id for ticket in found.lost_tickets] == [uuid7(2)]
    assert found.fates == {Fate.LOST: 1}


def test_a_ticket_that_vanishes_outside_a_decision_is_lost_whatever_the_mark() -> None:
    found = looked_at([guard(), mark(3, "bob")], WAITING, [ticket_gone(2)])
    assert found.fates == {Fate.LOST: 1}


def test_a_ticket_goes_with_its_session_only_when_the_client_closed_that() -> None:
    assert looked_at(WAITING, [ticket_gone(2)], closed=["bob"]).fates == {Fate.CLOSED: 1}
    assert looked_at(WAITING, [ticket_gone(2)], closed=["anna"]).fates == {Fate.LOST: 1}


def test_a_ticket_that_waits_on_is_not_lost() -> None:
    assert looked_at(WAITING) == Departures(waiting=1)


def test_a_grant_that_ends_without_a_release_is_lost() -> None:
    held = [guard(), granted(a_grant(1))]
    assert [grant.grant_id for grant in looked_at(held, [grant_gone(1)]).lost_grants] == [
        uuid7(1)
    ]
    assert not looked_at(held, [guard(), grant_gone(1), mark(1, "anna")]).lost_grants
    assert not looked_at(held, [grant_gone(1)], closed=["anna"]).lost_grants


def test_other_pools_do_not_matter() -> None:
    key = KEYS.ticket("other", uuid7(2))
    other = put(key, records.encode_ticket(a_ticket(2)))
    assert looked_at([other], [Change(key, None, 0)]) == Departures()


def test_an_inversion_is_seen_within_a_priority_only() -> None:
    first, second = a_ticket(2, priority=0), a_ticket(3, priority=0)
    above = a_ticket(4, priority=5)
    queue = [guard(), queued(first), queued(second), queued(above)]

    def serving(number: int, priority: int = 0) -> Sequence[Change]:
        return [guard(), ticket_gone(number), granted(a_grant(number, priority=priority))]

    assert looked_at(queue, serving(2), serving(3)).order_inversions == 0
    assert looked_at(queue, serving(3), serving(2)).order_inversions == 1
    assert looked_at(queue, serving(4, priority=5)).order_inversions == 0


def test_a_grant_that_never_waited_passes_over_those_who_do() -> None:
    assert looked_at(WAITING, [guard(), granted(a_grant(5))]).order_inversions == 1
    assert looked_at(WAITING, [guard(), granted(a_grant(5, priority=1))]).order_inversions == 0


def test_a_claim_rewrites_a_grant_and_overtakes_no_ticket() -> None:
    held = [guard(), granted(a_grant(1))]
    assert looked_at(held, WAITING, [granted(a_grant(1))]).order_inversions == 0
