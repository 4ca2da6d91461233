"""What cannot be built is refused by name, affects no other build, and leaves nothing behind."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from onnx import TensorProto
from tests.agent.site import (
    Call,
    Refusal,
    Site,
    build,
    header,
    is_idle,
    manifest_of,
    parts,
)
from tests.builder.models import (
    constant,
    dynamic_relu,
    external_constant,
    light_model,
    model,
    node,
    relu,
    relu_chain,
    value,
)

from seatkeeper.agent.main import Agent
from seatkeeper.v1 import build_pb2
from seatkeeper.v1 import build_service_pb2 as pb

Code = grpc.StatusCode
RELU = relu()
MATRIX = light_model("squeezenet")
DYNAMIC = dynamic_relu().SerializeToString()
LONG_NAME = "\N{CJK UNIFIED IDEOGRAPH-6237}" * 3_000


def with_operator(operator: str) -> bytes:
    odd = node(operator, ["x"], name="layer7/odd")
    return model(odd, inputs=[value("x", [1, 3, 3])]).SerializeToString()


NAN = float("nan")
CYCLE = model(
    node("Add", ["x", "b"], "a"), node("Relu", ["a"], "b"), node("Relu", ["b"])
).SerializeToString()
BAD_SHAPES = model(
    node("MatMul", ["x", "w"], name="layer9/matmul"),
    inputs=[value("x", [1, 4]), value("w", [3, 3])],
).SerializeToString()
DOUBLED = model(inputs=[value("x", [1, 4]), value("x", [1, 4])]).SerializeToString()
HUGE = model(
    node("ConstantOfShape", ["sizes"]),
    constants=[constant("sizes", [2**16, 2**20], TensorProto.INT64)],
).SerializeToString()
NOT_UTF8 = light_model("resnet50").replace(b"gpu_0", b"\xff\xfe\xfa_0")


def with_weights(tensor: TensorProto) -> bytes:
    return model(node("Add", ["x", "w"]), constants=[tensor]).SerializeToString()


def options(**changes: Any) -> build_pb2.BuildOptions:
    made = build_pb2.BuildOptions(backend="tensorrt_rtx", targets=["SM86"])
    made.MergeFrom(build_pb2.BuildOptions(**changes))
    return made


def profile(
    lowest: Sequence[int], best: Sequence[int], most: Sequence[int], name: str = "x"
) -> build_pb2.Profile:
    shape = build_pb2.ProfileShape(input=name, min=lowest, opt=best, max=most)
    return build_pb2.Profile(shapes=[shape])


async def assert_nothing_happened(site: Site, agent: Agent) -> None:
    assert site.claims == []
    assert await site.published() == []
    assert agent.build_runner.store.keys() == []
    assert is_idle(agent)


@pytest.mark.parametrize(
    ("bad", "reason", "complaint"),
    [
        (light_model("squeezenet")[:9_000], "model_truncated", "at byte 9000"),
        (b"hello world", "model_not_onnx", "not an ONNX model"),
        (b"", "model_not_onnx", "empty"),
        (with_operator("Det"), "operator_unsupported", "Det (node 'layer7/odd')"),
        (with_operator(LONG_NAME), "", ""),
        (model(outputs=[]).SerializeToString(), "model_invalid", "no outputs"),
        (CYCLE, "model_invalid", "topological"),
        (BAD_SHAPES, "model_invalid", "node 'layer9/matmul'"),
        (model(opset=99).SerializeToString(), "opset_unsupported", "opset 99"),
        (with_weights(constant("w", [1, NAN, 1, 1])), "model_invalid", "'w' contains NaN"),
        (DOUBLED, "model_invalid", "'x' is 2 times among the inputs"),
        (HUGE, "model_too_complex", "274877906944 bytes"),
        (NOT_UTF8, "model_invalid", "not UTF-8"),
        (with_weights(external_constant("w", "../w.bin")), "model_external_data", "'w'"),
        (with_weights(external_constant("w", "/etc/passwd")), "model_external_data", "'w'"),
        (with_weights(external_constant("w", "job.json")), "model_external_data", "'w'"),
    ],
    ids=[
        *("truncated", "not_onnx", "empty", "unsupported", "unsupported_at_length"),
        *("no_outputs", "cycle", "bad_shapes", "opset_99", "nan", "doubled_input", "256_gib"),
        *("corrupt_names", "external_above", "external_absolute", "external_bare"),
    ],
)
async def test_a_bad_model_is_refused_by_name(
    site: Site, agent: Agent, bad: bytes, reason: str, complaint: str
) -> None:
    grant = await site.grant()
    refusal = await build(agent, grant.token, bad).refused()
    assert refusal.code is Code.INVALID_ARGUMENT, refusal
    assert refusal.reason == reason or not reason
    assert complaint in refusal.message
    assert violated(refusal) == "model"
    await assert_nothing_happened(site, agent)
    assert not (await build(agent, grant.token, RELU).result()).cached


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"backend": "tvm"}, "backend_unknown"),
        ({"backend": LONG_NAME}, "backend_unknown"),
        ({"targets": ["SM99"]}, "target_unsupported"),
        ({"targets": [LONG_NAME]}, "target_unsupported"),
        ({"profiles": [profile([8, 4], [4, 4], [2, 4])]}, "profile_invalid"),
        ({"profiles": [profile([0, 4], [4, 4], [8, 4])]}, "profile_invalid"),
        ({"profiles": [profile([2, 4], [1, 4], [3, 4])]}, "profile_invalid"),
        ({"profiles": [profile([2, 4], [4, 4], [3, 4])]}, "profile_invalid"),
        ({"profiles": [profile([1, 4], [2, 4], [1 << 40, 4])]}, "profile_invalid"),
        (
            {"profiles": [profile([1, 4], [2, 4], [3, 4])], "workspace_bytes": 1 << 60},
            "option_invalid",
        ),
        ({"profiles": [profile([1, 4], [2, 4], [3, 4], "z")]}, "profile_unknown_input"),
        ({"profiles": [profile([1, 9], [2, 9], [3, 9])]}, "profile_mismatch"),
        ({"profiles": [profile([1], [2], [3])]}, "profile_mismatch"),
        ({"profiles": []}, "profile_missing_input"),
        ({"profiles": [profile([1, 4], [2, 4], [3, 4])] * 17}, "profile_invalid"),
        (
            {"profiles": [profile([1, 4], [2, 4], [3, 4])], "workspace_bytes": -1},
            "option_invalid",
        ),
        (
            {"profiles": [profile([1, 4], [2, 4], [3, 4])], "optimisation_level": 6},
            "option_invalid",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_options_that_cannot_be_built_are_refused_by_name(
    site: Site, agent: Agent, changes: dict[str, Any], reason: str
) -> None:
    grant = await site.grant()
    call = build(agent, grant.token, DYNAMIC, options=options(**changes))
    refusal = await call.refused()
    assert refusal.code is Code.INVALID_ARGUMENT, refusal
    assert refusal.reason == reason
    assert violated(refusal) == "options"
    await assert_nothing_happened(site, agent)


async def test_a_byte_of_workspace_is_not_enough_for_the_compiler(
    site: Site, agent: Agent
) -> None:
    grant = await site.grant()
    call = build(agent, grant.token, MATRIX, options=options(workspace_bytes=1))
    refusal = await call.refused()
    assert refusal.reason == "compiler_refused", refusal
    await assert_nothing_happened(site, agent)


async def test_a_model_that_crashes_the_library_costs_its_own_build_alone(
    site: Site, agent: Agent
) -> None:
    """A chain on a short stack is a real crash of the real library."""
    agent.build_runner.limits = replace(agent.build_runner.limits, stack_bytes=2 << 20)
    grant = await site.grant()
    refusal = await build(agent, grant.token, relu_chain(1_000)).refused()
    assert refusal.reason == "compiler_crashed", refusal
    assert "SIGSEGV" in refusal.message
    await assert_nothing_happened(site, agent)
    assert not (await build(agent, grant.token, RELU).result()).cached


async def test_no_target_is_refused(site: Site, agent: Agent) -> None:
    grant = await site.grant()
    nothing = build_pb2.BuildOptions(backend="tensorrt_rtx")
    refusal = await build(agent, grant.token, RELU, options=nothing).refused()
    assert (refusal.code, refusal.reason) == (Code.INVALID_ARGUMENT, "target_unsupported")


async def test_a_backend_that_this_agent_lacks_is_refused(site: Site, agent: Agent) -> None:
    agent.build_runner.backends = {}
    grant = await site.grant()
    refusal = await build(agent, grant.token, RELU).refused()
    assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "backend_missing")
    await assert_nothing_happened(site, agent)


async def test_a_target_that_this_host_lacks_is_refused_by_name(
    site: Site, agent: Agent
) -> None:
    """As that of `tensorrt`, which compiles for its own GPU alone."""
    backend = agent.build_runner.backends["tensorrt_rtx"]
    agent.build_runner.backends = {
        "tensorrt_rtx": pb.BackendInfo(version=backend.version, targets=["SM89"])
    }
    grant = await site.grant()
    refusal = await build(agent, grant.token, RELU).refused()
    assert (refusal.code, refusal.reason) == (Code.INVALID_ARGUMENT, "target_unsupported")
    assert "SM89" in refusal.message
    await assert_nothing_happened(site, agent)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model_sha256": hashlib.sha256(b"another").hexdigest()}, "model_sha256"),
        ({"model_sha256": ""}, "model_sha256"),
        ({"model_sha256": "AB" * 32}, "model_sha256"),
        ({"model_sha256": "../" * 21 + "x"}, "model_sha256"),
        ({"model_size_bytes": -1}, "model_size_bytes"),
        ({"model_size_bytes": len(RELU) - 1}, "model_chunk"),
        ({"model_size_bytes": len(RELU) + 1}, "model"),
        ({"model_size_bytes": 0}, "model"),
        ({"model_name": ""}, "model_name"),
        ({"model_name": "folder/"}, "model_name"),
        ({"model_name": "x" * 256}, "model_name"),
        ({"model_name": "\x1b[2J.onnx"}, "model_name"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_a_header_that_is_not_true_is_refused_by_field(
    site: Site, agent: Agent, changes: dict[str, Any], field: str
) -> None:
    grant = await site.grant()
    refusal = await build(agent, grant.token, RELU, **changes).refused()
    assert refusal.code is Code.INVALID_ARGUMENT, refusal
    assert violated(refusal) == field
    await assert_nothing_happened(site, agent)


@pytest.mark.parametrize("name", ["/etc/models/net.onnx", "..\\..\\net.onnx", "net.onnx"])
async def test_of_a_model_s_path_only_its_name_is_kept(
    site: Site, agent: Agent, name: str
) -> None:
    grant = await site.grant()
    done = await build(agent, grant.token, RELU, model_name=name).result()
    assert manifest_of(done.manifest).model_name == "net.onnx"


async def test_a_build_begins_with_its_header(site: Site, agent: Agent) -> None:
    for requests in (
        [pb.BuildRequest(model_chunk=RELU)],
        [pb.BuildRequest()],
        [],
    ):
        refusal = await Call(agent, requests).refused()
        assert refusal.code is Code.INVALID_ARGUMENT, refusal
        assert violated(refusal) == "part"
    await assert_nothing_happened(site, agent)


async def test_a_build_has_one_header(site: Site, agent: Agent) -> None:
    grant = await site.grant()
    first, chunk = parts(header(grant.token, RELU), RELU)
    for requests in ([first, first, chunk], [first, pb.BuildRequest(), chunk]):
        refusal = await Call(agent, requests).refused()
        assert refusal.code is Code.INVALID_ARGUMENT, refusal
        assert violated(refusal) == "part"
        await assert_nothing_happened(site, agent)


async def test_a_model_may_come_in_pieces_of_any_size(site: Site, agent: Agent) -> None:
    grant = await site.grant()
    first = pb.BuildRequest(header=header(grant.token, RELU))
    pieces = [b"", *(RELU[at : at + 7] for at in range(0, len(RELU), 7)), b""]
    requests = [first, *(pb.BuildRequest(model_chunk=piece) for piece in pieces)]
    assert not (await Call(agent, requests).result()).cached


async def test_a_model_of_many_megabytes_is_built(site: Site, agent: Agent) -> None:
    """More than one message and more than any buffer on the way."""
    weights = build_large_model(24 << 20)
    grant = await site.grant()
    done = await build(agent, grant.token, weights).result()
    assert manifest_of(done.manifest).file.size_bytes > 24 << 20


def violated(refusal: Refusal) -> str:
    """The field that a refusal names."""
    detail = refusal.detail(error_details_pb2.BadRequest)
    assert detail is not None, refusal
    (violation,) = detail.field_violations
    assert violation.description
    return str(violation.field)


def build_large_model(size_bytes: int) -> bytes:
    weights = TensorProto(name="w", dims=[size_bytes // 4], data_type=TensorProto.FLOAT)
    weights.raw_data = b"\x00\x00\x80\x3f" * (size_bytes // 4)
    made = model(node("Add", ["x", "w"]), inputs=[value("x", [1])], constants=[weights])
    return made.SerializeToString()
