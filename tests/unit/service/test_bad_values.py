"""Bad values in every field of every call: answered with a code that the call lists, and never taken.

The fields come from the descriptors, so one that is added is tried as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from tests.tree import ROOT
from tests.unit.core.test_grpc_handlers import methods
from tests.unit.kit import POOL, uuid7
from tests.unit.services import (
    Services,
    Who,
    acquire_of,
    duration,
    open_of,
    ref_of,
    refused,
)

from seatkeeper.v1 import build_pb2, build_service_pb2
from seatkeeper.v1 import engine_service_pb2 as engine_pb
from seatkeeper.v1 import pool_service_pb2 as pool_pb
from seatkeeper.v1 import seat_service_pb2 as seat_pb

Code = grpc.StatusCode
DEADLINE = 2.0
PROTO = ROOT / "proto/seatkeeper/v1"
TEXTS = ["", "\0", "\x1b[2J", "\u202e", "../../x", "x" * 100_000, "?", "é" * 300]
NUMBERS = [-1, 0, 2**31 - 1, -(2**31)]
LARGE = [2**63 - 1, -(2**63)]
BYTES = [b"", b"\xff", b"x" * 100_000]
COMMON = {Code.INVALID_ARGUMENT, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED}
TAKES_ANYTHING = {"SessionRequest", "DrainNodeRequest"}
"""Tried elsewhere: the stream is no call of one message, and a drained node is gone."""


@cache
def listed(call: str) -> frozenset[grpc.StatusCode]:
    """The codes in a call's comment."""
    for file in PROTO.glob("*_service.proto"):
        comment: list[str] = []
        for line in map(str.strip, file.read_text().splitlines()):
            if line.startswith("//"):
                comment.append(line)
            elif re.match(rf"rpc {call}\(", line):
                names = re.findall(r"`([A-Z_]+)`", " ".join(comment).partition("Codes:")[2])
                return frozenset(
                    getattr(Code, name) for name in names if name in Code.__members__
                )
            else:
                comment = []
    raise AssertionError(f"no comment for {call}")


