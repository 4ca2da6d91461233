"""An agent whose builds do harm lives, has its seat back, and publishes nothing."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from tests.agent.site import OPTIONS, Site, build, eventually, is_idle, key_of
from tests.builder import mischief
from tests.builder.models import relu

from seatkeeper.agent import build_runner
from seatkeeper.agent.main import Agent
from seatkeeper.artifacts.errors import IsolationUnavailable
from seatkeeper.v1.build_service_pb2 import Isolation

MIB = 1 << 20
REFUSED = "not permitted here"


async def harmed(
    site: Site, agent: Agent, library: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> tuple[grpc.StatusCode, str, str]:
    """Build with a harmful library; return how it failed, once the agent has built as ever since."""
    limits = agent.build_runner.limits
    agent.build_runner.limits = replace(
        limits,
        memory_bytes=400 * MIB,
        engine_bytes_max=20 * MIB,
        files_bytes_max=60 * MIB,
        cpu_time=timedelta(seconds=20),
    )
    grant = await site.grant()
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", library["PYTHONPATH"])
        refusal = await build(agent, grant.token, relu()).refused()
    assert site.claims == []
    assert await site.published() == []
    assert agent.build_runner.store.keys() == []
    assert is_idle(agent)

    agent.build_runner.limits = limits
    done = await build(agent, grant.token, relu()).result()
    assert await site.published() == [key_of(done)]
    return refusal.code, refusal.reason, refusal.message


@pytest.mark.parametrize(
    ("program", "reasons"),
    [
        (mischief.FORKS, {"too_many_processes", "out_of_memory"}),
        (mischief.WRITES_ONE_FILE, {"files_too_large"}),
        (mischief.WRITES_MANY_FILES, {"files_too_large"}),
        (mischief.EATS_MEMORY, {"out_of_memory"}),
    ],
    ids=["forks", "writes one file", "writes many files", "eats memory"],
)
async def test_a_build_that_takes_too_much_is_ended(
    site: Site,
    agent: Agent,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    reasons: set[str],
) -> None:
    library = mischief.instead_of_the_library(tmp_path / "library", program)
    code, reason, _ = await harmed(site, agent, library, monkeypatch)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason in reasons


async def test_a_build_that_connects_out_fails(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: str
) -> None:
    if refusal:
        pytest.skip(f"this kernel does not isolate: {refusal}")
    agent = await site.start_agent()
    assert (agent.info.isolation.network, agent.info.isolation.processes) == (True, True)
    with mischief.listener() as server:
        program = mischief.CONNECTS.format(port=mischief.port_of(server))
        library = mischief.instead_of_the_library(tmp_path / "library", program)
        code, reason, message = await harmed(site, agent, library, monkeypatch)
        assert not mischief.was_reached(server)
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "backend_missing")
    assert "unreachable" in message


async def test_what_a_build_started_is_gone_when_its_client_is(
    site: Site, agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid_file = tmp_path / "growing"
    program = mischief.LEAVES_A_DAEMON.format(path=str(pid_file), ending=mischief.SPINS)
    library = mischief.instead_of_the_library(tmp_path / "library", program)
    monkeypatch.setenv("PYTHONPATH", library["PYTHONPATH"])
    grant = await site.grant()
    call = build(agent, grant.token, relu())
    await eventually(pid_file.exists)
    call.cancel()
    await eventually(lambda: is_idle(agent) and not site.claims)
    assert await site.published() == []


async def test_a_kernel_that_does_not_isolate_is_a_warning(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _refuse(monkeypatch)
    with caplog.at_level(logging.WARNING):
        agent = await site.start_agent()
    assert [r.message for r in caplog.records] == ["isolation_unavailable"]
    assert agent.info.isolation == Isolation()
    assert not (await site.client().build(relu(), OPTIONS)).cached


async def test_isolation_that_is_required_and_refused_keeps_an_agent_from_starting(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    _refuse(monkeypatch)
    with pytest.raises(IsolationUnavailable, match=REFUSED):
        await site.start_agent(isolation="required")
    assert await site.client().engines.agents() == []


async def test_isolation_can_be_turned_off(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    agent = await site.start_agent(isolation="off")
    assert agent.info.isolation == Isolation()
    assert "isolation_unavailable" not in caplog.text
    assert not (await site.client().build(relu(), OPTIONS)).cached


def _refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*arguments: object) -> str:
        return REFUSED

    monkeypatch.setattr(build_runner, "_refusal", refused)
