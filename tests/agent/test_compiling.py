"""One's own calls of the library under a seat: a real compiler, and a real service."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import Any

import pytest
from tests.agent.site import POOL, Site
from tests.builder.models import light_model, relu_chain
from tests.processes import until

from seatkeeper.client import HoldingState, SeatClient
from seatkeeper.core.errors import SeatLost, UsageError
from seatkeeper.hold.compiling import AsyncCompiling, Compiling

LONG = relu_chain(2_000)
"""Builds for some seconds, and asks its monitor now and then."""


@pytest.fixture(scope="session")
def trt() -> Any:
    importlib.import_module("onnxruntime_ep_nv_tensorrt_rtx")
    return importlib.import_module("tensorrt_rtx_bindings")


class Model:
    """What the library needs to build a model."""

    def __init__(self, trt: Any, model: bytes) -> None:
        self.builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
        self.network = self.builder.create_network(0)
        self._parser = trt.OnnxParser(self.network, self.builder.logger)
        assert self._parser.parse(model)
        self.config = self.builder.create_builder_config()
        self.config.num_compute_capabilities = 1
        self.config.set_compute_capability(trt.ComputeCapability.SM86, 0)

    @property
    def parts(self) -> tuple[Any, Any, Any]:
        return self.builder, self.network, self.config


def monitor(trt: Any, on_step: Callable[[], bool]) -> Any:
    class Mine(trt.IProgressMonitor):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
            pass

        def step_complete(self, phase_name: str, step: int) -> bool:
            return on_step()

        def phase_finish(self, phase_name: str) -> None:
            pass

    return Mine()


def test_an_engine_is_built_while_a_seat_is_held(site: Site, trt: Any) -> None:
    model = Model(trt, light_model("squeezenet"))
    held: list[int] = []

    def look() -> bool:
        held.append(site.service.held(POOL))
        return True

    mine = monitor(trt, look)
    model.config.progress_monitor = mine
    with SeatClient(site.service.address) as client:
        with Compiling(client, POOL) as compiling:
            engine = compiling.build(*model.parts)
            assert compiling.grant.fence == 1
        assert site.service.held(POOL) == 0
    assert bytes(engine)[:4] == b"vtrt"
    assert set(held) == {1}
    assert model.config.progress_monitor is mine


def lose(site: Site, compiling: Compiling) -> None:
    """Have the service take the seat away, and wait until the client knows."""
    site.drop(compiling.grant.grant_id)
    until(lambda: compiling.grant.state is HoldingState.LOST)


def test_a_build_whose_seat_is_lost_is_stopped_and_gives_no_engine(
    site: Site, trt: Any
) -> None:
    model = Model(trt, LONG)
    steps: list[int] = []
    engines: list[object] = []

    def on_step() -> bool:
        if not steps:
            lose(site, compiling)
        steps.append(1)
        return True

    model.config.progress_monitor = monitor(trt, on_step)
    client = SeatClient(site.service.address)
    compiling = Compiling(client, POOL)

    def build() -> None:
        with compiling:
            engines.append(compiling.build(*model.parts))

    with client, pytest.raises(SeatLost):
        build()
    assert len(steps) == 1, "the library was stopped when it asked"
    assert engines == []
    assert site.service.held(POOL) == 0


def test_a_seat_that_was_lost_before_builds_nothing(site: Site, trt: Any) -> None:
    model = Model(trt, light_model("squeezenet"))
    asked: list[int] = []

    def on_step() -> bool:
        asked.append(1)
        return True

    model.config.progress_monitor = monitor(trt, on_step)
    with SeatClient(site.service.address) as client:
        compiling = Compiling(client, POOL)
        compiling.__enter__()
        lose(site, compiling)
        with pytest.raises(SeatLost):
            compiling.build(*model.parts)
        with pytest.raises(SeatLost):
            compiling.__exit__(None, None, None)
    assert not asked


def test_what_the_callers_own_monitor_says_counts(site: Site, trt: Any) -> None:
    model = Model(trt, LONG)
    model.config.progress_monitor = monitor(trt, lambda: False)
    with SeatClient(site.service.address) as client, Compiling(client, POOL) as compiling:
        assert compiling.build(*model.parts) is None


async def test_an_async_program_goes_on_meanwhile(site: Site, trt: Any) -> None:
    model, turns = Model(trt, LONG), 0
    async with AsyncCompiling(site.client(), POOL) as compiling:
        work = asyncio.create_task(compiling.build(*model.parts))
        while not work.done():
            turns += 1
            await asyncio.sleep(0.01)
        assert bytes(work.result())[:4] == b"vtrt"
    assert turns > 3


async def test_cancelling_stops_the_library(site: Site, trt: Any) -> None:
    model, asked = Model(trt, LONG), asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_step() -> bool:
        loop.call_soon_threadsafe(asked.set)
        return True

    model.config.progress_monitor = monitor(trt, on_step)
    async with AsyncCompiling(site.client(), POOL) as compiling:
        work = asyncio.create_task(compiling.build(*model.parts))
        await asked.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    assert site.service.held(POOL) == 0


def test_a_monitor_alone_is_for_those_who_make_their_config_elsewhere(
    site: Site, trt: Any
) -> None:
    model = Model(trt, light_model("squeezenet"))
    with SeatClient(site.service.address) as client, Compiling(client, POOL) as compiling:
        model.config.progress_monitor = compiling.monitor(trt)
        engine = model.builder.build_serialized_network(model.network, model.config)
        compiling.grant.raise_if_lost()
    assert bytes(engine)[:4] == b"vtrt"


def test_without_a_seat_nothing_is_built(site: Site, trt: Any) -> None:
    model = Model(trt, light_model("squeezenet"))
    with SeatClient(site.service.address) as client:
        compiling = Compiling(client, POOL)
        with pytest.raises(UsageError, match="enter the `with` first"):
            compiling.build(*model.parts)
