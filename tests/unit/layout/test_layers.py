"""The layout is the architecture: which room may use which."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.tree import PORTIONS, ROOT

IO_MODULES = {"asyncio", "grpc", "logging", "os", "random", "socket", "subprocess"} | {
    "threading",
    "time",
}

SERVER = "seatkeeper.server"
CLIENT = "seatkeeper.client"

# The rooms, from the ground up. A room is a package; each may use itself, the contract
# (`seatkeeper.v1`), and the rooms that stand here beside it. All of them stand further up in this
# table, so no import runs back up.
ROOMS: dict[str, tuple[str, ...]] = {
    "seatkeeper.core": (),
    "seatkeeper.core.serving": ("seatkeeper.core",),
    "seatkeeper.artifacts": ("seatkeeper.core",),
    # A node.
    f"{SERVER}.domain": ("seatkeeper.core",),
    f"{SERVER}.policy": (f"{SERVER}.domain",),
    f"{SERVER}.decide": (f"{SERVER}.domain", f"{SERVER}.policy"),
    f"{SERVER}.wire": ("seatkeeper.core", "seatkeeper.core.serving", f"{SERVER}.domain"),
    f"{SERVER}.store": ("seatkeeper.core", f"{SERVER}.domain", f"{SERVER}.wire"),
    f"{SERVER}.store.etcd": ("seatkeeper.core", "seatkeeper.etcd.v3", f"{SERVER}.store"),
    f"{SERVER}.events": (
        *("seatkeeper.core", "seatkeeper.core.serving"),
        *(f"{SERVER}.{room}" for room in ("domain", "wire", "store")),
    ),
    f"{SERVER}.telemetry": (
        *("seatkeeper.core", "seatkeeper.core.serving"),
        *(f"{SERVER}.domain", f"{SERVER}.events"),
    ),
    f"{SERVER}.identity": ("seatkeeper.core", "seatkeeper.core.serving", f"{SERVER}.store"),
    f"{SERVER}.deployment": (
        *(f"{SERVER}.{room}" for room in ("domain", "store", "store.etcd")),
        *(f"{SERVER}.{room}" for room in ("events", "telemetry")),
    ),
    f"{SERVER}.sessions": tuple(f"{SERVER}.{room}" for room in ("domain", "wire", "store")),
    f"{SERVER}.tokens": tuple(f"{SERVER}.{room}" for room in ("domain", "store", "events")),
    f"{SERVER}.engines": tuple(
        f"{SERVER}.{room}" for room in ("domain", "store", "events", "sessions")
    ),
    f"{SERVER}.routing": (
        "seatkeeper.core",
        *(f"{SERVER}.{room}" for room in ("domain", "wire", "store", "events")),
    ),
    f"{SERVER}.pool": (
        "seatkeeper.core",
        *(f"{SERVER}.{room}" for room in ("domain", "policy", "decide", "wire", "store")),
        *(f"{SERVER}.{room}" for room in ("events", "deployment", "sessions", "routing")),
    ),
    f"{SERVER}.report": (
        *(
            f"{SERVER}.{room}"
            for room in ("domain", "store", "store.etcd", "events", "telemetry")
        ),
        *(f"{SERVER}.{room}" for room in ("identity", "deployment", "routing")),
    ),
    f"{SERVER}.service": (
        *("seatkeeper.core", "seatkeeper.core.serving"),
        *(f"{SERVER}.{room}" for room in ("domain", "decide", "wire", "store", "events")),
        *(f"{SERVER}.{room}" for room in ("identity", "sessions", "tokens", "engines")),
        *(f"{SERVER}.{room}" for room in ("routing", "pool", "report")),
    ),
    SERVER: ("seatkeeper.core", "seatkeeper.core.serving", f"{SERVER}.*"),
    # A client.
    f"{CLIENT}.config": ("seatkeeper.core",),
    f"{CLIENT}.transport": ("seatkeeper.core", f"{CLIENT}.config"),
    f"{CLIENT}.session": ("seatkeeper.core", f"{CLIENT}.config", f"{CLIENT}.transport"),
    f"{CLIENT}.helper": (
        "seatkeeper.core",
        *(f"{CLIENT}.{room}" for room in ("config", "transport", "session")),
    ),
    f"{CLIENT}.admin": ("seatkeeper.core", f"{CLIENT}.config", f"{CLIENT}.transport"),
    f"{CLIENT}.builds": (
        *("seatkeeper.core", "seatkeeper.artifacts"),
        *(f"{CLIENT}.{room}" for room in ("config", "transport", "session")),
    ),
    CLIENT: ("seatkeeper.core", "seatkeeper.artifacts", f"{CLIENT}.*"),
    f"{CLIENT}.diagnosis": ("seatkeeper.core", CLIENT, f"{CLIENT}.*"),
    "seatkeeper.hold": ("seatkeeper.core", CLIENT, f"{CLIENT}.*"),
    "seatkeeper.testing": (
        *("seatkeeper.core", "seatkeeper.core.serving", CLIENT, f"{CLIENT}.*"),
        *(SERVER, f"{SERVER}.*"),
    ),
    # A build agent.
    "seatkeeper.builder": ("seatkeeper.artifacts", "seatkeeper.builder.backends"),
    "seatkeeper.builder.backends": ("seatkeeper.artifacts", "seatkeeper.builder"),
    "seatkeeper.agent": (
        *("seatkeeper.core", "seatkeeper.core.serving", "seatkeeper.artifacts"),
        *("seatkeeper.builder", CLIENT, f"{CLIENT}.*"),
    ),
    # Trying a service with faults. The checker reads the store, and shares no code with a node.
    "seatkeeper.oracle": (f"{SERVER}.store",),
    "seatkeeper.devcluster": ("seatkeeper.core", CLIENT),
    "seatkeeper.chaos": (
        *("seatkeeper.core", CLIENT, f"{CLIENT}.*", f"{SERVER}.store"),
        *("seatkeeper.oracle", "seatkeeper.devcluster"),
    ),
    # The command line parses, calls and renders.
    "seatkeeper.cli": (
        *("seatkeeper.core", "seatkeeper.artifacts", "seatkeeper.hold"),
        *(CLIENT, f"{CLIENT}.*"),
    ),
    # Its commands that start processes of ours know those.
    "seatkeeper.cli.processes": (
        *("seatkeeper.core", "seatkeeper.core.serving", "seatkeeper.artifacts"),
        *("seatkeeper.hold", "seatkeeper.cli", CLIENT, f"{CLIENT}.*", SERVER, f"{SERVER}.*"),
        *("seatkeeper.agent", "seatkeeper.devcluster", "seatkeeper.oracle", "seatkeeper.chaos"),
    ),
}
ALIASES = {
    "seatkeeper.builder.errors": "seatkeeper.artifacts.errors",
    "seatkeeper.builder.manifest": "seatkeeper.artifacts.manifest",
    "seatkeeper.builder.plan": "seatkeeper.artifacts.plan",
    "seatkeeper.client.errors": "seatkeeper.core.errors",
    "seatkeeper.client.testing": "seatkeeper.testing",
    "seatkeeper.client.tokens": "seatkeeper.core.tokens",
}
"""Names that users import, and where they lead. Our code uses the rooms themselves."""
GROUND = ("seatkeeper.v1",)
"""What any room may use; but those that decide."""
NODES = (SERVER, "seatkeeper.oracle", "seatkeeper.testing")
"""Who may use `seatkeeper.internal.v1`: nodes, and what reads their store or is one in memory."""
PURE = (f"{SERVER}.domain", f"{SERVER}.policy", f"{SERVER}.decide")
"""Rooms that do no input or output, and ask no clock: what they decide can be replayed."""


def _modules() -> Iterator[tuple[str, Path]]:
    for portion in PORTIONS:
        for path in sorted((ROOT / portion / "seatkeeper").rglob("*.py")):
            if "_pb2" not in path.name:
                name = ".".join(path.relative_to(ROOT / portion).with_suffix("").parts)
                yield name.removesuffix(".__init__"), path


MODULES = dict(_modules())
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py"} | {
    "seatkeeper.v1",
    "seatkeeper.internal.v1",
    "seatkeeper.etcd.v3",
}


@pytest.mark.parametrize("portion", PORTIONS)
def test_seatkeeper_stays_a_namespace(portion: str) -> None:
    """One ``__init__.py`` here would hide the other folders' packages."""
    assert not (ROOT / portion / "seatkeeper" / "__init__.py").exists()


