"""A request that cannot be sent is refused before anything is asked."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from seatkeeper.client import AsyncSeatClient, SeatClient
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.v1 import build_pb2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seats", 0),
        ("seats", 2**40),
        ("seats", 1.5),
        ("seats", "1"),
        ("priority", 2**40),
        ("priority", "high"),
        ("wait", -1.0),
        ("labels", "team=cv"),
        ("labels", {"team": 7}),
        ("labels", {7: "team"}),
        ("labels", {"team": "caf\udce9"}),
    ],
)
async def test_a_number_that_does_not_fit_is_refused_by_its_name(
    field: str, value: object
) -> None:
    arguments: dict[str, Any] = {field: value}
    async with AsyncSeatClient("127.0.0.1:1") as client:
        with pytest.raises(InvalidArgument) as refused:
            await client.acquire("tensorrt", **arguments)
    assert refused.value.field == field


@pytest.mark.parametrize("kind", [AsyncSeatClient, SeatClient])
def test_every_argument_is_named_by_help(kind: type[AsyncSeatClient | SeatClient]) -> None:
    how = {"project": "", "priority": 0, "labels": None, "wait": None, "on_queued": None}
    how |= {"cost_class": ""}
    seats = how | {"seats": 1, "on_state": None, "token": False, "work_key": ""}
    build = {
        "to": None,
        "model_name": None,
        "pool": None,
        "sample_files": (),
        "on_progress": None,
    }
    for name, wanted in {
        "acquire": seats,
        "seat": seats | {"check": True},
        "build": how | build,
    }.items():
        parameters = inspect.signature(getattr(kind, name)).parameters.values()
        keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        assert keywords == wanted, name


async def test_an_argument_that_does_not_exist_is_refused_by_its_name() -> None:
    wrong: dict[str, Any] = {"prority": 1}
    async with AsyncSeatClient("127.0.0.1:1") as client:
        with pytest.raises(TypeError, match="'prority'"):
            client.seat("tensorrt", **wrong)
        with pytest.raises(TypeError, match="'prority'"):
            await client.build(b"model", build_pb2.BuildOptions(), **wrong)
    for kind in (AsyncSeatClient, SeatClient):
        with pytest.raises(TypeError, match="'prority'"):
            kind.from_env(env={}, **wrong)
