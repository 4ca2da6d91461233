"""Every malformed field is refused by name, and the limits themselves are allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, get_args

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from tests.unit.kit import POOL, uuid7
from typer.models import OptionInfo

from seatkeeper.cli.connection import Wait
from seatkeeper.client.session import grants as client_grants
from seatkeeper.core.validate import (
    DESCRIPTION_MAX,
    HOLDER_MAX,
    SEATS_MAX,
    Malformed,
)
from seatkeeper.server.domain.attribution import PRIORITY_MAX
from seatkeeper.server.wire.validate import (
    WAIT_MAX,
    WORK_MESSAGE_MAX,
    check_acquire,
    check_credentials,
    check_grant_ref,
    check_open,
    check_spec,
    check_work_end,
)
from seatkeeper.v1 import pool_service_pb2, seat_pb2, seat_service_pb2

DAY = 86_400
M = TypeVar("M", bound=Message)


def an_acquire(**fields: object) -> seat_pb2.Acquire:
    message = seat_pb2.Acquire(pool=POOL, grant_id=uuid7(1), seats=1)
    return _with(message, fields)


def an_open(**fields: object) -> seat_service_pb2.Open:
    credentials = seat_service_pb2.SessionCredentials(session_id=uuid7(1), secret=b"s" * 16)
    return _with(seat_service_pb2.Open(credentials=credentials, holder="anna"), fields)


def a_spec(**fields: object) -> pool_service_pb2.PoolSpec:
    return _with(pool_service_pb2.PoolSpec(name=POOL, seats=1), fields)


def _with(message: M, fields: dict[str, object]) -> M:
    for name, value in fields.items():
        if isinstance(value, Message):
            getattr(message, name).CopyFrom(value)
        else:
            setattr(message, name, value)
    return message


ACQUIRES: list[tuple[str, dict[str, object]]] = [
    ("pool", {"pool": ""}),
    ("pool", {"pool": "Tensor"}),
    ("grant_id", {"grant_id": "1"}),
    ("seats", {"seats": 0}),
    ("seats", {"seats": -1}),
    ("seats", {"seats": SEATS_MAX + 1}),
    ("project", {"project": "CV"}),
    ("priority", {"priority": PRIORITY_MAX + 1}),
    ("priority", {"priority": -PRIORITY_MAX - 1}),
    ("wait", {"wait": Duration(seconds=-1)}),
    ("wait", {"wait": Duration(nanos=-1)}),
    ("wait", {"wait": Duration(seconds=7 * DAY + 1)}),
    ("wait", {"wait": Duration(seconds=315_576_000_000)}),
    ("wait", {"wait": Duration(seconds=2**62)}),
    ("attributes.work_key", {"attributes": seat_pb2.Attributes(work_key="a b")}),
    ("attributes.work_key", {"attributes": seat_pb2.Attributes(work_key="x" * 129)}),
]
WORK_ENDS: list[tuple[str, seat_pb2.WorkEnd]] = [
    ("work_end.failure", seat_pb2.WorkEnd(failure="no name")),
    ("work_end.failure", seat_pb2.WorkEnd(failure="x" * 65)),
    ("work_end.message", seat_pb2.WorkEnd(message="x" * (WORK_MESSAGE_MAX + 1))),
]
OPENS: list[tuple[str, dict[str, object]]] = [
    ("credentials.session_id", {"credentials": seat_service_pb2.SessionCredentials()}),
    ("holder", {"holder": ""}),
    ("holder", {"holder": "x" * (HOLDER_MAX + 1)}),
    ("holder", {"holder": "a\nb"}),
    ("holder", {"holder": "a\x1b[31m"}),
    ("project", {"project": "CV"}),
    ("ttl", {"ttl": Duration(seconds=1, nanos=999_999_999)}),
    ("ttl", {"ttl": Duration(seconds=3600, nanos=1_000)}),
    ("ttl", {"ttl": Duration(seconds=-5)}),
    ("ttl", {"ttl": Duration(seconds=2**62)}),
    ("ttl", {"ttl": Duration()}),
]
SPECS: list[tuple[str, dict[str, object]]] = [
    ("spec.name", {"name": ""}),
    ("spec.name", {"name": "a/b"}),
    ("spec.seats", {"seats": -1}),
    ("spec.seats", {"seats": SEATS_MAX + 1}),
    ("spec.description", {"description": "x" * (DESCRIPTION_MAX + 1)}),
]


def _refused(check: Callable[[], object], field: str) -> None:
    with pytest.raises(Malformed) as caught:
        check()
    assert caught.value.field == field
    assert caught.value.description


@pytest.mark.parametrize(("field", "wrong"), ACQUIRES)
def test_a_malformed_request_is_refused_by_its_field(
    field: str, wrong: dict[str, object]
) -> None:
    _refused(lambda: check_acquire(an_acquire(**wrong)), field)


@pytest.mark.parametrize(("field", "wrong"), WORK_ENDS)
def test_a_malformed_end_of_work_is_refused_by_its_field(
    field: str, wrong: seat_pb2.WorkEnd
) -> None:
    _refused(lambda: check_work_end(seat_service_pb2.Release(work_end=wrong)), field)


def test_what_the_library_says_of_the_end_of_work_is_allowed() -> None:
    assert client_grants.WORK_MESSAGE_MAX == WORK_MESSAGE_MAX
    check_work_end(seat_service_pb2.Release())
    longest = seat_pb2.WorkEnd(failure="x" * 64, message="x" * WORK_MESSAGE_MAX)
    check_work_end(seat_service_pb2.Release(work_end=longest))
    check_acquire(an_acquire(attributes=seat_pb2.Attributes(work_key="a/Z:9@+._-" + "x" * 118)))


@pytest.mark.parametrize(("field", "wrong"), OPENS)
def test_a_malformed_session_is_refused_by_its_field(
    field: str, wrong: dict[str, object]
) -> None:
    _refused(lambda: check_open(an_open(**wrong)), field)


@pytest.mark.parametrize(("field", "wrong"), SPECS)
def test_a_malformed_pool_is_refused_by_its_field(field: str, wrong: dict[str, object]) -> None:
    _refused(lambda: check_spec(a_spec(**wrong)), field)


@pytest.mark.parametrize("size", [0, 15, 65])
def test_a_secret_of_another_length_is_refused(size: int) -> None:
    credentials = seat_service_pb2.SessionCredentials(session_id=uuid7(1), secret=b"s" * size)
    _refused(lambda: check_credentials(credentials), "credentials.secret")


@pytest.mark.parametrize(
    ("field", "ref"),
    [
        ("grant.pool", seat_service_pb2.GrantRef(grant_id=uuid7(1))),
        ("grant.grant_id", seat_service_pb2.GrantRef(pool=POOL)),
    ],
)
def test_a_malformed_reference_is_refused_by_its_field(
    field: str, ref: seat_service_pb2.GrantRef
) -> None:
    _refused(lambda: check_grant_ref(ref), field)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"seats": SEATS_MAX},
        {"priority": PRIORITY_MAX},
        {"priority": -PRIORITY_MAX},
        {"project": "cv"},
        {"wait": Duration()},
        {"wait": Duration(seconds=int(WAIT_MAX.total_seconds()))},
    ],
)
def test_a_request_at_the_limits_is_accepted(fields: dict[str, object]) -> None:
    check_acquire(an_acquire(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"holder": "x" * HOLDER_MAX},
        {"holder": "J\u00fcrgen M. (laptop)"},
        {"project": "nlp"},
        {"ttl": Duration(seconds=2)},
        {"ttl": Duration(seconds=3600)},
    ],
)
def test_a_session_at_the_limits_is_accepted(fields: dict[str, object]) -> None:
    check_open(an_open(**fields))


def test_a_pool_that_does_not_say_how_many_seats_is_not_taken_for_a_closed_one() -> None:
    _refused(lambda: check_spec(pool_service_pb2.PoolSpec(name=POOL)), "spec.seats")
    assert check_spec(a_spec(seats=0)).seats == 0


def test_a_good_specification_is_returned() -> None:
    spec = check_spec(a_spec(seats=SEATS_MAX, description="for CI"))
    assert (spec.name, spec.seats, spec.description) == (POOL, SEATS_MAX, "for CI")


@pytest.mark.parametrize(
    ("ttl", "shown"),
    [
        (Duration(seconds=1, nanos=999_999_999), "1.999999999 s"),
        (Duration(seconds=3600, nanos=1), "3600.000000001 s"),
        (Duration(seconds=-1, nanos=-500_000_000), "-1.5 s"),
        (Duration(nanos=-1), "-0.000000001 s"),
        (Duration(seconds=7200), "7200 s"),
        (Duration(), "0 s"),
    ],
)
def test_a_refused_duration_is_shown_as_it_was_given(ttl: Duration, shown: str) -> None:
    """Not rounded to one that would be allowed."""
    with pytest.raises(Malformed, match=f": {shown} is not from"):
        check_open(an_open(ttl=ttl))


def test_the_longest_wait_is_the_same_everywhere() -> None:
    assert client_grants.WAIT_MAX == WAIT_MAX
    (option,) = [each for each in get_args(Wait) if isinstance(each, OptionInfo)]
    assert option.max == WAIT_MAX.total_seconds()
