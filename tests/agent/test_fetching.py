"""An engine arrives as it was published, or not at all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from tests.agent.site import (
    OPTIONS,
    Refusal,
    Site,
    build,
    key_of,
    manifest_of,
    refusal_of,
)
from tests.builder.models import light_model, relu

from seatkeeper.agent.main import Agent
from seatkeeper.client import EngineDamaged
from seatkeeper.v1 import build_pb2, build_service_pb2_grpc
from seatkeeper.v1 import build_service_pb2 as pb


async def fetch(agent: Agent, key: str) -> tuple[build_pb2.SignedManifest, list[bytes]]:
    async with aio.insecure_channel(agent.info.address) as channel:
        stub = build_service_pb2_grpc.BuildServiceStub(channel)
        answers = [each async for each in stub.FetchEngine(pb.FetchEngineRequest(key=key))]
    assert [each.WhichOneof("part") for each in answers[1:]] == ["chunk"] * (len(answers) - 1)
    return answers[0].manifest, [each.chunk for each in answers[1:]]


async def refused(agent: Agent, key: str) -> Refusal:
    with pytest.raises(aio.AioRpcError) as caught:
        await fetch(agent, key)
    return refusal_of(caught.value)


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def folder_of(agent: Agent) -> Path:
    return agent.build_runner.store.staging.parent


async def test_an_engine_comes_in_pieces_after_its_manifest(site: Site, agent: Agent) -> None:
    grant = await site.grant()
    done = await build(agent, grant.token, light_model("resnet50")).result()
    manifest, chunks = await fetch(agent, key_of(done))
    assert manifest == done.manifest
    assert len(chunks) > 1
    assert max(map(len, chunks)) == 1 << 20
    assert sum(map(len, chunks)) == manifest_of(manifest).file.size_bytes


async def test_reading_an_engine_blocks_no_other_call(
    site: Site, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant = await site.grant()
    done = await build(agent, grant.token, relu()).result()
    readers: list[threading.Thread] = []
    open_engine = agent.build_runner.store.open

    def open_noted(key: str) -> Any:
        context = open_engine(key)
        enter = context.__enter__

        class Noted:
            def __enter__(self) -> Any:
                readers.append(threading.current_thread())
                return enter()

            def __exit__(self, *exc_info: Any) -> None:
                context.__exit__(*exc_info)

        return Noted()

    monkeypatch.setattr(agent.build_runner.store, "open", open_noted)
    await fetch(agent, key_of(done))
    assert len(readers) == 1
    assert threading.main_thread() not in readers


@pytest.mark.parametrize("key", ["ab" * 32, "", "../../agent-key.pem", "AB" * 32])
async def test_what_is_not_there_is_not_found(site: Site, agent: Agent, key: str) -> None:
    refusal = await refused(agent, key)
    assert refusal.code is grpc.StatusCode.NOT_FOUND, refusal
    assert refusal.reason == "engine_not_found"


async def test_a_key_that_none_can_be_is_refused(site: Site, agent: Agent) -> None:
    refusal = await refused(agent, "x" * 5_000)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT, refusal


def flip_a_bit(folder: Path) -> None:
    path = only_file(folder / "blobs")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_the_end(folder: Path) -> None:
    path = only_file(folder / "blobs")
    path.write_bytes(path.read_bytes()[:-1])


def lose_the_bytes(folder: Path) -> None:
    only_file(folder / "blobs").unlink()


def damage_the_manifest(folder: Path) -> None:
    path = only_file(folder / "manifests")
    path.write_bytes(path.read_bytes()[:-10])


DAMAGES = [flip_a_bit, cut_the_end, lose_the_bytes, damage_the_manifest]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_engine_is_not_given_out(
    site: Site, agent: Agent, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    built = await site.client().build(relu(), OPTIONS)
    damage(folder_of(agent))
    refusal = await refused(agent, built.key)
    assert refusal.code is grpc.StatusCode.DATA_LOSS, refusal
    with pytest.raises(EngineDamaged):
        await site.client().fetch(built.key, tmp_path / "engine")
    assert not (tmp_path / "engine").exists()


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_engine_is_built_again_when_the_agent_is_asked(
    site: Site, agent: Agent, damage: Callable[[Path], None]
) -> None:
    grant = await site.grant()
    first = await build(agent, grant.token, relu()).result()
    damage(folder_of(agent))
    again = await build(agent, grant.token, relu()).result()
    assert not again.cached
    manifest, chunks = await fetch(agent, key_of(first))
    assert manifest == again.manifest
    assert sum(map(len, chunks)) == manifest_of(manifest).file.size_bytes


async def test_an_engine_that_another_agent_published_since_is_not_ours_to_answer_with(
    site: Site, agent: Agent, tmp_path: Path
) -> None:
    """The catalogue has one engine of a key. The client would not believe another's manifest."""
    other = await site.start_agent("agent-2")
    grant = await site.grant()
    await build(agent, grant.token, relu()).result()
    await build(other, grant.token, relu()).result()
    await other.stop()

    built = await site.client("bob").build(relu(), OPTIONS, to=tmp_path / "engine")
    assert not built.cached
    assert built.manifest.agent_id == "agent-1"
    assert (tmp_path / "engine").stat().st_size == built.manifest.file.size_bytes


async def test_an_engine_outlives_its_agent(site: Site, tmp_path: Path) -> None:
    first = await site.start_agent()
    built = await site.client().build(relu(), OPTIONS)
    await first.stop()
    assert list((await site.client().engines.get(built.key)).addresses) == []

    second = await site.start_agent()
    assert second.info.public_key == first.info.public_key
    again = await site.client("bob").build(relu(), OPTIONS, to=tmp_path / "engine")
    assert again.cached
    assert again.manifest == built.manifest


async def test_an_agent_says_what_it_can_build(site: Site, agent: Agent) -> None:
    async with site.client().agent(agent.info.address) as direct:
        reported = await direct.capabilities()
    assert [reported] == list(await site.client().engines.agents())
    assert reported == agent.info
    assert {backend.name for backend in reported.backends} == {"tensorrt_rtx"}
    assert "SM86" in reported.backends[0].targets


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_engine_does_not_stop_an_agent_from_starting(
    site: Site, damage: Callable[[Path], None]
) -> None:
    agent = await site.start_agent()
    await site.client().build(relu(), OPTIONS)
    await agent.stop()
    damage(folder_of(agent))
    again = await site.start_agent()
    grant = await site.grant()
    assert not (await build(again, grant.token, relu()).result()).cached
