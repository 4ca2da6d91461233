"""What may be asked for, and when two requests are the same."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builder.strategies import plans, profiles

from seatkeeper.artifacts.errors import (
    BackendUnknown,
    BuildError,
    OptionInvalid,
    ProfileInvalid,
    TargetUnsupported,
)
from seatkeeper.artifacts.plan import (
    BuildPlan,
    Profile,
    ProfileShape,
    engine_key,
    format_profile,
    parse_profile,
    plan_from_options,
    plan_to_options,
)
from seatkeeper.artifacts.precision import Precision, PrecisionPlan
from seatkeeper.v1 import build_pb2

MODEL_SHA256 = "ab" * 32
PLAN = BuildPlan(backend="tensorrt_rtx", targets=("SM86",))
SHAPE = ProfileShape(input="x", min=(1, 4), opt=(8, 4), max=(32, 4))


def test_a_profile_is_read_as_it_is_written_in_the_handbook() -> None:
    profile = parse_profile("input=1x3x224x224:8x3x224x224:32x3x224x224,mask=1x4")
    assert profile == Profile(
        shapes=(
            ProfileShape(
                input="input", min=(1, 3, 224, 224), opt=(8, 3, 224, 224), max=(32, 3, 224, 224)
            ),
            ProfileShape(input="mask", min=(1, 4), opt=(1, 4), max=(1, 4)),
        )
    )


def test_names_of_tensorflow_and_caffe_need_no_quotes() -> None:
    profile = parse_profile("gpu_0/data=0:0=1x2")
    assert profile.shapes[0].input == "gpu_0/data=0:0"


@settings(deadline=None)
@given(profiles())
def test_a_profile_survives_its_own_text(profile: Profile) -> None:
    assert parse_profile(format_profile(profile)) == profile


@settings(deadline=None)
@given(plans())
def test_a_plan_survives_the_wire(plan: BuildPlan) -> None:
    wire = plan_to_options(plan).SerializeToString()
    assert plan_from_options(build_pb2.BuildOptions.FromString(wire)) == plan


@settings(deadline=None)
@given(st.text(max_size=40) | st.from_regex(r"x=[0-9x:\-]{0,12}", fullmatch=True))
def test_any_text_is_a_profile_or_a_typed_error(text: str) -> None:
    try:
        profile = parse_profile(text)
    except ProfileInvalid:
        return
    assert parse_profile(format_profile(profile)) == profile


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x=2x4:1x4:4x4", "dimension 0: min 2 is greater than opt 1"),
        ("x=1x4:8x4:4x4", "dimension 0: opt 8 is greater than max 4"),
        ("x=0x4:1x4:4x4", "dimension 0: min 0 is less than 1"),
        ("x=1x4:1x4:1099511627776x4", "is greater than 2147483647"),
        ("x=-1x4", "dimension 0: min -1 is less than 1"),
        ("x=99999x99999x99999", "elements, more than"),
        ("x=1x4:1x4x4:1x4", "differ in rank"),
        ("x=1x1x1x1x1x1x1x1x1", "has 9 dimensions, not 1 to 8"),
        ("x=1x4:2x4", "not one or three shapes"),
        ("x=1x4:2x4:3x4:4x4", "not one or three shapes"),
        ("x=", "is not sizes joined by `x`"),
        ("x=1x4x", "is not sizes joined by `x`"),
        ("x=\u0661x4", "is not sizes joined by `x`"),
        ("x=" + "9" * 5_000, "is not sizes joined by `x`"),
        ("=1x4", "name is empty"),
        ("x\n=1x4", "cannot be printed"),
        ("n" * 513 + "=1", "longer than 512"),
        ("1x4", "has no `=`"),
        ("", "has no `=`"),
        ("x=1,x=2", "'x' is twice"),
    ],
)
def test_a_wrong_profile_is_refused_by_what_is_wrong_with_it(text: str, complaint: str) -> None:
    with pytest.raises(ProfileInvalid) as caught:
        parse_profile(text)
    assert complaint in caught.value.message


def test_a_profile_without_shapes_is_refused() -> None:
    with pytest.raises(ProfileInvalid):
        Profile(shapes=())


def test_the_seventeenth_profile_is_one_too_many() -> None:
    profile = Profile(shapes=(SHAPE,))
    assert len(replace(PLAN, profiles=(profile,) * 16).profiles) == 16
    with pytest.raises(ProfileInvalid, match="17 profiles"):
        replace(PLAN, profiles=(profile,) * 17)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (build_pb2.BuildOptions(backend="tvm", targets=["SM86"]), BackendUnknown),
        (build_pb2.BuildOptions(backend="tensorrt_rtx"), TargetUnsupported),
        (build_pb2.BuildOptions(backend="tensorrt_rtx", targets=["SM90"]), TargetUnsupported),
        (
            build_pb2.BuildOptions(backend="tensorrt_rtx", targets=["CURRENT"]),
            TargetUnsupported,
        ),
        (
            build_pb2.BuildOptions(backend="tensorrt", targets=["SM90", "SM100"]),
            TargetUnsupported,
        ),
        (
            build_pb2.BuildOptions(
                backend="tensorrt_rtx", targets=["SM86"], workspace_bytes=-1
            ),
            OptionInvalid,
        ),
        (
            build_pb2.BuildOptions(
                backend="tensorrt_rtx", targets=["SM86"], workspace_bytes=2**60
            ),
            OptionInvalid,
        ),
        (
            build_pb2.BuildOptions(
                backend="tensorrt_rtx", targets=["SM86"], optimisation_level=6
            ),
            OptionInvalid,
        ),
        (
            build_pb2.BuildOptions(
                backend="tensorrt_rtx", targets=["SM86"], optimisation_level=-1
            ),
            OptionInvalid,
        ),
    ],
)
def test_options_out_of_bounds_never_become_a_plan(
    options: build_pb2.BuildOptions, error: type[BuildError]
) -> None:
    with pytest.raises(error):
        plan_from_options(options)


def test_a_workspace_of_zero_is_the_default_on_the_wire_and_an_error_in_a_plan() -> None:
    assert plan_from_options(plan_to_options(PLAN)).workspace_bytes is None
    with pytest.raises(OptionInvalid):
        replace(PLAN, workspace_bytes=0)


@settings(deadline=None)
@given(plans(), st.randoms(use_true_random=False))
def test_the_order_of_targets_and_inputs_does_not_change_the_key(
    plan: BuildPlan, random: Random
) -> None:
    targets = list(plan.targets) * 2 if plan.backend == "tensorrt_rtx" else list(plan.targets)
    random.shuffle(targets)
    shuffled = []
    for profile in plan.profiles:
        shapes = list(profile.shapes)
        random.shuffle(shapes)
        shuffled.append(Profile(shapes=tuple(shapes)))
    same = replace(plan, targets=tuple(targets), profiles=tuple(shuffled))

    assert same == plan
    assert engine_key(MODEL_SHA256, same, "1.7") == engine_key(MODEL_SHA256, plan, "1.7")


@settings(deadline=None)
@given(plans(), plans())
def test_keys_are_equal_exactly_when_plans_are(one: BuildPlan, other: BuildPlan) -> None:
    keys = {engine_key(MODEL_SHA256, plan, "1.7") for plan in (one, other)}
    assert (len(keys) == 1) == (one == other)


@pytest.mark.parametrize(
    "other",
    [
        engine_key("cd" * 32, PLAN, "1.7"),
        engine_key(MODEL_SHA256, PLAN, "1.8"),
        engine_key(MODEL_SHA256, replace(PLAN, targets=("SM89",)), "1.7"),
        engine_key(MODEL_SHA256, replace(PLAN, workspace_bytes=1), "1.7"),
        engine_key(MODEL_SHA256, replace(PLAN, optimisation_level=4), "1.7"),
        engine_key(MODEL_SHA256, replace(PLAN, profiles=(Profile(shapes=(SHAPE,)),)), "1.7"),
    ],
)
def test_everything_that_makes_another_engine_makes_another_key(other: str) -> None:
    assert other != engine_key(MODEL_SHA256, PLAN, "1.7")


def test_the_order_of_profiles_is_part_of_the_key() -> None:
    """The user of an engine chooses a profile by its number."""
    one, two = parse_profile("x=1:2:3"), parse_profile("x=4:5:6")
    forward = replace(PLAN, profiles=(one, two))
    backward = replace(PLAN, profiles=(two, one))
    assert engine_key(MODEL_SHA256, forward, "1") != engine_key(MODEL_SHA256, backward, "1")


def test_the_default_effort_is_the_same_engine_as_saying_it() -> None:
    unsaid = build_pb2.BuildOptions(backend="tensorrt_rtx", targets=["SM86"])
    assert plan_from_options(unsaid) == replace(PLAN, optimisation_level=3)


def test_the_key_never_changes_by_accident() -> None:
    """A new key for an old request rebuilds every engine that anybody has."""
    plan = replace(
        PLAN,
        targets=("SM120", "SM86"),
        profiles=(Profile(shapes=(SHAPE,)),),
        workspace_bytes=1 << 30,
    )
    canonical = (
        f'["seatkeeper-engine-key-1","{MODEL_SHA256}","tensorrt_rtx","1.7.1.116",'
        '["SM86","SM120"],[[["x",[1,4],[8,4],[32,4]]]],1073741824,3]'
    )
    key = engine_key(MODEL_SHA256, plan, "1.7.1.116")
    assert key == hashlib.sha256(canonical.encode()).hexdigest()
    assert key == "9636fccf97174d3ec4546076dc51a5a3d02e2bc9b4ec963d936557de3555df13"


def test_what_converts_is_in_the_keys_of_what_may_be_converted_alone() -> None:
    half = replace(PLAN, precision=PrecisionPlan(precision=Precision.FP16))
    keys = {
        engine_key(MODEL_SHA256, half, "1", conversion) for conversion in ("", "1 a-1", "2 a-1")
    }
    assert len(keys) == 3
    assert engine_key(MODEL_SHA256, half, "1", "") == engine_key(MODEL_SHA256, half, "1")
    for as_it_is in (PLAN, replace(PLAN, precision=PrecisionPlan(precision=Precision.FP32))):
        assert engine_key(MODEL_SHA256, as_it_is, "1", "1 a-1") == engine_key(
            MODEL_SHA256, as_it_is, "1"
        )


@pytest.mark.parametrize("sha256", ["", "AB" * 32, "ab" * 31, "ab" * 32 + "\n", "xy" * 32])
def test_a_key_is_never_made_of_half_a_hash(sha256: str) -> None:
    with pytest.raises(OptionInvalid):
        engine_key(sha256, PLAN, "1.7")


def test_a_key_is_never_made_without_a_version() -> None:
    with pytest.raises(OptionInvalid):
        engine_key(MODEL_SHA256, PLAN, "")


@pytest.mark.parametrize(
    "written", ["SM86", "sm86", "Sm86", "sm_86", "SM_86", "86", "8.6", " sm86 "]
)
def test_a_target_may_be_written_as_others_write_it(written: str) -> None:
    plan = BuildPlan(backend="tensorrt_rtx", targets=(written, "12.0", "sm_120"))
    assert plan.targets == ("SM86", "SM120")
    assert plan == BuildPlan(backend="tensorrt_rtx", targets=("SM86", "SM120"))


@pytest.mark.parametrize(
    "written", ["sm", "8", "8.6.1", "sm8_6", "SM99", "gpu86", "\u0668.\u0666", ""]
)
def test_what_means_no_target_is_refused_as_it_was_written(written: str) -> None:
    with pytest.raises(TargetUnsupported, match=re.escape(repr(written))):
        BuildPlan(backend="tensorrt_rtx", targets=(written,))