def good(who: Who, name: str) -> Message | None:
    """A request that is as it should be, for a session that is open."""
    mine = who.credentials
    manifest = build_pb2.EngineManifest(
        key="0" * 64, agent_id="agent", pool=POOL, grant_id=uuid7(1), fence=1
    )
    signed = build_pb2.SignedManifest(manifest=manifest.SerializeToString())
    requests: dict[str, Message] = {
        "OpenSession": seat_pb.OpenSessionRequest(open=open_of(who)),
        "Acquire": seat_pb.AcquireRequest(credentials=mine, acquire=acquire_of(7)),
        "Renew": seat_pb.RenewRequest(
            credentials=mine, renew=seat_pb.Renew(sequence=1, tokens_for=[ref_of(1)])
        ),
        "Release": seat_pb.ReleaseRequest(
            credentials=mine, release=seat_pb.Release(grant=ref_of(8))
        ),
        "CloseSession": seat_pb.CloseSessionRequest(credentials=mine),
        "CreatePool": pool_pb.CreatePoolRequest(spec=pool_pb.PoolSpec(name="q", seats=1)),
        "UpdatePool": pool_pb.UpdatePoolRequest(spec=pool_pb.PoolSpec(name=POOL, seats=1)),
        "ApplyPools": pool_pb.ApplyPoolsRequest(
            changes=[
                pool_pb.PoolChange(name="r", spec=pool_pb.PoolSpec(name="r", seats=1)),
            ]
        ),
        "DeletePool": pool_pb.DeletePoolRequest(name=POOL),
        "GetPool": pool_pb.GetPoolRequest(name=POOL),
        "WatchPool": pool_pb.WatchPoolRequest(name=POOL),
        "ExplainTicket": pool_pb.ExplainTicketRequest(pool=POOL, grant_id=uuid7(1)),
        "RemoveTicket": pool_pb.RemoveTicketRequest(pool=POOL, grant_id=uuid7(1), reason="why"),
        "DrainPool": pool_pb.DrainPoolRequest(name=POOL, reason="why"),
        "OpenPool": pool_pb.OpenPoolRequest(name=POOL, reason="why"),
        "MoveTicket": pool_pb.MoveTicketRequest(
            pool=POOL, grant_id=uuid7(1), first=True, reason="why", move_id=uuid7(2)
        ),
        "ReleaseGrant": pool_pb.ReleaseGrantRequest(
            pool=POOL, grant_id=uuid7(1), reason="why", now=True
        ),
        "RevokeGrant": pool_pb.RevokeGrantRequest(
            pool=POOL, grant_id=uuid7(1), reason="why", notice=duration(timedelta(seconds=9))
        ),
        "WithdrawRevoke": pool_pb.WithdrawRevokeRequest(
            pool=POOL, grant_id=uuid7(1), reason="why"
        ),
        "ExtendGrant": pool_pb.ExtendGrantRequest(
            pool=POOL, grant_id=uuid7(1), reason="why", extended=duration(timedelta(hours=1))
        ),
        "RegisterAgent": engine_pb.RegisterAgentRequest(
            credentials=mine,
            agent=build_service_pb2.AgentInfo(agent_id="agent", address="a:1"),
        ),
        "DrainAgent": engine_pb.DrainAgentRequest(agent_id="agent"),
        "ClaimGrant": engine_pb.ClaimGrantRequest(
            credentials=mine, agent_id="agent", token="t", claim_id=uuid7(9)
        ),
        "YieldGrant": engine_pb.YieldGrantRequest(
            credentials=mine, grant=ref_of(1), claim_id=uuid7(9)
        ),
        "PublishEngine": engine_pb.PublishEngineRequest(
            credentials=mine, manifest=signed, claim_id=uuid7(9)
        ),
        "GetEngine": engine_pb.GetEngineRequest(key="0" * 64),
        "ListEngines": engine_pb.ListEnginesRequest(page_size=1),
    }
    return requests.get(name)


def spoiled(message: Message) -> Iterator[tuple[str, Message]]:
    """Copies of a message with one field each that is not as it should be."""
    for field in message.DESCRIPTOR.fields:
        for value in _values(field):
            copy = type(message)()
            copy.CopyFrom(message)
            _put(copy, field, value)
            yield f"{field.name}={str(value)[:30]!r}", copy
        if field.message_type is not None and not field.is_repeated:
            inner = getattr(message, field.name)
            for name, wrong in spoiled(inner):
                copy = type(message)()
                copy.CopyFrom(message)
                getattr(copy, field.name).CopyFrom(wrong)
                yield f"{field.name}.{name}", copy


def _values(field: Any) -> list[Any]:
    kind = field.cpp_type
    values: list[Any]
    if kind == FieldDescriptor.CPPTYPE_STRING:
        values = BYTES if field.type == FieldDescriptor.TYPE_BYTES else TEXTS
    elif kind == FieldDescriptor.CPPTYPE_INT32:
        values = NUMBERS
    elif kind == FieldDescriptor.CPPTYPE_INT64:
        values = NUMBERS + LARGE
    elif kind == FieldDescriptor.CPPTYPE_ENUM:
        values = [999, -1]
    elif kind == FieldDescriptor.CPPTYPE_MESSAGE and not field.is_repeated:
        return [None]
    elif _is_map(field):
        return [{key: key} for key in TEXTS] + [{str(number): "" for number in range(50)}]
    elif kind == FieldDescriptor.CPPTYPE_MESSAGE:
        assert field.message_type is not None
        return [[GetMessageClass(field.message_type)()] * count for count in (1, 20_000)]
    else:
        return []
    return (
        # Of the longest no more than fit into a message: others the transport refuses.
        [[value] * count for value in values for count in (1, 40)]
        if field.is_repeated
        else values
    )


