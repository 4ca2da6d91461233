"""Models whose weights are in files outside of theirs: sent as one, built as one."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
from tests.agent.exchange import Exchange, header, sha256
from tests.agent.site import OPTIONS, POOL, Site, eventually, is_idle, key_of, manifest_of
from tests.builder.models import relu, weights_of, with_weights_outside

from seatkeeper.agent.main import Agent
from seatkeeper.artifacts import summary
from seatkeeper.artifacts.bundle import ExternalFile, model_hash
from seatkeeper.artifacts.plan import BuildPlan, engine_key, plan_to_options
from seatkeeper.artifacts.precision import Precision, PrecisionPlan
from seatkeeper.chaos.relay import Relay
from seatkeeper.client import AgentFull, AgentUnavailable, ModelRejected

FILES = {
    "weights.bin": weights_of(16 * 8),
    "parts/a/first.bin": weights_of(16 * 8, 2),
    "parts/a/same.bin": weights_of(16 * 8, 2),
}
MODEL = with_weights_outside(FILES).SerializeToString()
LARGE = {"large.bin": weights_of(16 * (1 << 17)), "small.bin": weights_of(16 * 8, 3)}
"""8 MiB and a little."""
LARGE_MODEL = with_weights_outside(LARGE).SerializeToString()


def laid_out(folder: Path, model: bytes = MODEL, files: dict[str, bytes] = FILES) -> Path:
    for name, content in {"model.onnx": model, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / "model.onnx"


async def test_a_model_with_weights_outside_becomes_an_engine(
    site: Site, agent: Agent, tmp_path: Path
) -> None:
    model = laid_out(tmp_path / "net")
    built = await site.client().build(model, OPTIONS, to=tmp_path / "engine")
    files = [
        ExternalFile(path=path, sha256=sha256(content), size_bytes=len(content))
        for path, content in FILES.items()
    ]
    hashed = model_hash(sha256(MODEL), files)
    version = agent.build_runner.backends["tensorrt_rtx"].version
    plan = BuildPlan(backend="tensorrt_rtx", targets=("SM86",))
    assert built.key == engine_key(hashed, plan, version)
    assert built.manifest.model_sha256 == sha256(MODEL)
    assert built.manifest.bundle.sha256 == hashed
    assert built.manifest.bundle.files == 3
    assert built.manifest.bundle.size_bytes == len(MODEL) + sum(map(len, FILES.values()))
    assert not built.upload_resumed
    assert site.service.held(POOL) == 0
    assert is_idle(agent)

    again = await site.client("bob").build(model, OPTIONS)
    assert again.cached
    (tmp_path / "net" / "weights.bin").write_bytes(weights_of(16 * 8, 9))
    other = await site.client("bob").build(model, OPTIONS)
    assert not other.cached
    assert other.key != built.key


async def test_the_engine_has_the_weights_that_were_outside(
    site: Site, agent: Agent, tmp_path: Path
) -> None:
    """As those of one file: the engine is the same to the byte."""
    model = laid_out(tmp_path / "net")
    outside = await site.client().build(model, OPTIONS, to=tmp_path / "outside")
    import onnx

    whole = onnx.load(model)
    inside = await site.client().build(
        whole.SerializeToString(), OPTIONS, to=tmp_path / "inside"
    )
    assert outside.key != inside.key
    assert (tmp_path / "outside").read_bytes() == (tmp_path / "inside").read_bytes()


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.AUTO])
async def test_a_model_with_weights_outside_is_converted(
    site: Site, agent: Agent, tmp_path: Path, precision: Precision
) -> None:
    plan = BuildPlan(
        backend="tensorrt_rtx", targets=("SM86",), precision=PrecisionPlan(precision=precision)
    )
    built = await site.client().build(laid_out(tmp_path / "net"), plan_to_options(plan))
    report = built.manifest.precision
    wanted = "fp32" if precision is Precision.FP32 else "fp16"
    assert report.precision == wanted
    weights = {share.precision: share.weight_bytes for share in report.shares}
    different = sum(map(len, set(FILES.values())))  # the conversion finds those that are equal
    assert weights[wanted] >= (different // 2 if wanted == "fp16" else different)


async def test_a_file_that_is_there_twice_is_sent_once(site: Site, agent: Agent) -> None:
    grant = await site.grant()
    exchange = Exchange(agent, header(grant.token, MODEL, FILES), [MODEL, *FILES.values()])
    done = await exchange.result()
    assert exchange.wanted == [
        (sha256(MODEL), 0),
        (sha256(FILES["weights.bin"]), 0),
        (sha256(FILES["parts/a/first.bin"]), 0),
    ]
    assert await site.published() == [key_of(done)]


async def test_a_client_that_is_not_asked_sends_everything_in_order(
    site: Site, agent: Agent
) -> None:
    grant = await site.grant()
    contents = list(dict.fromkeys([MODEL, *FILES.values()]))
    exchange = Exchange(agent, header(grant.token, MODEL, FILES, attempt=0), contents)
    assert manifest_of((await exchange.result()).manifest).bundle.files == 3
    assert exchange.wanted is None


# An upload that a lost connection interrupts -----------------------------------------------------


async def behind(relay_to: Agent) -> Relay:
    """A relay that clients reach an agent through."""
    relay = Relay(relay_to.info.address)
    await relay.start()
    relay_to.info.address = relay.endpoint
    await relay_to.client.engines.register_agent(relay_to.info)
    return relay


def received(agent: Agent) -> int:
    """Bytes of the uploads that are under way."""
    under_way = agent.build_runner.uploads._under_way
    return sum(part.received for parts in under_way for part in parts.values())


async def test_an_upload_goes_on_where_a_lost_connection_ended_it(
    site: Site, agent: Agent, tmp_path: Path
) -> None:
    relay = await behind(agent)
    relay.slow(0.005)
    model = laid_out(tmp_path / "net", LARGE_MODEL, LARGE)
    building = asyncio.create_task(site.client().build(model, OPTIONS))
    await eventually(lambda: received(agent) > 3 << 20)
    relay.cut()
    uploads = agent.build_runner.uploads
    await eventually(lambda: uploads.kept_bytes > 3 << 20)
    relay.recover()
    built = await building
    assert built.upload_resumed
    assert not built.cached
    assert site.fence == 1, "under the same seat"
    assert site.service.held(POOL) == 0
    assert is_idle(agent)
    await relay.close()


async def test_a_connection_lost_after_the_upload_sends_nothing_again(
    site: Site, agent: Agent
) -> None:
    grant = await site.grant()
    contents = [LARGE_MODEL, *LARGE.values()]
    first = Exchange(agent, header(grant.token, LARGE_MODEL, LARGE), contents)
    reading = asyncio.create_task(first.result())
    await eventually(lambda: received(agent) == sum(map(len, contents)))
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await eventually(lambda: not site.claims)
    second = Exchange(agent, header(grant.token, LARGE_MODEL, LARGE, attempt=2), contents)
    assert not (await second.result()).cached
    assert second.wanted == []


async def test_a_later_try_ends_the_earlier_one_that_the_agent_still_believes_in(
    site: Site, agent: Agent
) -> None:
    grant = await site.grant()
    contents = [LARGE_MODEL, *LARGE.values()]
    relay = await behind(agent)
    first = Exchange(agent, header(grant.token, LARGE_MODEL, LARGE), contents)
    relay.slow(0.01)
    reading = asyncio.create_task(first.result())
    await eventually(lambda: received(agent) > 2 << 20)
    relay.strand()  # the agent does not notice
    agent.info.address = relay.target
    second = Exchange(agent, header(grant.token, LARGE_MODEL, LARGE, attempt=2), contents)
    assert not (await second.result()).cached
    assert second.wanted is not None
    assert any(offset > 1 << 20 for _, offset in second.wanted)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await relay.close()
    await eventually(lambda: is_idle(agent) and not site.claims)


async def test_what_one_grant_has_sent_another_cannot_ask_for(site: Site, agent: Agent) -> None:
    alice, bob = await site.grant("alice"), await site.grant("bob")
    contents = [LARGE_MODEL, *LARGE.values()]
    half = Exchange(
        agent,
        header(alice.token, LARGE_MODEL, LARGE),
        contents,
        cut=lambda content: content[: 6 << 20],
    )
    assert (await half.refused()).reason == "model_truncated"
    uploads = agent.build_runner.uploads
    assert uploads.kept_bytes >= 6 << 20
    claims = site.fence
    other = Exchange(agent, header(bob.token, LARGE_MODEL, LARGE, attempt=2), contents)
    await other.result()
    assert other.wanted is not None
    assert {offset for _, offset in other.wanted} == {0}
    assert len(other.wanted) == 3
    assert site.fence == claims


async def test_what_is_kept_is_gone_when_its_grant_is_lost(site: Site, agent: Agent) -> None:
    grant = await site.grant()
    contents = [LARGE_MODEL, *LARGE.values()]
    relay = await behind(agent)
    relay.slow(0.01)
    exchange = Exchange(agent, header(grant.token, LARGE_MODEL, LARGE), contents)
    reading = asyncio.create_task(exchange.refused())
    await eventually(lambda: received(agent) > 2 << 20)
    site.drop(grant.grant_id)
    assert "nothing is published" in (await reading).message
    await eventually(lambda: is_idle(agent))
    assert agent.build_runner.uploads.kept_bytes == 0
    await relay.close()


# Limits --------------------------------------------------------------------------------------


async def test_the_limit_of_a_model_counts_all_its_files(site: Site, tmp_path: Path) -> None:
    whole = len(MODEL) + sum(map(len, FILES.values()))
    agent = await site.start_agent(model_bytes_max=whole - 1)
    grant = await site.grant()
    exchange = Exchange(agent, header(grant.token, MODEL, FILES), [MODEL, *FILES.values()])
    refusal = await exchange.refused()
    assert refusal.reason == "model_too_large"
    assert exchange.wanted is None
    with pytest.raises(AgentUnavailable, match="model_bytes_max"):
        await site.client("bob").build(laid_out(tmp_path / "net"), OPTIONS)
    assert site.claims == []


async def test_a_disk_without_room_refuses_before_a_byte_comes(
    site: Site, agent: Agent, tmp_path: Path
) -> None:
    uploads = agent.build_runner.uploads
    uploads._free_bytes = lambda folder: 100
    grant = await site.grant()
    exchange = Exchange(agent, header(grant.token, MODEL, FILES), [MODEL, *FILES.values()])
    refusal = await exchange.refused()
    assert refusal.reason == "disk_full"
    assert "room for 100" in refusal.message
    assert exchange.wanted is None
    assert site.claims == []
    await grant.release()

    model = laid_out(tmp_path / "net")
    with pytest.raises(AgentFull):
        await site.client().build(model, OPTIONS)
    assert site.service.held(POOL) == 0
    assert is_idle(agent)
    uploads._free_bytes = lambda folder: 1 << 30
    assert not (await site.client().build(model, OPTIONS)).cached


async def test_a_conversion_that_cannot_be_is_refused_before_a_byte_comes(
    site: Site, agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = laid_out(tmp_path / "net")
    plan = BuildPlan(
        backend="tensorrt_rtx",
        targets=("SM86",),
        precision=PrecisionPlan(precision=Precision.FP16),
    )
    monkeypatch.setattr(summary, "CONVERTED_BYTES_MAX", 1_000)
    with pytest.raises(ModelRejected, match=r"build it as it is, with precision `model`"):
        await site.client().build(model, plan_to_options(plan))
    assert site.fence == 0
    grant = await site.grant()
    exchange = Exchange(
        agent,
        header(grant.token, MODEL, FILES, options=plan_to_options(plan)),
        [MODEL, *FILES.values()],
    )
    assert (await exchange.refused()).reason == "conversion_failed"
    assert exchange.wanted is None
    assert site.claims == []


async def test_an_agent_that_does_not_know_files_is_not_asked(
    site: Site, agent: Agent, tmp_path: Path
) -> None:
    agent.info.model_files_max = 0
    await agent.client.engines.register_agent(agent.info)
    with pytest.raises(AgentUnavailable, match="use a newer agent"):
        await site.client().build(laid_out(tmp_path / "net"), OPTIONS)
    assert site.fence == 0
    # One without them is sent as ever.
    assert not (await site.client().build(relu(), OPTIONS)).cached


async def test_a_client_refuses_what_it_would_not_send_before_it_asks_for_a_seat(
    site: Site, agent: Agent, tmp_path: Path
) -> None:
    model = laid_out(tmp_path / "net")
    (tmp_path / "net" / "weights.bin").unlink()
    (tmp_path / "net" / "weights.bin").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_bytes(FILES["weights.bin"])
    with pytest.raises(ModelRejected, match="symbolic link"):
        await site.client().build(model, OPTIONS)
    with pytest.raises(ModelRejected, match="only its own bytes"):
        await site.client().build(MODEL, OPTIONS)
    assert site.fence == 0


def test_the_files_of_these_tests_differ() -> None:
    assert len({hashlib.sha256(content).hexdigest() for content in FILES.values()}) == 2
