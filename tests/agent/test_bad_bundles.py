"""Files of weights that cannot be: refused by name, with nothing taken and nothing left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from onnx import ModelProto, helper
from tests.agent.exchange import Exchange, external, header
from tests.agent.site import POOL, Refusal, Site, build, is_idle, workers
from tests.builder.models import model as made
from tests.builder.models import node, relu, value, weights_of, with_weights_outside

from seatkeeper.agent.main import Agent
from seatkeeper.artifacts.bundle import FILES_MAX
from seatkeeper.v1 import build_service_pb2 as pb

CONTENT = weights_of(16 * 8)
FILES = {"weights.bin": CONTENT}
MODEL = with_weights_outside(FILES)
Code = grpc.StatusCode


async def assert_refused(site: Site, agent: Agent, exchange: Exchange) -> Refusal:
    """It is refused, nothing is published, the seat is free, and the agent goes on."""
    refusal = await exchange.refused()
    assert refusal.code is Code.INVALID_ARGUMENT, refusal
    assert site.claims == []
    assert await site.published() == []
    assert agent.build_runner.store.keys() == []
    assert is_idle(agent)
    assert workers(agent) == []
    grant = await site.grant("next")
    assert not (await build(agent, grant.token, relu()).result()).cached
    await grant.release()
    assert site.service.held(POOL) == 1
    return refusal


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ([external("/etc/passwd", CONTENT)], "absolute"),
        ([external("../weights.bin", CONTENT)], "out of the model's folder"),
        ([external("a/../../weights.bin", CONTENT)], "out of the model's folder"),
        ([external("./weights.bin", CONTENT)], "shortest form"),
        ([external("a//weights.bin", CONTENT)], "shortest form"),
        ([external("a\\weights.bin", CONTENT)], "characters"),
        ([external("x" * 513, CONTENT)], "512 bytes"),
        ([external("", CONTENT)], "no name"),
        ([external("a", CONTENT), external("a", CONTENT)], "one path"),
        ([external("a", CONTENT), external("a/b", CONTENT)], "a file itself"),
        ([external("a", CONTENT, sha256="AB" * 32)], "hexadecimal"),
        ([external("a", CONTENT, size_bytes=-1)], "negative"),
        ([external("a", CONTENT), external("b", CONTENT, size_bytes=1)], "another size"),
        ([external(f"w{n}", CONTENT) for n in range(FILES_MAX + 1)], "more than 4096"),
    ],
    ids=range(14),
)
async def test_a_list_of_files_that_cannot_be_is_refused_unread(
    site: Site, agent: Agent, files: list[pb.ExternalFile], complaint: str
) -> None:
    grant = await site.grant()
    content = MODEL.SerializeToString()
    exchange = Exchange(
        agent, header(grant.token, content, {}, external_files=files), [content, CONTENT]
    )
    refusal = await assert_refused(site, agent, exchange)
    assert refusal.reason == "model_external_data"
    assert complaint in refusal.message
    assert exchange.wanted is None, "nothing was asked for"


async def test_a_file_of_the_model_s_hash_and_another_size_is_refused(
    site: Site, agent: Agent
) -> None:
    grant = await site.grant()
    content = MODEL.SerializeToString()
    files = [external("a", content, size_bytes=1)]
    exchange = Exchange(
        agent, header(grant.token, content, {}, external_files=files), [content]
    )
    refusal = await assert_refused(site, agent, exchange)
    assert violated(refusal) == "external_files"


async def test_bytes_that_are_not_those_of_the_hash_are_refused(
    site: Site, agent: Agent
) -> None:
    grant = await site.grant()
    content = MODEL.SerializeToString()
    exchange = Exchange(
        agent,
        header(grant.token, content, FILES),
        [content, CONTENT],
        cut=lambda each: each if each == content else bytes(len(each)),
    )
    refusal = await assert_refused(site, agent, exchange)
    assert violated(refusal) == "external_files"


@pytest.mark.parametrize(
    ("cut", "complaint"),
    [
        (lambda each: each[:-1], "511 bytes of the file"),
        (lambda each: each + b"x", "over the 512 bytes of the file"),
    ],
    ids=["fewer", "more"],
)
async def test_fewer_or_more_bytes_than_announced_are_refused(
    site: Site, agent: Agent, cut: Callable[[bytes], bytes], complaint: str
) -> None:
    grant = await site.grant()
    content = MODEL.SerializeToString()
    exchange = Exchange(
        agent,
        header(grant.token, content, FILES),
        [content, CONTENT],
        cut=lambda each: cut(each) if each == CONTENT else each,
    )
    refusal = await assert_refused(site, agent, exchange)
    assert complaint in refusal.message


def names(location: str, **entries: str) -> ModelProto:
    """The model, with its weights said to be elsewhere."""
    return with_weights_outside(FILES, location=location, **entries)


def with_nan() -> dict[str, bytes]:
    values = np.frombuffer(CONTENT, np.float32).copy()
    values[-1] = np.nan
    return {"weights.bin": values.tobytes()}


def shape_outside() -> tuple[ModelProto, dict[str, bytes]]:
    """A constant of 256 GiB, whose size is in a file."""
    size = np.array([1 << 36], np.int64).tobytes()
    shape = helper.make_tensor("size", 7, [1], [1])
    shape.ClearField("int64_data")
    shape.data_location = shape.EXTERNAL
    for key, text in (("location", "size.bin"), ("length", "8")):
        shape.external_data.add(key=key, value=text)
    nodes = (node("ConstantOfShape", ["size"], "c"), node("Add", ["x", "c"]))
    return made(*nodes, inputs=[value("x", [1])], constants=[shape]), {"size.bin": size}


BAD_PLACES: dict[str, tuple[Any, dict[str, bytes], str, str]] = {
    "not_sent": (names("other.bin"), FILES, "model_external_data", "was not sent"),
    "the_model": (names("model.onnx"), FILES, "model_external_data", "was not sent"),
    "of_the_host": (names("/etc/passwd"), FILES, "model_external_data", "absolute"),
    "above": (names("../empty"), FILES, "model_external_data", "out of the model's"),
    "dotted": (names("./weights.bin"), FILES, "model_external_data", "shortest form"),
    "memory": (names("*/_ORT_MEM_ADDR_/*"), FILES, "model_external_data", "characters"),
    "too_far": (names("weights.bin", offset="4"), FILES, "model_external_data", "ends at"),
    "negative": (names("weights.bin", offset="-4"), FILES, "model_external_data", "offset"),
    "huge": (names("weights.bin", length="9" * 19), FILES, "model_external_data", "ends at"),
    "less": (names("weights.bin", length="64"), FILES, "model_invalid", "instead of"),
    "unknown": (names("weights.bin", basepath="/"), FILES, "model_external_data", "basepath"),
    "nan": (names("weights.bin"), with_nan(), "model_invalid", "NaN"),
    "no_files": (MODEL, {}, "model_external_data", "was not sent"),
    "made_of_one": (*shape_outside(), "model_too_complex", "makes a constant"),
}


@pytest.mark.parametrize("case", BAD_PLACES)
async def test_a_place_that_is_not_in_a_file_that_was_sent_is_refused(
    site: Site, agent: Agent, case: str
) -> None:
    network, files, reason, complaint = BAD_PLACES[case]
    grant = await site.grant()
    content = network.SerializeToString()
    contents = [content, *files.values()]
    refusal = await assert_refused(
        site, agent, Exchange(agent, header(grant.token, content, files), contents)
    )
    assert refusal.reason == reason
    assert complaint in refusal.message


async def test_a_place_that_is_said_twice_is_refused(site: Site, agent: Agent) -> None:
    network = with_weights_outside(FILES)
    network.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    grant = await site.grant()
    content = network.SerializeToString()
    exchange = Exchange(agent, header(grant.token, content, FILES), [content, CONTENT])
    refusal = await assert_refused(site, agent, exchange)
    assert refusal.reason == "model_external_data"
    assert "twice" in refusal.message


def violated(refusal: Refusal) -> str:
    detail = refusal.detail(error_details_pb2.BadRequest)
    assert detail is not None, refusal
    (violation,) = detail.field_violations
    return str(violation.field)
