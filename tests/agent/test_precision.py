"""An engine of another precision, from the caller's samples to the signed manifest."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from onnx import ModelProto, TensorProto, helper
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
from tests.builder.models import conv_net, int4_net, model, node, relu, value

from seatkeeper.agent import build_runner
from seatkeeper.agent.main import Agent
from seatkeeper.artifacts.manifest import verify_engine_file
from seatkeeper.artifacts.plan import BuildPlan, engine_key, parse_profile, plan_to_options
from seatkeeper.artifacts.precision import ImageInput, Precision, PrecisionPlan, Samples
from seatkeeper.builder.conversion.clean import Clean
from seatkeeper.builder.conversion.naming import named
from seatkeeper.builder.conversion.quantise import Quantise
from seatkeeper.client import samples_of
from seatkeeper.core.errors import AgentUnavailable, BuildFailed, InvalidArgument, ModelRejected
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
AS_IT_IS = PrecisionPlan()
SENT = Samples(sha256=hashlib.sha256(DATA).hexdigest())


def options(precision: Precision, **wanted: Any) -> build_pb2.BuildOptions:
    return plan_to_options(plan(precision, **wanted))


def plan(precision: Precision, **wanted: Any) -> BuildPlan:
    targets = ("SM89",) if precision is Precision.FP8 else ("SM86",)
    return BuildPlan(
        backend="tensorrt_rtx",
        targets=targets,
        profiles=(parse_profile("x=1x3x8x8:1x3x8x8:4x3x8x8"),),
        precision=PrecisionPlan(precision=precision, **{"tolerance": 0.05} | wanted),
    )


async def test_half_precision_is_built_and_said_so(
    site: Site, agent: Agent, tmp_path: Path
) -> None:
    to = tmp_path / "half.engine"
    built = await site.client().build(MODEL, options(Precision.FP16), to=to)
    report = built.manifest.precision
    assert report.precision == "fp16"
    assert report.speed == "not measured"
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


async def test_what_converted_is_in_the_key_and_in_the_manifest(
    site: Site, agent: Agent
) -> None:
    wanted = plan(Precision.FP16)
    built = await site.client().build(MODEL, plan_to_options(wanted))
    own = agent.build_runner.backends["tensorrt_rtx"].conversion
    assert built.manifest.conversion == own
    assert own.startswith("1 numpy-")
    version = built.manifest.backend_version
    assert built.key == engine_key(MODEL_SHA256, wanted, version, own)
    plain = await site.client().build(
        MODEL, plan_to_options(replace(wanted, precision=AS_IT_IS))
    )
    assert plain.manifest.conversion == ""
    assert plain.key == engine_key(MODEL_SHA256, replace(wanted, precision=AS_IT_IS), version)


async def test_an_older_client_has_the_keys_that_it_expects(site: Site, agent: Agent) -> None:
    wanted = plan(Precision.FP16)
    grant = await site.grant()
    asked = header(grant.token, MODEL, options=plan_to_options(wanted))
    assert not asked.conversion
    done = await Call(agent, parts(asked, MODEL)).result()
    manifest = manifest_of(done.manifest)
    assert manifest.key == engine_key(MODEL_SHA256, wanted, manifest.backend_version)
    assert manifest.conversion == ""
    await grant.release()
    again = await site.client("bob").build(MODEL, plan_to_options(wanted))
    assert (again.cached, again.key == manifest.key) == (False, False)


async def test_an_agent_that_converts_otherwise_refuses_and_keeps_nothing(
    site: Site, agent: Agent
) -> None:
    grant = await site.grant()
    asked = header(grant.token, MODEL, options=options(Precision.FP16))
    asked.conversion = "0 onnx-1.0"
    refusal = await Call(agent, parts(asked, MODEL)).refused()
    assert "not with 0 onnx-1.0: build it again" in refusal.message
    assert refusal.code is grpc.StatusCode.UNAVAILABLE, "another agent may be as it is wanted"
    assert site.claims == []
    assert await site.published() == []
    assert is_idle(agent)
    asked = header(grant.token, MODEL, options=options(Precision.MODEL, tolerance=0.01))
    asked.conversion = "0 onnx-1.0"
    await Call(agent, parts(asked, MODEL)).result()


async def older_agent(site: Site, monkeypatch: pytest.MonkeyPatch) -> Agent:
    """An agent that says of itself that it converts as an earlier version did."""
    probe = build_runner._probe

    async def probed(*given: Any) -> dict[str, pb.BackendInfo]:
        found = copy.deepcopy(await probe(*given))
        for info in found.values():
            info.conversion = "0 onnx-1.0"
        return found

    with monkeypatch.context() as patch:
        patch.setattr(build_runner, "_probe", probed)
        return await site.start_agent("agent-0")


async def test_of_agents_that_convert_otherwise_the_newest_build(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await older_agent(site, monkeypatch)
    await site.start_agent("agent-1")
    names = ("alice", "bob", "carol")
    wanted = [options(Precision.FP16, tolerance=0.05 + n / 100) for n in range(3)]
    built = [await site.client(n).build(MODEL, w) for n, w in zip(names, wanted, strict=True)]
    assert {each.manifest.agent_id for each in built} == {"agent-1"}


async def test_an_agent_whose_libraries_changed_under_it_publishes_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await older_agent(site, monkeypatch)
    with pytest.raises(AgentUnavailable, match="when it started: restart it"):
        await site.client().build(MODEL, options(Precision.FP16))
    assert await site.published() == []
    assert site.claims == []
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
    assert {share.precision: share.nodes for share in report.shares}["int8"] == 2
    assert report.accuracy.proven
    assert report.accuracy.samples == 2
    again = await site.client("bob").build(MODEL, wanted, sample_files=[DATA])
    assert again.cached
    assert is_idle(agent)


async def test_ranges_are_found_once_for_a_model_and_its_samples(
    site: Site, agent: Agent
) -> None:
    wanted = options(Precision.INT8, calibration=SENT)
    first = await site.client().build(MODEL, wanted, sample_files=[DATA])
    folder = site.folder / "agent-1" / "calibrations"
    (ranges,) = folder.iterdir()
    found = ranges.read_bytes()
    ranges.write_bytes(found.replace(b'"lowest"', b'"lowest" '))  # means the same
    other = options(Precision.INT8, calibration=SENT, tolerance=0.06)
    second = await site.client().build(MODEL, other, sample_files=[DATA])
    assert second.key != first.key
    assert second.manifest.precision == first.manifest.precision
    assert ranges.read_bytes() != found, "it was read, and not written again"
    ranges.write_bytes(b"damaged")
    third = options(Precision.INT8, calibration=SENT, tolerance=0.07)
    await site.client().build(MODEL, third, sample_files=[DATA])
    assert json.loads(ranges.read_bytes()) == json.loads(found)
    assert is_idle(agent)


async def test_auto_says_what_it_tried(site: Site, agent: Agent) -> None:
    wanted = options(Precision.AUTO, calibration=SENT, tolerance=0.002)
    built = await site.client().build(MODEL, wanted, sample_files=[DATA])
    assert built.manifest.precision.precision == "fp16"
    refused = [reason.partition(":")[0] for reason in built.manifest.precision.refused]
    assert refused == ["int8+fp16", "int8"]
    assert built.manifest.options.precision.precision == "auto"


async def test_floating_point_of_eight_bits_is_calibrated_measured_and_built(
    site: Site, agent: Agent
) -> None:
    """The compiler takes it for the GPUs that have it."""
    wanted = replace(
        plan(Precision.FP8, calibration=SENT, tolerance=0.2), targets=("SM89", "SM120")
    )
    built = await site.client().build(MODEL, plan_to_options(wanted), sample_files=[DATA])
    report = built.manifest.precision
    assert {share.precision: share.nodes for share in report.shares}["fp8"] == 2
    assert report.accuracy.proven
    assert 0 < report.accuracy.outputs[0].relative_l2 < 0.15
    assert not report.unchecked


async def test_bfloat16_is_built_where_unchecked_is_accepted(site: Site, agent: Agent) -> None:
    wanted = options(Precision.BF16, accept_unchecked=True, tolerance=0.01)
    built = await site.client().build(MODEL, wanted)
    report = built.manifest.precision
    assert {share.precision: share.nodes for share in report.shares}["bf16"] >= 5
    assert report.unchecked
    assert not report.HasField("accuracy")
    assert built.manifest.options.precision.accept_unchecked


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"precision": "bf16"}, "cannot be checked"),
        ({"precision": "fp8"}, "needs SM89 or newer, which SM86 is not"),
    ],
)
async def test_what_cannot_be_checked_or_had_takes_no_seat(
    site: Site, agent: Agent, changes: dict[str, Any], said: str
) -> None:
    wanted = options(Precision.FP16)
    wanted.precision.MergeFrom(build_pb2.PrecisionOptions(**changes))
    with pytest.raises(InvalidArgument, match=said):
        await site.client().build(MODEL, wanted)
    assert site.fence == 0
    grant = await site.grant()
    head = header(grant.token, MODEL, options=wanted)
    refusal = await Call(agent, [pb.BuildRequest(header=head)]).refused()
    assert refusal.reason == "precision_unsupported"
    assert site.claims == []


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ModelProto:
    """A model that is quantised, made before any service runs in this process."""
    random = np.random.default_rng(3)
    samples = [{"x": random.normal(0, 1, (1, 3, 8, 8)).astype(np.float32)} for _ in range(4)]
    step = Quantise(samples, tmp_path_factory.mktemp("quantised"))
    return step.apply(named(Clean().apply(conv_net())))


async def test_a_model_that_comes_quantised_is_built_as_it_is(
    trained: ModelProto, site: Site, agent: Agent
) -> None:
    """Its activations and weights, and one whose weights alone have 4 bits."""
    for net in (trained, int4_net()):
        profile = "x=1x3x8x8" if net is trained else "x=2x4"
        as_it_is = BuildPlan(
            backend="tensorrt_rtx", targets=("SM86",), profiles=(parse_profile(profile),)
        )
        half = replace(as_it_is, precision=PrecisionPlan(precision=Precision.FP16))
        content = net.SerializeToString()
        built = await site.client().build(content, plan_to_options(as_it_is))
        assert not built.manifest.HasField("precision")
        built = await site.client().build(content, plan_to_options(half))
        assert built.manifest.precision.accuracy.outputs[0].relative_l2 < 0.01
        shares = {share.precision for share in built.manifest.precision.shares}
        assert shares >= {"fp16", "int8" if net is trained else "int4"}
    exact = replace(plan(Precision.FP16), precision=PrecisionPlan(precision=Precision.FP32))
    with pytest.raises(ModelRejected, match="already; build it with precision `model`"):
        await site.client().build(trained.SerializeToString(), plan_to_options(exact))


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


def archive(**contents: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in contents.items():
            made.writestr(name, content)
    return file.getvalue()


def bomb() -> bytes:
    """Three members of which each says that it has 4 GiB unpacked."""
    made = archive(**{f"{name}.npy": bytes(7777) for name in "xyz"})
    size = (7777).to_bytes(4, "little")
    return made.replace(size, (2**32 - 2).to_bytes(4, "little"))


def boundless() -> bytes:
    """An array that says that it has a terabyte."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 38, 1, 3, 8, 8)}
    )
    return archive(**{"x.npy": file.getvalue() + bytes(64)})


