"""What has arrived of an engine survives a cut, and only what is whole and right takes its place."""

from __future__ import annotations

import os
import stat
from hashlib import sha256
from pathlib import Path

import pytest

from seatkeeper.client.builds.output import Output
from seatkeeper.client.builds.part import Part, is_there
from seatkeeper.core.errors import EngineDamaged, InUse, InvalidArgument
from seatkeeper.v1 import build_pb2

ENGINE = bytes(range(256)) * 100
FILE = build_pb2.EngineFile(sha256=sha256(ENGINE).hexdigest(), size_bytes=len(ENGINE))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "model.engine"


def part_at(target: Path) -> Part:
    return Part(Output.at(target), FILE)


def names(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def test_what_is_cut_off_is_continued(target: Path) -> None:
    with part_at(target) as part:
        part.write(ENGINE[:1_000])
    assert not target.exists()
    with part_at(target) as part:
        assert part.size == 1_000
        part.write(ENGINE[1_000:])
        part.finish()
    assert target.read_bytes() == ENGINE
    assert names(target) == [target.name]
    assert is_there(Output.at(target), FILE)


def test_the_file_is_as_it_was_until_all_has_arrived(target: Path) -> None:
    target.write_bytes(b"the engine in use")
    target.chmod(0o640)
    with part_at(target) as part:
        part.write(ENGINE[:-1])
        with pytest.raises(EngineDamaged):
            part.finish()
        assert part.size == 0
        assert target.read_bytes() == b"the engine in use"
        part.write(ENGINE)
        part.finish()
    assert target.read_bytes() == ENGINE
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_what_has_become_wrong_is_begun_anew(target: Path) -> None:
    with part_at(target) as part:
        part.write(bytes(1_000))
    with part_at(target) as part:
        part.write(ENGINE[1_000:])
        with pytest.raises(EngineDamaged):
            part.finish()
        assert part.size == 0


def test_more_than_there_should_be_is_refused(target: Path) -> None:
    with part_at(target) as part, pytest.raises(EngineDamaged):
        part.write(ENGINE + b"x")
    (left,) = target.parent.iterdir()
    left.write_bytes(ENGINE + b"x")
    with part_at(target) as part:
        assert part.size == 0


def test_another_engine_does_not_continue_it(target: Path) -> None:
    with part_at(target) as part:
        part.write(ENGINE[:1_000])
    other = build_pb2.EngineFile(sha256="ab" * 32, size_bytes=len(ENGINE))
    with Part(Output.at(target), other) as part:
        assert part.size == 0


def test_one_program_at_a_time_writes_to_it(target: Path) -> None:
    with part_at(target) as part:
        with pytest.raises(InUse):
            part_at(target)
        part.write(ENGINE)
        part.finish()
    assert target.read_bytes() == ENGINE


def test_a_link_in_its_place_is_not_followed(target: Path, tmp_path: Path) -> None:
    with part_at(target):
        pass
    (left,) = target.parent.iterdir()
    left.unlink()
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    left.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        part_at(target)
    assert victim.read_bytes() == b"mine"


def test_a_pipe_is_refused(target: Path) -> None:
    os.mkfifo(target)
    with pytest.raises(InvalidArgument, match="engines get"):
        part_at(target)
