from __future__ import annotations

import inspect
import re
from datetime import timedelta

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from seatkeeper.client.transport.translate import as_duration, from_denied, from_rpc, seconds
from seatkeeper.core import errors
from seatkeeper.core.errors import SeatError
from seatkeeper.v1 import seat_pb2

CLASSES = {
    name: kind
    for name, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, SeatError) and not name.startswith("_")
}
Code = grpc.StatusCode


def test_the_tree_at_the_top_is_the_tree() -> None:
    drawn: dict[str, str] = {}
    branch = ["SeatError"]
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│ ]*[├└]── )(\w+)", line)
        if match:
            depth = len(match[1]) // 4
            drawn[match[2]] = branch[depth - 1]
            branch[depth:] = [match[2]]
    real = {}
    for name, kind in CLASSES.items():
        if kind is not SeatError:
            parents = [p.__name__ for p in kind.__mro__[1:] if p.__name__ in CLASSES]
            real[name] = parents[0]
    assert drawn == real


def test_the_tree_says_what_may_be_retried() -> None:
    text = errors.__doc__ or ""
    drawn = {m[1] for m in re.finditer(r"── (\w+) .*\(retryable\)", text)}
    assert drawn == {name for name, kind in CLASSES.items() if kind().retryable}


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_an_error_without_a_message_says_its_docstring(kind: type[SeatError]) -> None:
    sentence = str(inspect.getdoc(kind)).partition("\n")[0].rstrip(".")
    # As other messages are written: it may come behind `seatkeeper: ` or a model's name.
    assert str(kind()) == sentence[0].lower() + sentence[1:]
    assert str(kind("because")) == "because"


def rpc_error(code: Code, message: str = "reported", *details: Message) -> aio.AioRpcError:
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    trailing = aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    return aio.AioRpcError(code, aio.Metadata(), trailing, message)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.INVALID_ARGUMENT, errors.InvalidArgument),
        (Code.ALREADY_EXISTS, errors.AlreadyExists),
        (Code.FAILED_PRECONDITION, errors.InUse),
        (Code.ABORTED, errors.Changed),
        (Code.PERMISSION_DENIED, errors.NotYours),
        (Code.UNAUTHENTICATED, errors.TokenInvalid),
        (Code.RESOURCE_EXHAUSTED, errors.ServiceUnavailable),  # a connection that was given up
        (Code.NOT_FOUND, errors.UsageError),
        (Code.UNAVAILABLE, errors.ServiceUnavailable),
        (Code.DEADLINE_EXCEEDED, errors.ServiceUnavailable),
        (Code.INTERNAL, errors.ServiceUnavailable),
        (Code.UNKNOWN, errors.ServiceUnavailable),
    ],
)
def test_a_code_without_details_has_a_meaning(code: Code, kind: type[SeatError]) -> None:
    error = from_rpc(aio.AioRpcError(code, aio.Metadata(), aio.Metadata(), "reported"))
    assert type(error) is kind
    assert str(error) == "reported"


@pytest.mark.parametrize(
    ("resource", "kind"),
    [
        ("pool", errors.PoolNotFound),
        ("session", errors.SessionLost),
        ("engine", errors.EngineNotFound),
        ("grant", errors.SeatLost),
        ("moon", errors.UsageError),
    ],
)
def test_what_was_not_found_is_named_by_the_details(
    resource: str, kind: type[SeatError]
) -> None:
    info = error_details_pb2.ResourceInfo(resource_type=resource, resource_name="x")
    assert type(from_rpc(rpc_error(Code.NOT_FOUND, "reported", info))) is kind


@pytest.mark.parametrize("prefix", ["", "DENIAL_REASON_"])
def test_a_denial_is_known_by_its_reason(prefix: str) -> None:
    info = error_details_pb2.ErrorInfo(domain="seatkeeper", reason=f"{prefix}NO_SEAT_FREE")
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=4))
    error = from_rpc(rpc_error(Code.RESOURCE_EXHAUSTED, "reported", info, retry))
    assert isinstance(error, errors.NoSeatFree)
    assert error.retry_after == timedelta(seconds=4)


def test_another_domains_reason_is_not_ours() -> None:
    info = error_details_pb2.ErrorInfo(domain="proxy", reason="NO_SEAT_FREE")
    assert (
        type(from_rpc(rpc_error(Code.RESOURCE_EXHAUSTED, "", info)))
        is errors.ServiceUnavailable
    )


def test_a_malformed_field_is_named() -> None:
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="spec.seats", description="too many")
    error = from_rpc(rpc_error(Code.INVALID_ARGUMENT, "reported", bad))
    assert isinstance(error, errors.InvalidArgument)
    assert error.field == "spec.seats"


def test_details_win_over_what_a_code_means_for_one_call() -> None:
    overrides = {Code.NOT_FOUND: errors.SeatLost}
    session = error_details_pb2.ResourceInfo(resource_type="session")
    assert type(from_rpc(rpc_error(Code.NOT_FOUND), overrides)) is errors.SeatLost
    assert (
        type(from_rpc(rpc_error(Code.NOT_FOUND, "", session), overrides)) is errors.SessionLost
    )


def test_details_that_contradict_the_status_are_left_out() -> None:
    error = rpc_error(Code.UNAVAILABLE, "one", error_details_pb2.RetryInfo())
    torn = aio.AioRpcError(Code.INTERNAL, aio.Metadata(), error.trailing_metadata(), "another")
    assert type(from_rpc(torn)) is errors.ServiceUnavailable


@pytest.mark.parametrize("reason", seat_pb2.DenialReason.values())
def test_every_denial_has_an_error_of_its_own(reason: seat_pb2.DenialReason.ValueType) -> None:
    denied = seat_pb2.Denied(grant_id="g", reason=reason, message="reported")
    error = from_denied(denied)
    assert str(error) == "reported"
    assert (type(error) is SeatError) == (
        reason == seat_pb2.DenialReason.DENIAL_REASON_UNSPECIFIED
    )


def test_durations_keep_their_fractions() -> None:
    assert seconds(as_duration(2.25)) == 2.25
    assert seconds(as_duration(0.0)) == 0.0


def test_a_reason_of_a_newer_service_is_reported_as_it_is() -> None:
    denied = seat_pb2.Denied(grant_id="g", message="a reason of tomorrow")
    # As an older client reads it from the wire.
    denied.MergeFromString(b"\x10\x63")
    error = from_denied(denied)
    assert type(error) is SeatError
    assert str(error) == "a reason of tomorrow"