@pytest.mark.parametrize(
    ("content", "reason", "said"),
    [
        (b"not an archive", "samples_damaged", "no readable .npz"),
        (DATA[: len(DATA) // 2], "samples_damaged", "no readable .npz"),
        (bomb(), "samples_damaged", "bytes unpacked, over"),
        (boundless(), "samples_damaged", "'x' says it has 211106232532992 bytes, and has 64"),
        (archive(**{"x.npy": pickle.dumps([1.0])}), "samples_damaged", "no readable .npz"),
        (data(x=np.array([print], dtype=object)), "samples_damaged", "'x' cannot be read"),
        (archive(**{"x.txt": b"1, 2, 3"}), "samples_damaged", "'x.txt' is no array"),
        (
            data(x=np.zeros((0, 1, 3, 8, 8), np.float32)),
            "samples_invalid",
            "there are 0 samples",
        ),
        (
            data(x=np.zeros((1, 1, 3, 8, 8), np.float32)),
            "samples_invalid",
            "1 sample is too few",
        ),
        (data(x=np.zeros((1, 8), np.float32)), "samples_invalid", "'x' has 4 dimensions"),
        (
            data(x=np.zeros((2, 1, 3, 8, 8), np.float32), z=np.zeros(2)),
            "samples_invalid",
            "array 'z' is of no input",
        ),
        (data(y=np.zeros((1, 1, 3, 8, 8), np.float32)), "samples_invalid", "input 'x'"),
        (data(x=np.zeros((1, 1, 3, 8, 8), np.float64)), "samples_invalid", "type float32"),
        (data(x=np.zeros((1, 1, 3, 9, 8), np.float32)), "samples_invalid", "1x3x9x8"),
        (data(x=np.full((1, 1, 3, 8, 8), np.nan, np.float32)), "samples_invalid", "NaN"),
    ],
    ids=[
        *("no archive", "cut", "bomb", "boundless", "a pickle", "objects", "no array", "none"),
        *("too few", "rank", "one too many", "name", "type", "shape", "nan"),
    ],
)
async def test_samples_that_do_not_fit_the_model_are_refused_by_name(
    site: Site, agent: Agent, content: bytes, reason: str, said: str
) -> None:
    await refused_for_samples(site, agent, content, reason, said)


@pytest.mark.parametrize(
    ("content", "reason", "said"),
    [
        (archive(**{"a.png": b"no picture"}), "samples_damaged", "'a.png' is no picture"),
        (archive(**{"a.png": b"\x89PNG\r\n\x1a\n" + bytes(9)}), "samples_damaged", "'a.png'"),
        (archive(**{"a.txt": b"GIF89a"}), "samples_damaged", "'a.txt' is no picture"),
        (archive(), "samples_invalid", "no picture among the samples"),
        (b"no archive", "samples_damaged", "no readable archive"),
    ],
    ids=["text", "cut", "another format", "none", "no archive"],
)
async def test_pictures_that_cannot_be_read_are_refused_by_name(
    site: Site, agent: Agent, content: bytes, reason: str, said: str
) -> None:
    images = ImageInput(height=8, width=8)
    await refused_for_samples(site, agent, content, reason, said, images)


async def refused_for_samples(
    site: Site,
    agent: Agent,
    content: bytes,
    reason: str,
    said: str,
    images: ImageInput | None = None,
) -> None:
    """Have samples refused; the seat is free again, the agent lives, and nothing is kept."""
    samples = Samples(sha256=hashlib.sha256(content).hexdigest(), images=images)
    wanted = options(Precision.INT8, calibration=samples)
    grant = await site.grant()
    head = header(grant.token, MODEL, options=wanted, attachments=[attached(content)])
    requests = [pb.BuildRequest(header=head)]
    requests += [pb.BuildRequest(model_chunk=part) for part in (MODEL, content)]
    refusal = await Call(agent, requests).refused()
    assert refusal.reason == reason, refusal.message
    assert said in refusal.message
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert await site.published() == []
    assert site.claims == []
    assert is_idle(agent)
    assert not list(site.folder.glob("*/calibrations/*"))
    assert not (await build(agent, grant.token, relu()).result()).cached


def asked(**changes: Any) -> build_pb2.BuildOptions:
    """Options of fp16, with some of it as no client of ours would write it."""
    made = options(Precision.FP16)
    for name, content in changes.items():
        if isinstance(content, list):
            getattr(made.precision, name).extend(content)
        elif isinstance(content, Message):
            getattr(made.precision, name).CopyFrom(content)
        else:
            setattr(made.precision, name, content)
    return made


BAD_OPTIONS: dict[str, tuple[dict[str, Any], str, str]] = {
    "precision": ({"precision": "int7"}, "option_invalid", "no precision is called 'int7'"),
    "not converted": (
        {"precision": "fp32", "repair": True},
        *("option_invalid", "converts nothing"),
    ),
    "no data": ({"precision": "int8"}, "option_invalid", "int8 needs calibration data"),
    "target": ({"precision": "fp8"}, "precision_unsupported", "fp8 needs SM89"),
    "unchecked": ({"precision": "bf16"}, "precision_unsupported", "accept_unchecked"),
    "method": ({"calibration_method": "mean"}, "option_invalid", "no calibration method"),
    "negative": ({"tolerance": -0.1}, "option_invalid", "a tolerance of -0.1"),
    "over 1": ({"tolerance": 1.5}, "option_invalid", "a tolerance of 1.5"),
    "NaN": ({"tolerance": float("nan")}, "option_invalid", "a tolerance of nan"),
    "no pattern": ({"keep": [build_pb2.KeepRule()]}, "option_invalid", "1 to 512 printable"),
    "long pattern": (
        {"keep": [build_pb2.KeepRule(pattern="a" * 513)]},
        *("option_invalid", "1 to 512 printable"),
    ),
    "kept in what": (
        {"keep": [build_pb2.KeepRule(pattern="/head", precision="int4")]},
        *("option_invalid", "not in 'int4'"),
    ),
    "many patterns": (
        {"keep": [build_pb2.KeepRule(pattern=f"/{n}") for n in range(65)]},
        *("option_invalid", "65 patterns"),
    ),
    "no such node": (
        {"keep": [build_pb2.KeepRule(pattern="/haed")]},
        *("option_invalid", "the nearest are '/head'"),
    ),
    "a class": (
        {"keep": [build_pb2.KeepRule(pattern="/[hH]ead")]},
        *("option_invalid", "no node has a name like '/[hH]ead'"),
    ),
    "no hash": (
        {"samples": build_pb2.Samples(sha256="xy")},
        *("option_invalid", "hash of samples"),
    ),
    "both": (
        {"samples": build_pb2.Samples(sha256=SENT.sha256, random=True)},
        *("option_invalid", "either given or random"),
    ),
    "pictures of noise": (
        {"samples": build_pb2.Samples(random=True, images=build_pb2.ImageInput(height=8))},
        *("option_invalid", "pictures are resized"),
    ),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
async def test_options_of_a_precision_that_cannot_be_are_refused_by_name(
    site: Site, agent: Agent, case: str
) -> None:
    changes, reason, said = BAD_OPTIONS[case]
    grant = await site.grant()
    refusal = await build(agent, grant.token, MODEL, options=asked(**changes)).refused()
    assert refusal.reason == reason, refusal.message
    assert said in refusal.message
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert await site.published() == []
    assert site.claims == []
    assert is_idle(agent)
    assert agent.build_runner.store.keys() == []


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
