"""An engine of another precision, from the caller's samples to the signed manifest."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.agent.site import Call, Refusal, Site, header, is_idle
from tests.builder.models import conv_net, model, node, value

from seatkeeper.agent.main import Agent
from seatkeeper.artifacts.manifest import verify_engine_file
from seatkeeper.artifacts.plan import BuildPlan, parse_profile, plan_to_options
from seatkeeper.artifacts.precision import Precision, PrecisionPlan, Samples
from seatkeeper.client import samples_of
from seatkeeper.core.errors import BuildFailed, InvalidArgument, ModelRejected
from seatkeeper.v1 import build_pb2
from seatkeeper.v1 import build_service_pb2 as pb

MODEL = conv_net().SerializeToString()
MODEL_SHA256 = hashlib.sha256(MODEL).hexdigest()


def data(**arrays: Any) -> bytes:
    given = arrays or {
        "x": np.random.default_rng(3).normal(0, 1, (10, 1, 3, 8, 8)).astype(np.float32)
    }
    file = io.BytesIO()
    np.savez(file, **given)
    return file.getvalue()


DATA = data()
SENT = Samples(sha256=hashlib.sha256(DATA).hexdigest())


def options(precision: Precision, **wanted: Any) -> build_pb2.BuildOptions:
    plan = BuildPlan(
        backend="tensorrt_rtx",
        targets=("SM86",),
        profiles=(parse_profile("x=1x3x8x8:1x3x8x8:4x3x8x8"),),
        precision=PrecisionPlan(precision=precision, **{"tolerance": 0.05} | wanted),
    )
    return plan_to_options(plan)


async def test_half_precision_is_built_and_said_so(
    site: Site, agent: Agent, tmp_path: Path
) -> None:
    to = tmp_path / "half.engine"
    built = await site.client().build(MODEL, options(Precision.FP16), to=to)
    report = built.manifest.precision
    assert report.precision == "fp16"
    assert {share.precision: share.nodes for share in report.shares}["fp16"] >= 5
    assert not report.accuracy.proven
    assert 0 < report.accuracy.outputs[0].relative_l2 < 0.01
    published = await site.client().engines.get(built.key)
    assert verify_engine_file(to, published.manifest, agent.info.public_key) == built.manifest
    plain = await site.client().build(
        MODEL, options(Precision.MODEL, tolerance=0.01), to=tmp_path / "plain"
    )
    assert plain.key != built.key
    assert not plain.manifest.HasField("precision")
    assert is_idle(agent)


async def test_eight_bits_are_calibrated_with_what_the_caller_sends(
    site: Site, agent: Agent, tmp_path: Path
) -> None:
    file = tmp_path / "inputs.npz"
    file.write_bytes(DATA)
    assert samples_of(file) == SENT
    wanted = options(Precision.INT8, calibration=SENT)
    built = await site.client().build(MODEL, wanted, sample_files=[file])
    report = built.manifest.precision
    assert {share.precision: share.nodes for share in report.shares}["int8"] == 3
    assert report.accuracy.proven
    assert report.accuracy.samples == 2
    again = await site.client("bob").build(MODEL, wanted, sample_files=[DATA])
    assert again.cached
    assert is_idle(agent)


async def test_auto_says_what_it_tried(site: Site, agent: Agent) -> None:
    wanted = options(Precision.AUTO, calibration=SENT, tolerance=0.002)
    built = await site.client().build(MODEL, wanted, sample_files=[DATA])
    assert built.manifest.precision.precision == "fp16"
    refused = [reason.partition(":")[0] for reason in built.manifest.precision.refused]
    assert refused == ["int8+fp16", "int8"]
    assert built.manifest.options.precision.precision == "auto"


async def test_what_is_too_inaccurate_is_not_published(site: Site, agent: Agent) -> None:
    wanted = options(Precision.INT8, calibration=SENT, tolerance=1e-5)
    with pytest.raises(ModelRejected, match="most harm is done by"):
        await site.client().build(MODEL, wanted, sample_files=[DATA])
    assert await site.published() == []
    assert site.claims == []
    assert is_idle(agent)


@pytest.mark.parametrize(
    ("files", "said"),
    [([], "none of sample_files has that hash"), ([DATA, b"other"], "do not name the samples")],
)
async def test_files_that_are_not_those_of_the_options_take_no_seat(
    site: Site, agent: Agent, files: list[bytes], said: str
) -> None:
    with pytest.raises(InvalidArgument, match=said):
        await site.client().build(
            MODEL, options(Precision.INT8, calibration=SENT), sample_files=files
        )
    assert site.fence == 0


# On the wire ------------------------------------------------------------------------------


async def refused(site: Site, agent: Agent, content: bytes, **changes: Any) -> Refusal:
    """Have an agent refuse what is sent, and see that nothing is left of it."""
    grant = await site.grant()
    head = header(grant.token, MODEL, **changes)
    pieces = [content[at : at + (1 << 20)] for at in range(0, len(content), 1 << 20)]
    requests = [pb.BuildRequest(header=head)]
    requests += [pb.BuildRequest(model_chunk=piece) for piece in pieces]
    refusal = await Call(agent, requests).refused()
    assert await site.published() == []
    assert site.claims == []
    assert is_idle(agent)
    return refusal


def attached(content: bytes, **changes: Any) -> pb.Attachment:
    fields: dict[str, Any] = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
    }
    return pb.Attachment(**fields | changes)


INT8 = options(Precision.INT8, calibration=SENT)


@pytest.mark.parametrize(
    ("attachments", "said"),
    [
        ([], "are not the samples that the options name"),
        ([attached(b"other")], "are not the samples that the options name"),
        ([attached(DATA), attached(DATA)], "are not the samples that the options name"),
        ([attached(DATA, size_bytes=0)], "is empty"),
        ([attached(DATA, size_bytes=-1)], "is empty"),
    ],
)
async def test_attachments_that_are_not_named_are_refused(
    site: Site, agent: Agent, attachments: list[pb.Attachment], said: str
) -> None:
    refusal = await refused(site, agent, MODEL + DATA, options=INT8, attachments=attachments)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert said in refusal.message


async def test_samples_over_the_limit_are_refused_before_they_are_sent(
    site: Site, agent: Agent
) -> None:
    large = [attached(DATA, size_bytes=1 << 40)]
    refusal = await refused(site, agent, MODEL, options=INT8, attachments=large)
    assert refusal.reason == "samples_too_large"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (MODEL + DATA[:-1], "bytes of the file"),
        (MODEL, "0 bytes of the file"),
        (MODEL + DATA + b"x", "over the"),
        (MODEL + bytes(len(DATA)), "is not that of the bytes that came"),
    ],
    ids=["cut", "missing", "longer", "another"],
)
async def test_samples_that_are_not_what_the_header_says_are_refused(
    site: Site, agent: Agent, content: bytes, said: str
) -> None:
    grant = await site.grant()
    head = header(grant.token, MODEL, options=INT8, attachments=[attached(DATA)])
    rest = content[len(MODEL) :]
    requests = [pb.BuildRequest(header=head), pb.BuildRequest(model_chunk=MODEL)]
    requests += [pb.BuildRequest(model_chunk=rest)] if rest else []
    refusal = await Call(agent, requests).refused()
    assert said in refusal.message
    assert await site.published() == []
    assert site.claims == []
    assert is_idle(agent)


@pytest.mark.parametrize(
    ("content", "reason", "said"),
    [
        (b"not an archive", "samples_damaged", "no readable .npz"),
        (data(y=np.zeros((1, 1, 3, 8, 8), np.float32)), "samples_invalid", "input 'x'"),
        (data(x=np.zeros((1, 1, 3, 8, 8), np.float64)), "samples_invalid", "type float32"),
        (data(x=np.zeros((1, 1, 3, 9, 8), np.float32)), "samples_invalid", "1x3x9x8"),
        (data(x=np.full((1, 1, 3, 8, 8), np.nan, np.float32)), "samples_invalid", "NaN"),
    ],
    ids=["no archive", "name", "type", "shape", "nan"],
)
async def test_samples_that_do_not_fit_the_model_are_refused_by_name(
    site: Site, agent: Agent, content: bytes, reason: str, said: str
) -> None:
    samples = Samples(sha256=hashlib.sha256(content).hexdigest())
    wanted = options(Precision.INT8, calibration=samples)
    grant = await site.grant()
    head = header(grant.token, MODEL, options=wanted, attachments=[attached(content)])
    requests = [pb.BuildRequest(header=head)]
    requests += [pb.BuildRequest(model_chunk=part) for part in (MODEL, content)]
    refusal = await Call(agent, requests).refused()
    assert refusal.reason == reason
    assert said in refusal.message
    assert await site.published() == []
    assert is_idle(agent)


async def test_a_model_that_needs_too_much_memory_to_run_costs_its_own_build_alone(
    site: Site, tmp_path: Path
) -> None:
    agent = await site.start_agent(build_memory_bytes=1 << 30)
    large = model(
        node("Shape", ["x"], "s"),
        node("Mul", ["s", "many"], "sizes"),
        node("Expand", ["x", "sizes"], "wide"),
        node("ReduceSum", ["wide"], "y", keepdims=0),
        inputs=[value("x", ["n", 4])],
        constants=[helper.make_tensor("many", TensorProto.INT64, [2], [1 << 16, 1 << 16])],
    ).SerializeToString()
    plan = BuildPlan(
        backend="tensorrt_rtx",
        targets=("SM86",),
        profiles=(parse_profile("x=1x4"),),
        precision=PrecisionPlan(precision=Precision.FP16),
    )
    with pytest.raises(BuildFailed) as caught:
        await site.client().build(large, plan_to_options(plan))
    assert "memory" in str(caught.value) or "Expand" in str(caught.value), caught.value
    assert is_idle(agent)
    assert not (await site.client().build(MODEL, options(Precision.FP16))).cached