def _is_map(field: Any) -> bool:
    """A map of texts, which is all that there is so far."""
    entry = field.message_type
    return entry is not None and bool(entry.GetOptions().map_entry)


def _put(message: Message, field: Any, value: Any) -> None:
    message.ClearField(field.name)
    if value is None:
        return
    if _is_map(field):
        getattr(message, field.name).update(value)
    elif field.is_repeated:
        getattr(message, field.name).extend(value)
    else:
        setattr(message, field.name, value)


CALLS = [
    method
    for method in methods()
    if method.containing_service is not None
    and method.containing_service.name != "PeerService"  # for those who know the secret alone
    and method.input_type.name not in TAKES_ANYTHING
]


@pytest.mark.parametrize("method", CALLS, ids=lambda method: method.name)
async def test_a_bad_value_in_any_field_gets_a_code_that_the_call_lists(
    services: Services, method: MethodDescriptor, caplog: pytest.LogCaptureFixture
) -> None:
    await services.pool(1)
    assert method.containing_service is not None
    path = f"/{method.containing_service.full_name}/{method.name}"
    who = await services.session()
    request = good(who, method.name)
    if request is None:
        assert not method.input_type.fields, f"no good request of {method.name} here: add one"
        return
    allowed = listed(method.name) | COMMON
    async with grpc.aio.insecure_channel(services.node.address) as channel:
        for name, wrong in spoiled(request):
            before = set(services.store._entries)
            failure = await _call(channel, path, method, wrong)
            if failure is None:
                continue
            assert failure.code in allowed, (method.name, name, failure)
            if failure.code is Code.DEADLINE_EXCEEDED:
                continue  # it waits, or listens
            info = failure.details["ErrorInfo"]
            assert isinstance(info, error_details_pb2.ErrorInfo)
            assert (info.domain, bool(info.reason)) == ("seatkeeper", True)
            if failure.code is Code.INVALID_ARGUMENT and "TOO_MANY" not in info.reason:
                assert set(services.store._entries) == before, (method.name, name, "was taken")
    assert not [r for r in caplog.records if r.exc_info], "a traceback"


async def _call(
    channel: grpc.aio.Channel, path: str, method: MethodDescriptor, request: Message
) -> Any:
    """Call; return how it failed, or None."""
    connection: Any = channel
    data = request.SerializeToString()
    if method.server_streaming:
        listening = connection.unary_stream(path)(data, timeout=DEADLINE)

        async def first() -> object:
            return await listening.read()

        call: Any = first()
    else:
        call = connection.unary_unary(path)(data, timeout=DEADLINE)
    try:
        return await refused(call)
    except pytest.fail.Exception:  # it did not fail
        return None


DURATIONS = [
    (5, 10**9),
    (5, -1),
    (-5, 1),
    (0, -1),
    (5, 2**31 - 1),
    (-(2**63), 0),
    (2**63 - 1, 999_999_999),
    (10**9, 0),
]


@pytest.mark.parametrize(("seconds", "nanos"), DURATIONS)
async def test_a_duration_that_is_none_is_not_taken(
    services: Services, seconds: int, nanos: int
) -> None:
    await services.pool(1)
    who, stranger = await services.session(), services.stranger()
    opening = open_of(stranger)
    opening.ttl.seconds, opening.ttl.nanos = seconds, nanos
    failure = await refused(
        services.seats.OpenSession(seat_pb.OpenSessionRequest(open=opening))
    )
    assert (failure.code, failure.fields) == (Code.INVALID_ARGUMENT, ["ttl"])
    acquire = acquire_of(1)
    acquire.wait.seconds, acquire.wait.nanos = seconds, nanos
    request = seat_pb.AcquireRequest(credentials=who.credentials, acquire=acquire)
    failure = await refused(services.seats.Acquire(request))
    assert (failure.code, failure.fields) == (Code.INVALID_ARGUMENT, ["wait"])
    assert (await services.look()).held == 0
