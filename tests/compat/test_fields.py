"""A lost field is found, with the version that lost it; a deleted record has lost nothing."""

from __future__ import annotations

import pytest
from tests.compat.fields import Step, survey, tokens_in, with_token

from seatkeeper.server.store import Change, Entry
from seatkeeper.v1 import pool_service_pb2

SPEC = pool_service_pb2.PoolSpec(name="pool", seats=3).SerializeToString()
PLANTED = with_token(SPEC, b"t1")
KEY = "seatkeeper/pools/pool"


def put(revision: int, value: bytes, key: str = KEY) -> Change:
    return Change(key, Entry(key, value, revision), revision)


def test_a_planted_field_leaves_the_rest_of_the_record_as_it_was() -> None:
    spec = pool_service_pb2.PoolSpec.FromString(with_token(PLANTED, b"t2"))

    assert (spec.name, spec.seats) == ("pool", 3)
    assert tokens_in(spec.SerializeToString()) == {b"t1", b"t2"}
    assert tokens_in(SPEC) == frozenset()
    assert tokens_in(b"no message") == frozenset()


def test_a_record_that_is_written_back_whole_has_lost_nothing() -> None:
    changed = pool_service_pb2.PoolSpec.FromString(PLANTED)
    changed.seats = 7
    steps = [Step("plant", "harness", 1), Step("update pool", "new", 2)]

    found = survey([put(1, PLANTED), put(2, changed.SerializeToString())], steps)

    assert found.losses == []
    assert found.rewrites == {"new": 1}


def test_a_record_that_is_written_from_what_a_node_knows_has_lost_a_field() -> None:
    steps = [Step("plant", "harness", 1), Step("x", "new", 1), Step("update pool", "old", 2)]

    found = survey([put(1, PLANTED), put(2, SPEC)], steps)

    (loss,) = found.lost_by("old")
    assert (loss.key, loss.step, loss.revision) == (KEY, "update pool", 2)
    assert found.lost_by("new") == []


def test_a_field_is_lost_once_however_often_the_record_is_written_after() -> None:
    steps = [Step("update pool", "new", 9)]

    found = survey([put(1, PLANTED), put(2, SPEC), put(3, SPEC)], steps)

    assert len(found.losses) == 1


def test_a_loss_between_steps_is_nobodys_and_still_a_loss() -> None:
    found = survey([put(1, PLANTED), put(5, SPEC)], [Step("update pool", "old", 3)])

    (loss,) = found.losses
    assert loss.writer == ""
    assert found.lost_by("old") == []


def test_what_is_deleted_takes_its_fields_along() -> None:
    gone = Change(KEY, None, 2)

    assert survey([put(1, PLANTED), gone, put(3, SPEC)], [Step("x", "new", 3)]).losses == []


def test_a_field_that_is_planted_beside_another_is_no_rewrite() -> None:
    found = survey([put(1, PLANTED), put(2, with_token(PLANTED, b"t2"))], [])

    assert found.rewrites == {}


def test_two_fields_that_go_at_once_are_two_losses() -> None:
    both = with_token(PLANTED, b"t2")

    assert len(survey([put(1, both), put(2, SPEC)], [Step("x", "new", 2)]).losses) == 2


def carried(number: int) -> bytes:
    return with_token(b"", b"carried-1", within=number)


def test_a_field_in_a_message_of_a_record_is_a_field_of_the_record() -> None:
    assert tokens_in(carried(11)) == {b"carried-1"}


@pytest.mark.parametrize("grant_first", [True, False])
@pytest.mark.parametrize(("grant", "lost"), [(carried(12), 0), (b"", 1)])
def test_what_a_ticket_is_attributed_must_be_in_the_grant_that_it_becomes(
    grant: bytes, lost: int, *, grant_first: bool
) -> None:
    ticket, granted = "seatkeeper/seats/p/queue/g", "seatkeeper/seats/p/grants/g"
    served = [put(2, grant, granted), Change(ticket, None, 2)]

    found = survey(
        [put(1, carried(11), ticket), *(served if grant_first else reversed(served))],
        [Step("plant", "harness", 1), Step("release", "new", 2)],
    )

    assert len(found.lost_by("new")) == lost
    assert found.rewrites == {"new": 1}


def test_a_ticket_that_is_given_up_leaves_nothing() -> None:
    ticket = "seatkeeper/seats/p/queue/g"

    assert survey([put(1, carried(11), ticket), Change(ticket, None, 2)], []).losses == []
