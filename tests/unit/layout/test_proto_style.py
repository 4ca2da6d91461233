"""The wire contract is documented and follows the buf STANDARD naming rules."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

PROTO_ROOT = Path(__file__).parents[3] / "proto"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[FileDescriptorProto]:
    out = tmp_path_factory.mktemp("descriptors") / "set.binpb"
    sources = sorted(PROTO_ROOT.rglob("*.proto"))
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTO_ROOT}"),
            *("--include_source_info", f"--descriptor_set_out={out}"),
            *map(str, sources),
        ],
        check=True,
    )
    return list(FileDescriptorSet.FromString(out.read_bytes()).file)


def test_everything_on_the_wire_is_documented(files: list[FileDescriptorProto]) -> None:
    undocumented = [name for file in files for name in _undocumented(file)]
    assert undocumented == []


def test_every_call_lists_its_codes(files: list[FileDescriptorProto]) -> None:
    """``Codes:`` and then names in backticks; those that all calls share are said once."""
    for file in files:
        if file.package != "seatkeeper.v1":
            continue  # etcd's
        for name, comment in _calls(file):
            said, marker, codes = comment.partition("Codes:")
            assert marker, f"{name} lists no codes"
            assert "Fails with" not in said, name
            named = re.findall(r"`([A-Z][A-Z_]+)`", codes)
            statuses = [code for code in named if code in grpc.StatusCode.__members__]
            assert statuses or "those of all calls" in codes, name


def _calls(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    """Return each call's name and comment."""
    comments = {
        tuple(location.path): location.leading_comments
        for location in file.source_code_info.location
    }
    for s, service in enumerate(file.service):
        for m, method in enumerate(service.method):
            yield f"{service.name}.{method.name}", comments[6, s, 2, m]


def test_package_matches_directory(files: list[FileDescriptorProto]) -> None:
    for file in files:
        assert file.package == str(Path(file.name).parent).replace("/", ".")


def _undocumented(file: FileDescriptorProto) -> Iterator[str]:
    comments = {
        tuple(location.path): location.leading_comments
        for location in file.source_code_info.location
    }
    for m, message in enumerate(file.message_type):
        if not comments.get((4, m)):
            yield message.name
        for f, field in enumerate(message.field):
            if not comments.get((4, m, 2, f)):
                yield f"{message.name}.{field.name}"
    for s, service in enumerate(file.service):
        if not comments.get((6, s)):
            yield service.name
        for r, method in enumerate(service.method):
            if not comments.get((6, s, 2, r)):
                yield f"{service.name}.{method.name}"
