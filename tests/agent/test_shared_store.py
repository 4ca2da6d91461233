"""Agents that share a store serve each other's engines, and no engine is lost with its agent."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc import aio
from tests.agent.site import (
    OPTIONS,
    Site,
    build,
    eventually,
    is_idle,
    key_of,
    manifest_of,
    refusal_of,
)
from tests.builder.models import light_model, relu
from tests.s3_server import S3Server, running_s3

from seatkeeper.agent import holdings
from seatkeeper.agent.config import AgentConfig
from seatkeeper.agent.main import Agent
from seatkeeper.artifacts.errors import (
    EngineDamaged,
    StoreAddressInvalid,
    StoreFull,
    StoreUnavailable,
)
from seatkeeper.artifacts.store import StoredEngine
from seatkeeper.artifacts.stores.artifact_store import ArtifactStore
from seatkeeper.client import EngineNotStored
from seatkeeper.core.serving.settings import ConfigError, load_settings
from seatkeeper.v1 import build_service_pb2 as pb
from seatkeeper.v1 import build_service_pb2_grpc


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "shared")


@pytest.fixture
def shared(address: str) -> ArtifactStore:
    return ArtifactStore.at(address)


async def bytes_from(agent: Agent, key: str, offset: int = 0) -> bytes:
    async with aio.insecure_channel(agent.info.address) as channel:
        stub = build_service_pb2_grpc.BuildServiceStub(channel)
        request = pb.FetchEngineRequest(key=key, offset=offset)
        answers = [each async for each in stub.FetchEngine(request)]
    return b"".join(each.chunk for each in answers[1:])


def forbid_compiling(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    async def compile_no_more(*_: Any) -> None:
        pytest.fail("it was built again")

    monkeypatch.setattr(agent.build_runner, "compile", compile_no_more)


def failing(kind: type[Exception]) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise kind("the store is not what it was")

    return fail


async def test_an_engine_outlives_the_agent_that_built_it(
    site: Site, address: str, tmp_path: Path
) -> None:
    first = await site.start_agent("agent-1", store=address)
    second = await site.start_agent("agent-2", store=address)
    done = await build(first, (await site.grant()).token, relu()).result()
    key = key_of(done)
    assert manifest_of(done.manifest).store == first.info.store == second.info.store != ""
    client = site.client()
    both = [first.info.address, second.info.address]
    assert list((await client.engines.get(key)).addresses) == both
    await first.stop()

    await eventually(lambda: len_of_agents(site, 1))
    assert list((await client.engines.get(key)).addresses) == both[1:]
    fetched = await client.fetch(key, tmp_path / "engine")
    assert fetched == manifest_of(done.manifest)
    assert fetched.agent_id == "agent-1"


async def len_of_agents(site: Site, count: int) -> bool:
    return len(await site.client().engines.agents()) == count


async def test_an_agent_with_another_store_is_not_asked(site: Site, tmp_path: Path) -> None:
    first = await site.start_agent("agent-1", store=str(tmp_path / "one"))
    await site.start_agent("agent-2", store=str(tmp_path / "two"))
    await site.start_agent("agent-3")
    done = await build(first, (await site.grant()).token, relu()).result()
    found = await site.client().engines.get(key_of(done))
    assert list(found.addresses) == [first.info.address]


async def test_what_another_agent_has_published_is_not_built_again(
    site: Site, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await site.start_agent("agent-1", store=address)
    second = await site.start_agent("agent-2", store=address)
    done = await build(first, (await site.grant()).token, relu()).result()
    forbid_compiling(second, monkeypatch)
    again = await build(second, (await site.grant()).token, relu()).result()
    assert again.cached
    assert again.manifest == done.manifest


async def test_a_store_that_does_not_answer_is_found_before_the_build(
    site: Site, address: str, shared: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await site.start_agent(store=address)
    forbid_compiling(agent, monkeypatch)
    monkeypatch.setattr(agent.build_runner.holdings.shared, "check", failing(StoreUnavailable))
    refusal = await build(agent, (await site.grant()).token, relu()).refused()
    assert refusal.code is grpc.StatusCode.UNAVAILABLE, refusal
    assert refusal.reason == "store_unavailable"
    assert refusal.detail(error_details_pb2.RetryInfo) is not None
    assert await site.published() == []
    assert site.claims == []


async def test_a_full_store_loses_no_engine(
    site: Site, address: str, shared: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await site.start_agent(store=address)
    with monkeypatch.context() as patch:
        patch.setattr(agent.build_runner.holdings.shared, "put_bytes", failing(StoreFull))
        refusal = await build(agent, (await site.grant()).token, relu()).refused()
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION, refusal
    assert refusal.reason == "engine_not_stored"
    assert await site.published() == shared.engines() == []
    assert agent.build_runner.store.keys() == []
    assert site.claims == []
    assert is_idle(agent)
    with monkeypatch.context() as patch:
        patch.setattr(agent.build_runner.holdings.shared, "put_bytes", failing(StoreFull))
        with pytest.raises(EngineNotStored) as failed:
            await site.client("carol").build(relu(), OPTIONS, wait=30)
    assert failed.value.retryable

    forbid_compiling(agent, monkeypatch)
    grant = await site.grant("bob")
    done = await build(agent, grant.token, relu()).result()
    assert not done.cached
    manifest = manifest_of(done.manifest)
    # It is published under the grant that is held now.
    assert (manifest.fence, manifest.holder) == (grant.fence, "bob")
    assert await site.published() == shared.engines() == [manifest.key]
    assert agent.build_runner.holdings.unpublished.keys() == []


async def test_an_s3_server_that_dies_while_publishing_loses_no_engine(
    site: Site, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = s3.address("dies")
    agent = await site.start_agent("agent-1", store=address)
    shared = agent.build_runner.holdings.shared
    assert shared is not None
    put_file = shared.objects.put_file

    def dies(name: str, path: Path) -> None:
        s3.kill()
        put_file(name, path)

    monkeypatch.setattr(shared.objects, "put_file", dies)
    try:
        refusal = await build(
            agent, (await site.grant()).token, light_model("resnet50")
        ).refused()
    finally:
        monkeypatch.setattr(shared.objects, "put_file", put_file)
        await asyncio.to_thread(s3.start)
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION, refusal
    assert refusal.reason == "engine_not_stored"
    assert await site.published() == shared.engines() == []
    assert list(shared.objects.list("blobs")) == []
    assert site.claims == []

    forbid_compiling(agent, monkeypatch)
    grant = await site.grant()
    done = await build(agent, grant.token, light_model("resnet50")).result()
    assert shared.engines() == [key_of(done)]
    await agent.stop()
    other = await site.start_agent("agent-2", store=address)
    await site.client().fetch(key_of(done), tmp_path / "engine")
    assert other.build_runner.store.keys() == [key_of(done)]


async def test_an_engine_whose_manifest_the_store_has_not_got_is_served_and_stored_later(
    site: Site,
    address: str,
    shared: ArtifactStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holdings, "OWED_RETRY", 0.05)
    first = await site.start_agent("agent-1", store=address)
    first_store = first.build_runner.holdings.shared
    monkeypatch.setattr(first_store, "put_manifest", failing(StoreUnavailable))
    done = await build(first, (await site.grant()).token, relu()).result()
    key = key_of(done)
    assert await site.published() == [key]
    assert shared.engines() == []
    # The agent dies before the store answers again.
    await first.stop()
    await site.start_agent("agent-2", store=address)
    await site.client().fetch(key, tmp_path / "engine")
    await eventually(lambda: shared.engines() == [key])
    assert shared.manifest(key)[0] == done.manifest


async def test_an_agent_stores_what_its_folder_has_from_before(
    site: Site, address: str, shared: ArtifactStore
) -> None:
    agent = await site.start_agent()
    done = await build(agent, (await site.grant()).token, relu()).result()
    await agent.stop()
    await site.start_agent(store=address)
    await eventually(lambda: shared.engines() == [key_of(done)])


async def test_a_lost_seat_leaves_no_engine_in_the_store(
    site: Site, address: str, shared: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await site.start_agent(store=address)
    grant = await site.grant()
    store = agent.build_runner.holdings.shared
    assert store is not None
    put_bytes = store.put_bytes

    def loses_the_seat(*arguments: Any) -> None:
        put_bytes(*arguments)
        site.drop(grant.grant_id)

    monkeypatch.setattr(store, "put_bytes", loses_the_seat)
    refusal = await build(agent, grant.token, relu()).refused()
    assert refusal.code is grpc.StatusCode.ABORTED, refusal
    assert await site.published() == shared.engines() == []
    assert agent.build_runner.store.keys() == []


async def test_a_damaged_copy_is_replaced_from_the_store(site: Site, address: str) -> None:
    agent = await site.start_agent(store=address)
    done = await build(agent, (await site.grant()).token, relu()).result()
    whole = await bytes_from(agent, key_of(done))
    (blob,) = (agent.build_runner.store.staging.parent / "blobs").iterdir()
    blob.write_bytes(bytes(len(whole)))
    assert await bytes_from(agent, key_of(done)) == whole


async def test_damaged_bytes_in_the_store_are_not_served(
    site: Site, address: str, shared: ArtifactStore
) -> None:
    first = await site.start_agent("agent-1", store=address)
    second = await site.start_agent("agent-2", store=address)
    done = await build(first, (await site.grant()).token, relu()).result()
    file = manifest_of(done.manifest).file
    shared.objects.put(f"blobs/{file.sha256}", bytes(file.size_bytes))
    with pytest.raises(aio.AioRpcError) as caught:
        await bytes_from(second, key_of(done))
    assert refusal_of(caught.value).reason == "engine_damaged"
    assert second.build_runner.store.keys() == []


async def test_a_transfer_is_resumed_where_it_was_cut(site: Site, agent: Agent) -> None:
    done = await build(agent, (await site.grant()).token, light_model("resnet50")).result()
    whole = await bytes_from(agent, key_of(done))
    for offset in (1, 1_500_000, len(whole)):
        assert await bytes_from(agent, key_of(done), offset) == whole[offset:]


@pytest.mark.parametrize("offset", [-1, 1 << 40])
async def test_an_offset_outside_the_engine_is_refused(
    site: Site, agent: Agent, offset: int
) -> None:
    done = await build(agent, (await site.grant()).token, relu()).result()
    with pytest.raises(aio.AioRpcError) as caught:
        await bytes_from(agent, key_of(done), offset)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


SECRET = "hunter2-hunter2"


@pytest.mark.parametrize(
    "address",
    [
        f"s3://user:{SECRET}@bucket/engines",
        f"s3://bucket/engines?secret={SECRET}",
        f"s3://bucket/engines?endpoint=http://user:{SECRET}@host",
        f"sftp://user:{SECRET}@host/engines",
        f"s3://?{SECRET}",
        f"{SECRET}\n",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(StoreAddressInvalid) as refused:
        ArtifactStore.at(address)
    assert SECRET not in str(refused.value)
    with pytest.raises(ConfigError, match="store") as invalid:
        load_settings(AgentConfig, None, {"store": address})
    assert SECRET not in str(invalid.value)


async def test_wrong_credentials_end_an_agent_that_starts_and_are_not_repeated(
    site: Site, s3: S3Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with pytest.raises(Exception, match="s3://") as refused:
        await site.start_agent(store=s3.address("secret"))
    assert getattr(refused.value, "code", "") == "store_refused"
    said = str(refused.value) + caplog.text
    assert SECRET not in said
    assert os.environ["AWS_ACCESS_KEY_ID"] not in said


async def test_a_pull_through_agents_goes_on_at_the_next_one(
    site: Site, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await site.start_agent("agent-1", store=address)
    await site.start_agent("agent-2", store=address)
    done = await build(first, (await site.grant()).token, light_model("resnet50")).result()
    whole = await bytes_from(first, key_of(done))
    chunks = StoredEngine.chunks
    asked: list[int] = []

    def cut_short(engine: StoredEngine, offset: int = 0) -> Iterator[bytes]:
        asked.append(offset)
        pieces = chunks(engine, offset)
        if len(asked) == 1:
            yield next(pieces)
            raise EngineDamaged("the disk died")
        yield from pieces

    monkeypatch.setattr(StoredEngine, "chunks", cut_short)
    pulled = await site.client().pull(key_of(done), tmp_path / "engine")
    assert (tmp_path / "engine").read_bytes() == whole
    assert asked == [0, 1 << 20]
    assert pulled.resumed_at == 0


async def test_an_agent_that_does_not_know_offsets_is_pulled_from_all_the_same(
    site: Site, agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = await build(agent, (await site.grant()).token, relu()).result()
    whole = await bytes_from(agent, key_of(done))
    sha256 = manifest_of(done.manifest).file.sha256
    (tmp_path / f".engine.{sha256[:16]}.part").write_bytes(whole[:100])
    chunks = StoredEngine.chunks
    monkeypatch.setattr(StoredEngine, "chunks", lambda engine, offset=0: chunks(engine))
    await site.client().pull(key_of(done), tmp_path / "engine")
    assert (tmp_path / "engine").read_bytes() == whole
