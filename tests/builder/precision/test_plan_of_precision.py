"""What precision may be asked for, when it is refused, and when two requests are the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatkeeper.artifacts.errors import BuildError, OptionInvalid, PrecisionUnsupported
from seatkeeper.artifacts.plan import BuildPlan, engine_key, plan_from_options, plan_to_options
from seatkeeper.artifacts.precision import (
    CalibrationMethod,
    ImageInput,
    KeepRule,
    Precision,
    PrecisionPlan,
    Samples,
    parse_images,
    parse_keep,
    parse_precision,
)

MODEL_SHA256 = "ab" * 32
SOME = Samples(sha256="cd" * 32)
OTHER = Samples(sha256="ef" * 32)
NOISE = Samples(is_random=True)

rules = st.builds(KeepRule, pattern=st.text("abc/*", min_size=1, max_size=8))
wishes = st.builds(
    PrecisionPlan,
    precision=st.sampled_from([Precision.FP16, Precision.INT8, Precision.AUTO]),
    calibration=st.sampled_from([SOME, NOISE]),
    method=st.sampled_from(CalibrationMethod),
    samples=st.sampled_from([Samples(), OTHER]),
    tolerance=st.floats(1e-6, 1.0),
    keep=st.lists(rules, max_size=3).map(tuple),
    repair=st.booleans(),
)


def plan(wanted: PrecisionPlan, *targets: str) -> BuildPlan:
    return BuildPlan(backend="tensorrt_rtx", targets=targets or ("SM86",), precision=wanted)


@given(wishes)
def test_a_plan_goes_over_the_wire_and_comes_back(wanted: PrecisionPlan) -> None:
    assert plan_from_options(plan_to_options(plan(wanted))) == plan(wanted)


@given(wishes, wishes)
def test_only_the_same_wishes_share_an_engine(one: PrecisionPlan, other: PrecisionPlan) -> None:
    keys = [engine_key(MODEL_SHA256, plan(each), "1.7") for each in (one, other)]
    assert (keys[0] == keys[1]) is (one == other)


def test_a_plan_without_a_precision_has_the_key_that_it_always_had() -> None:
    """Engines of older agents are found by newer clients, and the other way round."""
    as_ever = plan(PrecisionPlan())
    assert engine_key(MODEL_SHA256, as_ever, "1.7.1.116") == (
        "0e5ed097c6947980bbb9cad8faabf922dc12b15f92c9b0e58f50edbbc302035a"
    )
    assert not plan_to_options(as_ever).HasField("precision")


@pytest.mark.parametrize(
    ("wanted", "targets", "said"),
    [
        (Precision.FP8, ["SM86"], "fp8 needs SM89 or newer, which SM86 is not"),
        (Precision.BF16, ["SM75", "SM86"], "bf16 needs SM80 or newer, which SM75 is not"),
        (Precision.BF16, ["SM86"], "cannot be checked: accept that with --accept-unchecked"),
    ],
)
def test_what_a_target_does_not_have_is_refused_by_name(
    wanted: Precision, targets: list[str], said: str
) -> None:
    with pytest.raises(PrecisionUnsupported, match=said):
        plan(PrecisionPlan(precision=wanted), *targets)


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT8_FP16])
def test_eight_bits_need_calibration_data(precision: Precision) -> None:
    with pytest.raises(OptionInvalid, match="needs calibration data"):
        PrecisionPlan(precision=precision)


def test_floating_point_of_eight_bits_needs_calibration_data_too() -> None:
    with pytest.raises(OptionInvalid, match="fp8 needs calibration data"):
        plan(PrecisionPlan(precision=Precision.FP8), "SM89")
    wanted = PrecisionPlan(precision=Precision.FP8, calibration=SOME)
    assert plan(wanted, "SM89", "SM120").precision.candidates(["SM89"]) == (Precision.FP8,)


UNCHECKED = PrecisionPlan(precision=Precision.BF16, accept_unchecked=True)


def test_what_cannot_be_checked_is_taken_only_where_that_is_accepted() -> None:
    assert plan_from_options(plan_to_options(plan(UNCHECKED))) == plan(UNCHECKED)
    for more in ({"samples": SOME}, {"calibration": SOME}, {"repair": True}):
        with pytest.raises(OptionInvalid, match="are of no use to it"):
            replace(UNCHECKED, **more)
    with pytest.raises(OptionInvalid, match="nothing unchecked to accept"):
        PrecisionPlan(precision=Precision.FP16, accept_unchecked=True)
    with pytest.raises(OptionInvalid, match="converts nothing"):
        PrecisionPlan(accept_unchecked=True)
    auto = PrecisionPlan(precision=Precision.AUTO)
    both = replace(auto, accept_unchecked=True)
    assert both.candidates(["SM86"]) == (Precision.FP16, Precision.BF16, Precision.FP32)
    assert both.candidates(["SM75"]) == (Precision.FP16, Precision.FP32)
    assert auto.candidates(["SM86"]) == (Precision.FP16, Precision.FP32)


def test_what_is_accepted_is_part_of_the_key_where_it_is_and_an_agent_must_know_it() -> None:
    auto = PrecisionPlan(precision=Precision.AUTO)
    both = replace(auto, accept_unchecked=True)
    keys = [engine_key(MODEL_SHA256, plan(each), "1.7") for each in (auto, both)]
    assert keys[0] != keys[1]
    older = ("model", "fp32", "fp16", "int8", "int8+fp16", "auto")
    assert (auto.is_offered(older), both.is_offered(older)) == (True, False)
    assert both.is_offered((*older, "bf16"))
    assert not UNCHECKED.is_offered(older)


def test_auto_tries_eight_bits_only_with_calibration_data() -> None:
    without = PrecisionPlan(precision=Precision.AUTO)
    assert without.candidates(["SM86"]) == (Precision.FP16, Precision.FP32)
    with_data = replace(without, calibration=SOME)
    assert with_data.candidates(["SM86"])[0] is Precision.INT8_FP16
    all_of_them = replace(with_data, accept_unchecked=True).candidates(["SM86", "SM89"])
    assert [str(each) for each in all_of_them] == ["int8+fp16", "int8", "fp16", "bf16", "fp32"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"tolerance": 0.0},
        {"tolerance": float("nan")},
        {"tolerance": 1.5},
        {
            "keep": (KeepRule(pattern="a"),) * 1
            + tuple(KeepRule(pattern=f"{n}") for n in range(64))
        },
        {"precision": Precision.MODEL, "repair": True},
        {"precision": Precision.FP32, "keep": (KeepRule(pattern="a"),)},
        {"precision": Precision.MODEL, "calibration": SOME},
        {"precision": Precision.FP32, "samples": SOME},
        {"precision": Precision.FP16, "keep": (KeepRule(pattern="a", precision="fp16"),)},
        {"precision": Precision.FP16, "keep": (KeepRule(pattern="a", precision="int8"),)},
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    good: dict[str, object] = {"precision": Precision.FP16}
    with pytest.raises(OptionInvalid):
        PrecisionPlan(**good | wrong)  # type: ignore[arg-type]  # of any type


@pytest.mark.parametrize(
    "text", ["", "/head/*", "int4:/head", "fp32:", "fp32:" + "a" * 600, "fp32:\n"]
)
def test_a_rule_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(OptionInvalid):
        parse_keep(text)


def test_names_are_read_in_any_letters() -> None:
    assert parse_precision(" INT8+FP16 ") is Precision.INT8_FP16
    with pytest.raises(OptionInvalid, match="there are model, fp32"):
        parse_precision("fp64")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("precision", "fp7"),
        ("calibration_method", "guess"),
        ("tolerance", float("inf")),
        ("tolerance", -0.1),
    ],
)
def test_what_others_send_is_refused_as_well(field: str, value: object) -> None:
    options = plan_to_options(plan(PrecisionPlan(precision=Precision.FP16)))
    setattr(options.precision, field, value)
    with pytest.raises(BuildError):
        plan_from_options(options)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("224x320", ImageInput(height=224, width=320)),
        (
            "8x9,NHWC,bgr,mean=0.1:0.2:0.3,std=0.5",
            ImageInput(
                height=8, width=9, layout="nhwc", order="bgr", mean=(0.1, 0.2, 0.3), std=(0.5,)
            ),
        ),
        ("8x9,grey,mean=0.5", ImageInput(height=8, width=9, order="grey", mean=(0.5,))),
    ],
)
def test_what_to_make_of_pictures(text: str, meant: ImageInput) -> None:
    assert parse_images(text) == meant
    wanted = PrecisionPlan(precision=Precision.FP16, samples=replace(SOME, images=meant))
    assert plan_from_options(plan_to_options(plan(wanted))) == plan(wanted)
    other = replace(wanted, samples=replace(SOME, images=replace(meant, width=10)))
    keys = {engine_key(MODEL_SHA256, plan(each), "1") for each in (wanted, other)}
    assert len(keys) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "224",
        "0x5",
        "9x99999",
        "8x8,chw",
        "8x8,mean=a",
        "8x8,mean=1:2",
        "8x8,std=0",
        "8x8,std=nan",
        "8x8,rgb=1",
    ],
)
def test_pictures_that_cannot_be_made_are_refused(text: str) -> None:
    with pytest.raises(OptionInvalid):
        parse_images(text)


def test_a_hash_that_is_none_is_refused() -> None:
    options = plan_to_options(plan(PrecisionPlan(precision=Precision.FP16)))
    options.precision.samples.sha256 = "../../etc/passwd"
    with pytest.raises(OptionInvalid, match="64 lower-case hexadecimal"):
        plan_from_options(options)