def test_every_room_is_in_the_table_and_stands_on_those_before_it() -> None:
    assert {room_of(name) for name in MODULES} == ROOMS.keys()
    order = list(ROOMS)
    backends = {"seatkeeper.builder", "seatkeeper.builder.backends"}  # one hand, two folders
    for room, below in ROOMS.items():
        for one in below:
            if one in ROOMS and {room, one} != backends:
                assert order.index(one) < order.index(room), f"{room} stands on {one}"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith(PURE)])
def test_decisions_do_no_io(name: str) -> None:
    """Decisions take the time and the world as arguments, so they can be replayed."""
    imported = {module.split(".")[0] for module in _imported(MODULES[name])}
    assert imported.isdisjoint(IO_MODULES)


@pytest.mark.parametrize("name", ALIASES)
def test_an_alias_leads_to_its_room_and_has_nothing_else(name: str) -> None:
    document, *body = ast.parse(MODULES[name].read_text()).body
    assert isinstance(document, ast.Expr)
    for statement in body:
        if isinstance(statement, ast.ImportFrom):
            assert statement.module == ALIASES[name]
        else:
            assert isinstance(statement, ast.Assign)
    alias, room = (importlib.import_module(module) for module in (name, ALIASES[name]))
    there = [getattr(room, name) for name in dir(room)]
    for public in alias.__all__:
        assert any(getattr(alias, public) is one for one in there), public


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_its_room_may(name: str) -> None:
    if name in ALIASES:
        return
    room = room_of(name)
    wrong = {
        module
        for module in _imported(MODULES[name])
        if module.startswith("seatkeeper.")
        and (module in ALIASES or not _may(room, room_of(module)))
    }
    assert wrong == set()


def room_of(module: str) -> str:
    """Return the room of a module: the package that it is in, or is; the name of a lone one."""
    while module not in PACKAGES and module.count(".") > 1:
        module = module.rpartition(".")[0]
    return module


def _may(room: str, other: str) -> bool:
    if other == room or (other in GROUND and not room.startswith(PURE)):
        return True
    if other == "seatkeeper.internal.v1":
        return room.startswith(NODES) and not room.startswith(PURE)
    return any(
        other == allowed
        or (allowed.endswith(".*") and other.startswith(allowed.removesuffix("*")))
        for allowed in ROOMS[room]
    )


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(package), names=names):
                # A package's own name, or a module in it.
                for alias in names:
                    full = f"{package}.{alias.name}"
                    yield full if full in MODULES else package
