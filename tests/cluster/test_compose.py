"""``docker-compose.yml``: a valid file, and a service that works."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.balancer import page, until
from tests.cluster.topology import Image, Topology, read_compose, read_containerfile
from tests.debian_tools import COMPOSE, HAPROXY, PROMETHEUS, PROMTOOL, Tool, find, need

from seatkeeper.client import AsyncSeatClient
from seatkeeper.devcluster.etcd_binary import find_etcd

PROMETHEUS_IMAGE = Image(("prometheus",))
PERMANENT = {"etcd-1", "etcd-2", "etcd-3", "node-1", "node-2", "node-3", "haproxy"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file, checked and read by the tool that runs it."""
    return read_compose(need(COMPOSE))


def test_every_service_is_locked_up_pinned_and_looked_after(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services.keys() == PERMANENT | {"agent", "prometheus"}
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["healthcheck"], name
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]) or "build" in service, name
        for volume in service.get("volumes", []):
            assert volume["type"] == "volume" or volume["read_only"], name


def test_the_image_is_made_from_files_that_exist_and_runs_without_root(
    compose: dict[str, Any],
) -> None:
    for service in compose["services"].values():
        if "build" in service:
            build = service["build"]
            text = (Path(build["context"]) / build["dockerfile"]).read_text()
            sources = re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE)
            named = [name for line in sources for name in line.split()]
            ignored = (Path(build["context"]) / ".dockerignore").read_text().splitlines()
            for name in named:
                assert (Path(build["context"]) / name).exists()
                assert f"!{name}" in ignored
            assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", text, re.MULTILINE)
            assert re.findall(r"^FROM (\S+)", text, re.MULTILINE)[-1].count(":") == 1


@pytest.fixture
async def topology(compose: dict[str, Any], tmp_path: Path) -> AsyncIterator[Topology]:
    """The services of the file, as processes on loopback, each as healthy as the file asks for."""
    etcd = find_etcd().path
    here = Path(sys.executable).parent
    programs = {"etcd": etcd, "etcdctl": etcd.with_name("etcdctl"), "haproxy": need(HAPROXY)}
    programs |= {"seatkeeper": here / "seatkeeper"}
    programs |= {name: Path(shutil.which(name) or name) for name in ("bash", "sh")}
    services = dict(compose["services"])
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        del services["agent"]
    prometheus: dict[Tool, Path | None] = {tool: find(tool) for tool in (PROMETHEUS, PROMTOOL)}
    if None in prometheus.values():
        del services["prometheus"]
    programs |= {tool.name: path for tool, path in prometheus.items() if path is not None}
    images = {"seatkeeper": read_containerfile(), "prom/prometheus": PROMETHEUS_IMAGE}
    topology = Topology(compose | {"services": services}, images, programs, tmp_path)
    try:
        await topology.start()
        yield topology
    finally:
        await asyncio.to_thread(topology.stop)


async def test_the_services_of_the_compose_file_work_together(topology: Topology) -> None:
    address = topology.published("haproxy", 7420)
    async with AsyncSeatClient(address) as client:
        await client.pools.create("tensorrt", seats=1)
        async with client.seat("tensorrt", wait=10) as grant:
            fence = grant.fence
            topology.kill("node-1")
            # Behind one address, that a node died is invisible.
            assert [each.grant_id for each in (await client.pools.get("tensorrt")).grants] == [
                grant.grant_id
            ]
            grant.raise_if_lost()
        async with client.seat("tensorrt", wait=10) as grant:
            assert grant.fence == fence + 1
        topology.launch("node-1")
        await topology.wait_healthy("node-1")

        nodes = {node.node_id: node.address for node in await client.cluster.nodes()}
        assert nodes == {
            name: topology.address(name, 7420) for name in ("node-1", "node-2", "node-3")
        }
        if "agent" in topology.services:
            (agent,) = await client.engines.agents()
            assert agent.address == topology.published("agent", 7440)
    if "prometheus" in topology.services:
        await everything_is_scraped(topology)


async def everything_is_scraped(topology: Topology) -> None:
    """Wait until Prometheus has read something of every service."""
    url = f"http://{topology.published('prometheus', 9090)}/api/v1/targets"

    async def is_so() -> bool:
        status, _, text = (await page(url)).partition("\n")
        targets = json.loads(text)["data"]["activeTargets"] if status == "200" else []
        return len(targets) == 7 and all(each["health"] == "up" for each in targets)

    await until(is_so, "all targets up")
