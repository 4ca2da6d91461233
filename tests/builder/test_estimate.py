"""Estimates follow from builds before, say how sure they are, and say when they know nothing."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatkeeper.artifacts.estimate import (
    HISTORY_MAX,
    LITTLE,
    UNKNOWN_FACTOR,
    PastBuild,
    Planned,
    advise_precision,
    estimate,
    past_build,
    planned_build,
)
from seatkeeper.artifacts.manifest import (
    BuildCosts,
    BuiltEngineFile,
    SeatUsed,
    SourceModel,
    build_manifest,
)
from seatkeeper.artifacts.model_shape import ModelShape
from seatkeeper.artifacts.plan import BuildPlan

SHAPE = ModelShape(nodes=100, weight_bytes=50_000_000, model_bytes=51_000_000)
PLANNED = Planned(model_sha256="a", shape=SHAPE, precision="model", targets=1, profiles=0)
FACTORS = {"model": 1.0, "fp16": 3.0}


def past(
    planned: Planned,
    seconds: float,
    *,
    got: str = "",
    refused: tuple[str, ...] = (),
    error: float | None = 0.001,
) -> PastBuild:
    return PastBuild(
        planned=planned,
        seconds=seconds,
        seat_seconds=seconds + 1,
        peak_memory_bytes=1e9,
        got=got or planned.precision,
        refused=refused,
        error=error,
    )


def worlds(seed: int, count: int = 60, noise: float = 0.1) -> list[PastBuild]:
    """Builds whose time grows with nodes and weights, three times as long with fp16."""
    rng = random.Random(seed)  # no secret is made of it
    builds = []
    for number in range(count):
        nodes, weights = rng.randint(20, 2_000), rng.randint(10**6, 5 * 10**8)
        precision = rng.choice(list(FACTORS))
        planned = Planned(
            model_sha256=str(number % 20),
            shape=ModelShape(nodes=nodes, weight_bytes=weights, model_bytes=weights + 10_000),
            precision=precision,
            targets=1,
            profiles=0,
        )
        seconds = nodes**0.8 * (weights / 1e6) ** 0.3 / 10 * FACTORS[precision]
        builds.append(past(planned, seconds * rng.lognormvariate(0, noise)))
    return builds


def test_nothing_is_known_of_a_first_build() -> None:
    assert estimate(PLANNED, []) is None


def test_few_builds_of_other_models_say_nothing() -> None:
    other = replace(PLANNED, model_sha256="b", shape=replace(SHAPE, nodes=5_000))
    assert estimate(PLANNED, [past(other, 10.0)] * (LITTLE - 1)) is None


def test_few_builds_of_the_same_model_say_little_and_so_it_is_said() -> None:
    found = estimate(PLANNED, [past(PLANNED, 10.0), past(PLANNED, 12.0)])
    assert found is not None
    assert found.is_little
    assert (found.builds, found.like) == (2, 2)
    assert 10.0 <= found.seconds.likely <= 12.0
    assert found.seconds.high / found.seconds.likely == pytest.approx(UNKNOWN_FACTOR)
    assert found.seat_seconds.likely > found.seconds.likely


@pytest.mark.parametrize("seed", range(3))
def test_a_law_is_found_and_the_interval_holds_what_it_promises(seed: int) -> None:
    builds = worlds(seed)
    off, within = [], 0
    for build in builds:
        found = estimate(build.planned, [other for other in builds if other is not build])
        assert found is not None
        off.append(abs(found.seconds.likely / build.seconds - 1))
        within += found.seconds.low <= build.seconds <= found.seconds.high
    assert sorted(off)[len(off) // 2] < 0.2
    assert 0.7 <= within / len(builds) <= 0.95


def test_more_noise_makes_wider_intervals() -> None:
    narrow, wide = (estimate(PLANNED, worlds(1, noise=noise)) for noise in (0.05, 0.8))
    assert narrow is not None
    assert wide is not None
    assert wide.seconds.high / wide.seconds.low > narrow.seconds.high / narrow.seconds.low


def test_builds_of_the_same_model_outweigh_the_law() -> None:
    """This one takes ten times as long as models of its size do."""
    odd = [past(PLANNED, 500.0), past(replace(PLANNED, precision="fp16"), 1_500.0)]
    without, found = estimate(PLANNED, worlds(1)), estimate(PLANNED, [*odd, *worlds(1)])
    assert without is not None
    assert found is not None
    assert without.seconds.likely < 100
    assert 300 < found.seconds.likely < 800


def test_only_the_newest_builds_count() -> None:
    new, old = [past(PLANNED, 10.0)] * HISTORY_MAX, [past(PLANNED, 1_000.0)]
    found = estimate(PLANNED, new + old)
    assert found is not None
    assert found.seconds.likely == pytest.approx(10.0, rel=0.01)


amounts = st.integers(0, 2**40)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(amounts, amounts, st.floats(0.001, 1e6), st.sampled_from(["model", "auto"])),
        max_size=20,
    )
)
def test_whatever_was_built_an_estimate_is_a_positive_interval(
    rows: list[tuple[int, int, float, str]],
) -> None:
    history = [
        past(
            Planned(
                model_sha256=str(nodes % 3),
                shape=ModelShape(nodes=nodes, weight_bytes=weights, model_bytes=weights),
                precision=precision,
                targets=1,
                profiles=1,
            ),
            seconds,
        )
        for nodes, weights, seconds, precision in rows
    ]
    found = estimate(PLANNED, history)
    if found is not None:
        assert 0 < found.seconds.low <= found.seconds.likely <= found.seconds.high
        assert found.like <= found.builds == len(history)


def test_a_precision_is_advised_where_like_models_ended() -> None:
    def auto(model: str, got: str, *refused: str) -> PastBuild:
        planned = replace(PLANNED, model_sha256=model, precision="auto")
        return past(planned, 10.0, got=got, refused=refused)

    history = [
        auto("b", "fp16", "int8+fp16", "int8"),
        auto("c", "fp16", "int8+fp16", "int8"),
        auto("d", "int8", "int8+fp16"),
    ]
    planned = replace(PLANNED, precision="auto")
    advice = advise_precision(planned, history, 0.01)
    assert advice is not None
    assert (advice.precision, advice.ended_there, advice.of) == ("fp16", 2, 2)
    assert advise_precision(planned, [], 0.01) is None
    far = replace(planned, shape=replace(SHAPE, nodes=10_000))
    assert advise_precision(far, history, 0.01) is None


@pytest.mark.parametrize("error", [0.5, None], ids=["a loose gate", "noise"])
def test_what_was_not_accurate_by_the_gate_of_now_is_not_advised(error: float | None) -> None:
    planned = replace(PLANNED, precision="int8")
    history = [past(replace(planned, model_sha256="b"), 10.0, error=error)]
    assert advise_precision(planned, history, 0.01) is None
    assert advise_precision(planned, [past(planned, 10.0)], 0.01) is not None


@pytest.mark.parametrize(
    "shape",
    [
        replace(SHAPE, nodes=100_000),
        replace(SHAPE, weight_bytes=50_000_000_000),
        ModelShape(nodes=1, weight_bytes=4, model_bytes=100),
    ],
)
def test_of_models_that_are_far_from_all_that_were_built_nothing_is_known(
    shape: ModelShape,
) -> None:
    assert estimate(replace(PLANNED, shape=shape), worlds(1)) is None
    assert estimate(replace(PLANNED, precision="int8"), worlds(1)) is None


def test_a_manifest_says_what_its_build_took() -> None:
    plan = BuildPlan(backend="tensorrt_rtx", targets=("SM86", "SM89"))
    costs = BuildCosts(
        shape=SHAPE,
        peak_memory_bytes=7,
        convert_time=timedelta(seconds=2),
        seat_time=timedelta(seconds=15),
        processors=2,
    )
    engine = BuiltEngineFile(
        sha256="b" * 64,
        size_bytes=1,
        backend_version="1",
        built_at=datetime(2026, 1, 1, tzinfo=UTC),
        build_time=timedelta(seconds=12),
        costs=costs,
    )
    seat = SeatUsed(pool="p", grant_id="g", fence=1, holder="h", project="p")
    model = SourceModel(sha256="a" * 64, name="m.onnx")
    manifest = build_manifest(plan, model, engine, seat, agent_id="agent")
    found = past_build(manifest)
    assert found is not None
    assert found.planned == planned_build("a" * 64, SHAPE, plan)
    assert (found.seconds, found.seat_seconds, found.peak_memory_bytes) == (12.0, 15.0, 7.0)
    assert manifest.stats.convert_millis == 2_000

    manifest.ClearField("stats")
    assert past_build(manifest) is None, "an older agent built it"
