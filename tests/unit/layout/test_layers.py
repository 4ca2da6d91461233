"""The layout is the architecture: which room may use which."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.tree import PORTIONS, ROOT

SERVER = "seatkeeper.server"
CLIENT = "seatkeeper.client"

# The rooms, from the ground up. A room is a package of ours; it may use itself, the contract
# (`seatkeeper.v1`), and the rooms that stand here beside it. Those have their own row further up in
# this table, so no import runs back down, except between `CIRCLE`.
ROOMS: dict[str, tuple[str, ...]] = {
    "seatkeeper.core": (),
    "seatkeeper.core.serving": ("seatkeeper.core",),
    "seatkeeper.artifacts": ("seatkeeper.core",),
    "seatkeeper.artifacts.stores": ("seatkeeper.core", "seatkeeper.artifacts"),
    # A node.
    f"{SERVER}.domain": ("seatkeeper.core",),
    f"{SERVER}.policy": (f"{SERVER}.domain",),
    f"{SERVER}.decide": (f"{SERVER}.domain", f"{SERVER}.policy"),
    f"{SERVER}.replay": (
        "seatkeeper.core",
        *(f"{SERVER}.{room}" for room in ("domain", "policy", "decide")),
    ),
    f"{SERVER}.wire": ("seatkeeper.core", "seatkeeper.core.serving", f"{SERVER}.domain"),
    f"{SERVER}.store": ("seatkeeper.core", f"{SERVER}.domain", f"{SERVER}.wire"),
    f"{SERVER}.store.etcd": ("seatkeeper.core", "seatkeeper.etcd.v3", f"{SERVER}.store"),
    f"{SERVER}.events": (
        "seatkeeper.core.serving",
        *(f"{SERVER}.{room}" for room in ("domain", "wire", "store")),
    ),
    f"{SERVER}.telemetry": (
        *("seatkeeper.core", "seatkeeper.core.serving"),
        *(f"{SERVER}.domain", f"{SERVER}.events"),
    ),
    f"{SERVER}.identity": ("seatkeeper.core.serving", f"{SERVER}.store"),
    f"{SERVER}.deployment": (
        *(f"{SERVER}.{room}" for room in ("store", "store.etcd", "events", "telemetry")),
    ),
    f"{SERVER}.sessions": tuple(f"{SERVER}.{room}" for room in ("domain", "wire", "store")),
    f"{SERVER}.tokens": (
        "seatkeeper.core",
        *(f"{SERVER}.{room}" for room in ("domain", "store", "events")),
    ),
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
        *(f"{SERVER}.{room}" for room in ("domain", "wire", "store", "events")),
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
    f"{CLIENT}.pools_file": ("seatkeeper.core",),
    f"{CLIENT}.imports": ("seatkeeper.core", f"{CLIENT}.pools_file"),
    f"{CLIENT}.borrowing": ("seatkeeper.core",),
    f"{CLIENT}.admin": ("seatkeeper.core", f"{CLIENT}.config", f"{CLIENT}.transport"),
    f"{CLIENT}.builds": (
        *("seatkeeper.core", "seatkeeper.artifacts"),
        *(f"{CLIENT}.{room}" for room in ("transport", "session")),
    ),
    CLIENT: ("seatkeeper.core", f"{CLIENT}.*"),
    f"{CLIENT}.diagnosis": ("seatkeeper.core", CLIENT, f"{CLIENT}.*"),
    "seatkeeper.hold": (CLIENT, f"{CLIENT}.*"),
    "seatkeeper.testing": (
        *("seatkeeper.core", "seatkeeper.core.serving", CLIENT, f"{CLIENT}.*"),
        f"{SERVER}.*",
    ),
    # A build agent.
    "seatkeeper.builder.conversion": ("seatkeeper.artifacts",),
    "seatkeeper.builder": (
        *("seatkeeper.artifacts", "seatkeeper.builder.conversion"),
        "seatkeeper.builder.backends",
    ),
    "seatkeeper.builder.backends": ("seatkeeper.artifacts", "seatkeeper.builder"),
    "seatkeeper.builder.running": (
        *("seatkeeper.artifacts", "seatkeeper.builder.conversion"),
        "seatkeeper.builder.backends",
    ),
    "seatkeeper.agent": (
        *("seatkeeper.core", "seatkeeper.core.serving", "seatkeeper.artifacts"),
        *("seatkeeper.artifacts.stores", "seatkeeper.builder", CLIENT),
    ),
    # Who used what.
    "seatkeeper.ledger": (
        *("seatkeeper.core", "seatkeeper.core.serving"),
        *(SERVER, f"{SERVER}.domain", f"{SERVER}.store", f"{SERVER}.events"),
    ),
    # Trying a service with faults. The checker reads the store, and shares no code with a node.
    "seatkeeper.oracle": (f"{SERVER}.store",),
    "seatkeeper.devcluster": ("seatkeeper.core", CLIENT),
    "seatkeeper.chaos": (
        *("seatkeeper.core", CLIENT, f"{CLIENT}.*", f"{SERVER}.store"),
        "seatkeeper.oracle",
    ),
    # The command line parses, calls and renders.
    "seatkeeper.cli": (
        *("seatkeeper.core", "seatkeeper.artifacts", "seatkeeper.artifacts.stores"),
        *("seatkeeper.hold", CLIENT, f"{CLIENT}.*"),
    ),
    # Its commands that start processes of ours know those.
    "seatkeeper.cli.processes": (
        *("seatkeeper.core", "seatkeeper.core.serving", "seatkeeper.artifacts"),
        *("seatkeeper.hold", "seatkeeper.cli", CLIENT, f"{CLIENT}.*", SERVER, f"{SERVER}.*"),
        *("seatkeeper.agent", "seatkeeper.ledger", "seatkeeper.devcluster", "seatkeeper.chaos"),
    ),
}
CIRCLE = {"seatkeeper.builder", "seatkeeper.builder.backends"}
"""The two rooms that use each other: a backend takes a job and returns errors, which have no home of
their own."""
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
PURE = (
    *(f"{SERVER}.{room}" for room in ("domain", "policy", "decide", "replay")),
    *(
        f"seatkeeper.core.{module}"
        for module in ("lot_use", "burst_rule", "rule_text", "rule_bursts")
    ),
    *(
        f"seatkeeper.core.{module}"
        for module in ("projects", "pool_rules", "reclaim", "hold", "lots")
    ),
    *("seatkeeper.core.reservations", "seatkeeper.core.counting", "seatkeeper.core.stay"),
    *("seatkeeper.core.borrowing", "seatkeeper.core.count_once"),
)
"""Rooms that do no input or output, and ask no clock: what they decide can be replayed. And modules
of the ground that they decide by."""
PURE_IMPORTS: dict[str, set[str]] = {
    **{name: set() for name in ("__future__", "bisect", "collections", "dataclasses", "enum")},
    **{name: set() for name in ("functools", "heapq", "itertools", "re", "typing")},
    "math": {"ceil", "exp", "floor", "log"},
    "fractions": {"Fraction"},
    "collections.abc": set(),
    "datetime": {"timedelta"},
    "sys": {"maxsize"},
    "seatkeeper.core.amounts": {"exact_seconds", "span"},
    "seatkeeper.core.validate": {"Malformed", "check_name", "is_name"},
}
"""What they may import beside each other, and which names of it; none named: any."""
IMPURE_CALLS = {"__import__", "breakpoint", "compile", "eval", "exec", "input", "open", "print"}


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
    for room, below in ROOMS.items():
        for one in below:
            if one in ROOMS and {room, one} != CIRCLE:
                assert order.index(one) < order.index(room), f"{room} stands on {one}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_may_use_nothing_that_it_does_not_use(room: str) -> None:
    used = {
        room_of(module)
        for name, path in MODULES.items()
        if room_of(name) == room and name not in ALIASES
        for module in _imported(path)
    }
    unused = {
        allowed
        for allowed in ROOMS[room]
        if not any(
            one == allowed or (allowed.endswith(".*") and one.startswith(allowed[:-1]))
            for one in used
        )
    }
    assert unused == set(), "remove it from the table"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith(PURE)])
def test_decisions_do_no_io(name: str) -> None:
    """Decisions take the time and the world as arguments, so they can be replayed."""
    assert list(impurities(MODULES[name].read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import os.path",
        "from datetime import datetime",
        "import datetime",
        "from uuid import uuid4",
        "from secrets import token_hex",
        "from random import random",
        "from pathlib import Path",
        "import asyncio",
        "import logging",
        "from sys import stdout",
        "from seatkeeper.core.clock import SystemClock",
        "from seatkeeper.core import clock",
        "from seatkeeper.v1 import seat_pb2",
        "def now():\n    import time",
        "found = open('/etc/hosts')",
        "print(1)",
        "__import__('time')",
    ],
)
def test_a_clock_randomness_and_io_are_found(source: str) -> None:
    assert len(list(impurities(source))) == 1


def test_the_design_page_has_the_same_table() -> None:
    """What a room is for is said there; what it may use is said here, and repeated there."""
    page = (ROOT / "docs/explanation/design.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `([\w.]+)` \| .+ \| (.*) \|$", page, re.MULTILINE)
    assert table == [(room.removeprefix("seatkeeper."), spelled(room)) for room in ROOMS]


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


def spelled(room: str) -> str:
    """Return what a room may use, as the design page has it.

    Without ``seatkeeper.``; a name that begins with a dot is of the same package as the room.
    """
    parent = ".".join(room.split(".")[:2])
    names = [
        allowed.removeprefix(parent if allowed.startswith(f"{parent}.") else "seatkeeper.")
        for allowed in ROOMS[room]
    ]
    return ", ".join(f"`{name}`" for name in names)


def impurities(source: str) -> Iterator[str]:
    """Yield each import and call of a module that a decision must not have."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                # A whole module, where only some of its names may be used, is one too many.
                yield from (each.name for each in names if PURE_IMPORTS.get(each.name) != set())
            case ast.ImportFrom(module=str(module), names=names) if not module.startswith(PURE):
                allowed = PURE_IMPORTS.get(module)
                for each in names:
                    if allowed is None or (allowed and each.name not in allowed):
                        yield f"{module}.{each.name}"
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_CALLS:
                yield name


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
