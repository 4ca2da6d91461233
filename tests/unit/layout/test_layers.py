"""The layout is the architecture, so the layout has tests."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PORTIONS = ("client", "server", "builder", "chaos", "proto")
IO_MODULES = {"asyncio", "grpc", "logging", "os", "random", "socket", "subprocess"} | {
    "threading",
    "time",
}
FUNCTION_LINES_MAX = 80
FILE_LINES_MAX = 700

# What anybody may import: it needs nothing, and means the same to all.
GROUND = {"seatkeeper.core.amounts", "seatkeeper.core.extras", "seatkeeper.core.text"}

# What each part may import of ours, from the ground up. A module belongs to the longest prefix
# that it starts with; what is not named here may import anything.
ALLOWED: dict[str, set[str]] = {
    "seatkeeper.core.amounts": set(),
    "seatkeeper.core.text": set(),
    "seatkeeper.server.decide": {"seatkeeper.server.decide"},
    "seatkeeper.server.store": {
        "seatkeeper.server.store",
        "seatkeeper.core.channels",
        "seatkeeper.etcd",
    },
    "seatkeeper.server.service": {
        "seatkeeper.server",
        "seatkeeper.v1",
        # Tokens are verified by one function, the client's.
        "seatkeeper.core.errors",
        "seatkeeper.core.ring",
        "seatkeeper.core.tokens",
    },
    # Nodes and clients must agree on who owns a pool.
    "seatkeeper.server.routing": {
        "seatkeeper.server",
        "seatkeeper.v1",
        "seatkeeper.core.ring",
    },
    "seatkeeper.server": {
        "seatkeeper.server",
        "seatkeeper.v1",
        # What both ends mean by an address, and how either reaches the other.
        "seatkeeper.core.address",
        "seatkeeper.core.channels",
    },
    "seatkeeper.agent": {
        "seatkeeper.builder",
        "seatkeeper.client",
        "seatkeeper.v1",
        # What every server of ours has in common: ports, certificates, failures, settings, logs.
        "seatkeeper.core.validate",
        "seatkeeper.core.serving.failure",
        "seatkeeper.core.serving.handlers",
        "seatkeeper.core.serving.listening",
        "seatkeeper.core.serving.logs",
        "seatkeeper.core.serving.reload",
        "seatkeeper.core.serving.signals",
        "seatkeeper.core.serving.settings",
        "seatkeeper.core.serving.texts",
    },
    "seatkeeper.builder": {"seatkeeper.builder", "seatkeeper.v1"},
    "seatkeeper.core.validate": set(),
    # The service for users' tests is the real one. The client itself needs none of it.
    **{
        f"seatkeeper.client.{module}": {
            "seatkeeper.client",
            "seatkeeper.core.environment",
            "seatkeeper.server",
            "seatkeeper.v1",
        }
        for module in ("_memory_node", "_movable_clock", "testing")
    },
    # The oracle reads the store by its own means: a fault of the service must not be in both.
    **{
        oracle: {
            "seatkeeper.oracle.history",
            "seatkeeper.oracle.record",
            "seatkeeper.oracle",
            "seatkeeper.server.store",
            "seatkeeper.v1",
        }
        for oracle in (
            "seatkeeper.oracle.checker",
            "seatkeeper.oracle.history",
            "seatkeeper.oracle.record",
            "seatkeeper.oracle.witness",
            "seatkeeper.oracle",
        )
    },
    # Faults and workload: the users are clients like others.
    "seatkeeper.chaos": {
        "seatkeeper.chaos",
        "seatkeeper.client",
        "seatkeeper.oracle",
        "seatkeeper.server.store",
        "seatkeeper.v1",
    },
    # Names alone: loaded by whoever must be quick to load.
    "seatkeeper.core.environment": set(),
    "seatkeeper.core.extras": set(),
    # Loaded by every run of pytest; the client only once a test asks.
    "seatkeeper.testing.pytest_plugin": {
        "seatkeeper.core.errors",
        "seatkeeper.testing.service",
    },
    # The guard is a process without site-packages, so all that it imports is Python's or its own.
    **{
        f"seatkeeper.hold.{module}": {
            f"seatkeeper.hold.{other}" for other in ("guard", "init", "linux", "stopping")
        }
        for module in ("guard", "init", "linux", "stopping")
    },
    # Runs programs under a seat that somebody else has taken.
    "seatkeeper.hold": {"seatkeeper.hold", "seatkeeper.client"},
    "seatkeeper.client": {
        "seatkeeper.client",
        "seatkeeper.core.environment",
        "seatkeeper.core.extras",
        "seatkeeper.v1",
        # An engine's key and signature mean the same to who builds it and to who fetches it.
        "seatkeeper.artifacts.errors",
        "seatkeeper.artifacts.manifest",
        "seatkeeper.artifacts.plan",
    },
}


def _modules() -> Iterator[tuple[str, Path]]:
    for portion in PORTIONS:
        for path in sorted((ROOT / portion / "seatkeeper").rglob("*.py")):
            if "_pb2" not in path.name:
                name = ".".join(path.relative_to(ROOT / portion).with_suffix("").parts)
                yield name.removesuffix(".__init__"), path


MODULES = dict(_modules())
PURE_MODULES = [name for name in MODULES if ".decide" in name]


@pytest.mark.parametrize("portion", PORTIONS)
def test_seatkeeper_stays_a_namespace(portion: str) -> None:
    """One ``__init__.py`` here would hide the other three folders' packages."""
    assert not (ROOT / portion / "seatkeeper" / "__init__.py").exists()


@pytest.mark.parametrize("name", PURE_MODULES)
def test_decisions_do_no_io(name: str) -> None:
    """Decisions take the time and the world as arguments, so they can be replayed."""
    imported = {module.split(".")[0] for module in _imported(MODULES[name])}
    assert imported.isdisjoint(IO_MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_its_layer_may(name: str) -> None:
    allowed = _allowed(name)
    strangers = [
        module
        for module in _imported(MODULES[name])
        if module.startswith("seatkeeper.")
        and not any(_is_within(module, prefix) for prefix in allowed)
    ]
    assert strangers == []


@pytest.mark.parametrize("name", MODULES)
def test_a_file_fits_a_sitting_and_a_function_a_screen(name: str) -> None:
    source = MODULES[name].read_text()
    assert source.count("\n") <= FILE_LINES_MAX
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= FUNCTION_LINES_MAX
    ]
    assert long == []


def _allowed(name: str) -> set[str]:
    layers = [layer for layer in ALLOWED if _is_within(name, layer)]
    return GROUND | ALLOWED[max(layers, key=len)] if layers else {"seatkeeper"}


def _is_within(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(f"{prefix}.")


def _imported(path: Path) -> list[str]:
    return [
        name for node in ast.walk(ast.parse(path.read_text())) for name in _imported_names(node)
    ]


def _imported_names(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module="seatkeeper.v1" | "seatkeeper.etcd.v3" as package):
            return [package]
        case ast.ImportFrom(module=str(module)):
            return [module]
        case _:
            return []
