"""A real node keeps the contract: every script for servers, in memory and over etcd."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.conformance.nodes import in_memory, on_etcd
from tests.conformance.script import Result, scripts

from seatkeeper.devcluster.etcd_process import EtcdCluster

SCRIPTS = {script.name: script for script in scripts("server")}
CASES = [("memory", n) for n, s in SCRIPTS.items() if not s.needs] + [
    ("etcd", name) for name in SCRIPTS
]


pytestmark = pytest.mark.timeout(900)
"""The first test waits for all scripts."""


@pytest.fixture(scope="module")
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Result]:
    """What became of the chosen scripts. All at once: most of them only wait."""
    chosen = {
        case
        for item in request.session.items
        if item.path == request.path
        for case in CASES
        if item.name.endswith(f"[{case[0]}-{case[1]}]")
    }
    folder = tmp_path_factory.mktemp("nodes")
    for store in ("memory", "etcd"):
        (folder / store).mkdir()
    etcd: EtcdCluster | None = None
    if any(store == "etcd" for store, _ in chosen):
        etcd = request.getfixturevalue("etcd")
    return asyncio.run(_run(chosen, folder, etcd))


async def _run(
    chosen: set[tuple[str, str]], folder: Path, etcd: EtcdCluster | None
) -> dict[tuple[str, str], Result]:
    memory = [SCRIPTS[name] for store, name in sorted(chosen) if store == "memory"]
    real = [SCRIPTS[name] for store, name in sorted(chosen) if store == "etcd"]
    runs = [in_memory(folder / "memory", memory)]
    if etcd is not None:
        runs.append(on_etcd(folder / "etcd", etcd.endpoints, real))
    done = await asyncio.gather(*runs)
    return {
        (store, result.script): result
        for store, results in zip(("memory", "etcd"), done, strict=False)
        for result in results
    }


@pytest.mark.parametrize(("store", "name"), CASES, ids=lambda value: str(value))
def test_the_server_keeps_the_contract(
    store: str, name: str, results: dict[tuple[str, str], Result]
) -> None:
    result = results[store, name]
    assert not result.skipped, result.line()
    assert result.ok, result.line()


def test_every_finding_about_the_protocol_has_scripts() -> None:
    covered = {tag for script in SCRIPTS.values() for tag in script.covers}
    assert {"B1", "B2", "B4", "B5", "B6", "B7", "tokens", "exactly-once", "fences"} <= covered
    assert {"order", "capacity", "compatibility"} <= covered
    assert len(SCRIPTS) >= 40
