"""The distributions: each has its own files, names what it needs, and works alone."""

from __future__ import annotations

import ast
import email
import os
import re
import site
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.tree import ROOT
from tests.unit.layout.test_packages import build

FOLDERS = {
    "seatkeeper-core": "core",
    "seatkeeper-client": "client",
    "seatkeeper-server": "server",
    "seatkeeper-builder": "builder",
    "seatkeeper-testing": "client/seatkeeper/testing",
    "seatkeeper-ledger": "ledger",
    "seatkeeper-chaos": "chaos",
}
PROVIDED_BY = {
    "cryptography": "pyjwt",
    "dateutil": "python-dateutil",
    "google.protobuf": "protobuf",
    "google.rpc": "grpcio-status",
    "PIL": "pillow",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "grpc_reflection": "grpcio-reflection",
    "grpc_status": "grpcio-status",
    "jwt": "pyjwt",
    "yaml": "pyyaml",
    "prometheus_client": "prometheus-client",
    "pydantic": "pydantic-settings",
    "pydantic_settings": "pydantic-settings",
}
"""The distribution that has a module, where it has another name."""
LATE = {
    "onnxruntime",
    "tensorrt",
    "tensorrt_rtx",
    "tensorrt_rtx_bindings",
    "onnxruntime_ep_nv_tensorrt_rtx",
}
"""Compilers: found at run time, installed by the user."""
PROBES = {
    "seatkeeper-core": "import seatkeeper.core.tokens, seatkeeper.core.ring, seatkeeper.artifacts.plan",
    "seatkeeper-client": (
        "import sys; sys.argv = ['seatkeeper', '--help']\n"
        "from seatkeeper.cli import main; from seatkeeper.client import SeatClient; main()"
    ),
    "seatkeeper-server": "import seatkeeper.server.node",
    "seatkeeper-builder": "import seatkeeper.builder.model, seatkeeper.agent.main",
    "seatkeeper-testing": (
        "from seatkeeper.testing import InMemoryService\n"
        "with InMemoryService({'p': 1}) as service, service.client() as client:\n"
        "    client.acquire('p').release()"
    ),
    "seatkeeper-ledger": "import seatkeeper.ledger.main, seatkeeper.ledger.questions",
    "seatkeeper-chaos": "import seatkeeper.chaos.trial, seatkeeper.devcluster.etcd_process",
}


@dataclass(frozen=True)
class Wheel:
    """A built distribution."""

    path: Path
    files: frozenset[str]
    requires: tuple[str, ...]
    version: str

    def needs(self) -> set[str]:
        """Return the names of what it is installed with, without extras."""
        return {_name(each) for each in self.requires if "extra ==" not in each}

    def extra(self) -> set[str]:
        """Return the names of what its extras add."""
        return {_name(each) for each in self.requires if "extra ==" in each}


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=!~ ;]", requirement)[0].lower()


def _read(path: Path) -> Wheel:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        said = email.message_from_bytes(archive.read(metadata))
    files = frozenset(name for name in names if ".dist-info/" not in name)
    return Wheel(path, files, tuple(said.get_all("Requires-Dist") or ()), said["Version"])


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Wheel]:
    """All of them, built without a network."""
    return {
        name: _read(build(ROOT / folder, "wheel", tmp_path_factory.mktemp(name)))
        for name, folder in FOLDERS.items()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    """The one of the checkout, which has everything."""
    return _read(build(ROOT, "wheel", tmp_path_factory.mktemp("whole")))


def test_together_they_are_what_a_checkout_installs(
    wheels: dict[str, Wheel], whole: Wheel
) -> None:
    seen: dict[str, str] = {}
    for name, wheel in wheels.items():
        for file in wheel.files:
            assert file not in seen, f"{file} is in {name} and in {seen[file]}"
            seen[file] = name
    assert {file for file in seen if not file.endswith(".md")} == set(whole.files)
    assert {wheel.version for wheel in wheels.values()} == {whole.version}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_distribution_names_what_it_imports(wheels: dict[str, Wheel], name: str) -> None:
    wheel = wheels[name]
    declared = wheel.needs() | wheel.extra()
    with zipfile.ZipFile(wheel.path) as archive:
        imported = {
            module
            for file in wheel.files
            if file.endswith(".py") and "/cli/processes/" not in file
            for module in _foreign(archive.read(file).decode())
        }
    assert {PROVIDED_BY.get(module, module) for module in imported - LATE} <= declared
    for requirement in wheel.requires:
        if requirement.startswith("seatkeeper-"):
            assert f"=={wheel.version}" in requirement, "parts of one version belong together"


@pytest.mark.parametrize("name", FOLDERS)
def test_a_distribution_works_with_no_more_of_ours_than_it_names(
    wheels: dict[str, Wheel], name: str, tmp_path: Path
) -> None:
    """Others' packages are taken from this environment; ours only from the wheels."""
    for part in _with_what_it_needs(wheels, name):
        with zipfile.ZipFile(wheels[part].path) as archive:
            archive.extractall(tmp_path)
    others = tmp_path / "others"
    others.mkdir()
    for entry in Path(site.getsitepackages()[0]).iterdir():
        if not entry.name.startswith("seatkeeper") and entry.suffix != ".pth":
            (others / entry.name).symlink_to(entry)
    places = [str(tmp_path), str(others)]
    # Without site: its .pth files would bring the checkout.
    code = f"import sys; sys.path[:0] = {places!r}\n{PROBES[name]}"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_client_has_no_code_of_the_server(wheels: dict[str, Wheel]) -> None:
    parts = _with_what_it_needs(wheels, "seatkeeper-client")
    ours = {file for part in parts for file in wheels[part].files}
    foreign = ("seatkeeper/server", "seatkeeper/builder/", "seatkeeper/testing")
    assert not [file for file in ours if file.startswith(foreign)]


def _with_what_it_needs(wheels: dict[str, Wheel], name: str) -> set[str]:
    found, new = set(), {name}
    while new:
        found |= new
        new = {need for part in new for need in wheels[part].needs() & wheels.keys()} - found
    return found


def _foreign(source: str) -> set[str]:
    """Return what a module imports that is neither Python's nor ours."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module)):
                modules = [module]
            case _:
                continue
        for module in modules:
            top = module.split(".")[0]
            if top == "google":
                found.add(".".join(module.split(".")[:2]))
            elif top != "seatkeeper" and top not in sys.stdlib_module_names:
                found.add(top)
    return found
