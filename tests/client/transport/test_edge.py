"""Text that cannot be sent is refused by its name, before anybody is asked, in every public method."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from seatkeeper.client import AsyncSeatClient, SeatClient
from seatkeeper.client.builds.agents import AsyncAgent
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.v1 import build_pb2
from seatkeeper.v1 import pool_service_pb2 as pool_pb2

WRONG = "caf\udce9"
"""What Python makes of an argument in Latin-1."""
NOT_SENT = {"to", "model", "addresses", "address"}
"""Names of files, and addresses, which have errors of their own."""
GIVEN: dict[str, Any] = {
    "model": b"model",
    "options": build_pb2.BuildOptions(),
    "to": "/nowhere/engine",
    "seats": 1,
    "notice": timedelta(seconds=9),
    "by": timedelta(hours=1),
}


def parts(client: object) -> Iterator[tuple[str, object]]:
    yield "", client
    for name in ("pools.", "cluster.", "engines.", "seats."):
        yield name, getattr(client, name[:-1])


def text_parameters(target: object) -> Iterator[tuple[str, str]]:
    for name, method in inspect.getmembers(target, callable):
        if name.startswith("_") or inspect.isclass(method):
            continue
        for parameter in inspect.signature(method).parameters.values():
            if parameter.annotation in ("str", "str | None") and parameter.name not in NOT_SENT:
                yield name, parameter.name


def right(parameter: inspect.Parameter) -> object:
    """What may be given for a parameter."""
    if parameter.annotation == "Mapping[str, int]":
        return {"a": 1, "b": 1}
    if parameter.name == "pools":
        return ["a", "b"]
    return GIVEN.get(parameter.name, "x")


def arguments(method: Any, wrong: str) -> dict[str, Any]:
    """What a method must be given, with one that is wrong."""
    return {
        parameter.name: WRONG if parameter.name == wrong else right(parameter)
        for parameter in inspect.signature(method).parameters.values()
        if parameter.default is inspect.Parameter.empty or parameter.name == wrong
    }


def every_case(client: object) -> list[tuple[str, str, str]]:
    return [
        (prefix, name, field)
        for prefix, part in parts(client)
        for name, field in text_parameters(part)
    ]


ASYNC = every_case(AsyncSeatClient("127.0.0.1:1"))
with SeatClient("127.0.0.1:1") as _client:
    SYNC = every_case(_client)


def test_they_are_found() -> None:
    assert ("pools.", "create", "description") in ASYNC
    assert ("", "seat", "project") in SYNC
    assert len(ASYNC) > 20
    assert len(SYNC) > 20


@pytest.mark.parametrize(("prefix", "name", "field"), ASYNC)
async def test_a_method_refuses_text_that_is_none(prefix: str, name: str, field: str) -> None:
    async with AsyncSeatClient("127.0.0.1:1") as client:
        part = dict(parts(client))[prefix]
        method = getattr(part, name)
        with pytest.raises(InvalidArgument, match="is not UTF-8") as refused:
            await _done(method(**arguments(method, field)))
    assert refused.value.field == field


@pytest.mark.parametrize(("prefix", "name", "field"), SYNC)
def test_a_blocking_method_does_so_too(prefix: str, name: str, field: str) -> None:
    with SeatClient("127.0.0.1:1") as client:
        method = getattr(dict(parts(client))[prefix], name)
        with pytest.raises(InvalidArgument, match="is not UTF-8") as refused:
            for _ in _drained(method(**arguments(method, field))):
                pass
    assert refused.value.field == field


@pytest.mark.parametrize("field", ["holder", "project"])
def test_so_does_a_client(field: str) -> None:
    given: Any = {field: WRONG}
    for kind in (AsyncSeatClient, SeatClient):
        with pytest.raises(InvalidArgument, match="is not UTF-8") as refused:
            kind("127.0.0.1:1", **given)
        assert refused.value.field == field


def test_so_does_an_agent() -> None:
    assert set(text_parameters(AsyncAgent)) == {("fetch", "key")}
    agent: Any = AsyncAgent
    with pytest.raises(InvalidArgument):
        agent.fetch(None, WRONG)


async def test_text_that_is_no_text_is_refused_by_name() -> None:
    async with AsyncSeatClient("127.0.0.1:1") as client:
        name: Any = 5
        with pytest.raises(InvalidArgument, match="name must be text, not 5"):
            await client.pools.get(name)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda client, number: client.pools.create("p", seats=number), "seats"),
        (lambda client, number: client.pools.update("p", seats=number), "seats"),
        (
            lambda client, number: client.pools.replace(
                pool_pb2.PoolSpec(), expected_revision=number
            ),
            "expected_revision",
        ),
        (
            lambda client, number: client.pools.release_now(
                "p", "g", reason="gone", fence=number
            ),
            "fence",
        ),
        (lambda client, number: client.acquire("p", seats=number), "seats"),
        (lambda client, number: client.acquire("p", priority=number), "priority"),
        (
            lambda client, number: client.build(
                b"model", build_pb2.BuildOptions(), priority=number
            ),
            "priority",
        ),
    ],
)
@pytest.mark.parametrize("number", [2**63, -(2**70), 1.5, "3"])
def test_a_number_that_the_wire_has_no_room_for_is_refused_by_name(
    call: Any,
    field: str,
    number: Any,
) -> None:
    with SeatClient("127.0.0.1:1") as client:
        with pytest.raises(InvalidArgument, match="must be a whole number") as refused:
            call(client, number)
        assert refused.value.field == field


def test_no_number_of_a_public_method_goes_unchecked() -> None:
    client = AsyncSeatClient("127.0.0.1:1")
    names = {
        (prefix, name, parameter.name)
        for prefix, part in parts(client)
        for name, method in inspect.getmembers(part, callable)
        if not name.startswith("_") and not inspect.isclass(method)
        for parameter in inspect.signature(method).parameters.values()
        if parameter.annotation in ("int", "int | None")
    }
    assert {(prefix, field) for prefix, _, field in names if not prefix} == {
        ("", "seats"),
        ("", "priority"),
    }
    assert {name for prefix, name, _ in names if prefix} == {
        *("create", "update", "replace", "release_now", "revoke", "extend")
    }


@pytest.mark.parametrize("wait", [-1, float("nan"), timedelta(days=8), "5"])
def test_neither_does_a_wait(wait: Any) -> None:
    with SeatClient("127.0.0.1:1") as client:
        for call in (
            lambda: client.acquire("p", wait=wait),
            lambda: client.build(b"model", build_pb2.BuildOptions(), wait=wait),
        ):
            with pytest.raises(InvalidArgument, match="wait must be from 0 s to 7 days"):
                call()


async def test_a_model_may_have_any_name(tmp_path: Path) -> None:
    from seatkeeper.client.builds.model import Model

    file = tmp_path / "mod\udce9le.onnx"
    file.write_bytes(b"model")
    assert Model.read(file, None).name == "mod%e9le.onnx"
    with pytest.raises(InvalidArgument, match=r"mod\\xe9le.onnx2: No such file"):
        Model.read(tmp_path / "mod\udce9le.onnx2", None)


async def _done(result: Any) -> None:
    if inspect.isawaitable(result):
        await result
    elif hasattr(result, "__aiter__"):
        async for _ in result:
            pass


def _drained(result: Any) -> Any:
    return result if hasattr(result, "__iter__") else ()
