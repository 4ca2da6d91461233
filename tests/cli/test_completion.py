"""Tab: names come from the service, in a real bash; and where there is none, nothing happens."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.cli.commands import SCRIPT, environment
from tests.cli.conftest import Cluster

from seatkeeper.cli import completion
from seatkeeper.v1 import pool_service_pb2


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the completion was installed as the documentation says."""
    home = tmp_path_factory.mktemp("home")
    subprocess.run(
        [SCRIPT, "--install-completion", "bash"],
        env=environment(HOME=str(home), SHELL="/bin/bash"),
        check=True,
        timeout=60,
        capture_output=True,
    )
    return home


def tab(home: Path, nodes: str, *line: str) -> list[str]:
    """What bash offers at the end of a line."""
    words = " ".join(f"'{word}'" for word in line)
    done = subprocess.run(
        [
            "bash",
            "--norc",
            "-c",
            f". {home}/.bashrc; COMP_WORDS=(seatkeeper {words}); COMP_CWORD={len(line)}; "
            "$(complete -p seatkeeper | sed 's/.*-F \\([^ ]*\\) .*/\\1/') seatkeeper; "
            'printf "%s\\n" "${COMPREPLY[@]}"',
        ],
        env=environment(HOME=str(home), SEATKEEPER_NODES=nodes),
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_offers_what_the_service_knows(cluster: Cluster, installed: Path) -> None:
    pool = cluster.pool()
    node = cluster.here("node", "list", "--json").check().json["nodes"][0]["node_id"]
    assert "pool" in tab(installed, cluster.address, "po")
    assert "show" in tab(installed, cluster.address, "pool", "sh")
    assert pool in tab(installed, cluster.address, "pool", "show", "")
    assert pool in tab(installed, cluster.address, "status", "pool-")
    assert pool in tab(installed, cluster.address, "run", "--pool", pool[:5])
    assert tab(installed, cluster.address, "node", "drain", node[:3]) == [node]
    assert tab(installed, cluster.address, "build", "m.onnx", "--target", "sm8") == [
        *("sm80", "sm86", "sm89", "sm87")
    ]
    nodes = ("--nodes", cluster.address)
    assert pool in tab(installed, "127.0.0.1:9", "pool", "show", *nodes, "")


def test_without_a_service_nothing_is_offered_and_nothing_said(installed: Path) -> None:
    for nodes in ("127.0.0.1:9", "nonsense", "[::1]:9"):
        assert tab(installed, nodes, "pool", "show", "") == []
        assert tab(installed, nodes, "engines", "get", "") == []


def test_no_name_that_could_give_orders_is_offered(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def foreign(self: object) -> list[pool_service_pb2.Pool]:
        names = ("good", "go\x1b[2Jod", "go\nod")
        return [
            pool_service_pb2.Pool(spec=pool_service_pb2.PoolSpec(name=name)) for name in names
        ]

    monkeypatch.setattr("seatkeeper.client.admin.pools.AsyncPools.list", foreign)
    monkeypatch.setenv("SEATKEEPER_NODES", cluster.address)
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")  # which it sets, in this process
    context: Any = SimpleNamespace(params={})
    assert completion.pools(context, "go") == ["good"]
