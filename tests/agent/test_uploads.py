"""What an agent keeps of interrupted uploads, for whom, and how much of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from seatkeeper.agent.uploads import KEPT_BYTES_MIN, Part, Scope, Uploads
from seatkeeper.artifacts.errors import DiskFull, ModelTruncated

MIB = 1 << 20
ALICE: Scope = ("tensorrt", "grant-1", 1)
BOB: Scope = ("tensorrt", "grant-2", 2)
CAROL: Scope = ("tensorrt", "grant-3", 3)
FILES = {"aa": 4 * MIB, "bb": 2 * MIB}


class Disk:
    """How much is free, as the test has it."""

    free = 1 << 30


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def uploads(tmp_path: Path, disk: Disk) -> Uploads:
    return Uploads(
        tmp_path / "uploads",
        kept_bytes_max=10 * MIB,
        kept_seconds=60.0,
        free_bytes=lambda folder: disk.free,
    )


def left_in(folder: Path) -> list[Path]:
    """What is on the disk."""
    return [path for path in folder.rglob("*") if path.is_file()] or list(folder.iterdir())


def interrupted(
    uploads: Uploads, scope: Scope | None, sizes: dict[str, int], error: BaseException
) -> None:
    """An upload of which so much came."""

    def upload() -> None:
        with uploads.parts(FILES, scope) as parts:
            for sha256, size_bytes in sizes.items():
                parts[sha256].write(bytes(size_bytes))
            raise error

    with pytest.raises(type(error)):
        upload()


@pytest.mark.parametrize("error", [asyncio.CancelledError(), ModelTruncated("it ended")])
async def test_what_came_is_there_for_the_next_try(
    uploads: Uploads, tmp_path: Path, error: BaseException
) -> None:
    interrupted(uploads, ALICE, {"aa": 4 * MIB, "bb": MIB}, error)
    assert uploads.kept_bytes == 5 * MIB
    assert uploads.missing_bytes(FILES, ALICE) == MIB
    with uploads.parts(FILES, ALICE) as parts:
        assert (parts["aa"].missing_bytes, parts["bb"].missing_bytes) == (0, MIB)
        parts["bb"].write(bytes(MIB))
        assert parts["bb"].missing_bytes == 0
    assert uploads.kept_bytes == 0
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("scope", [BOB, None, ("other", "grant-1", 1), (*ALICE[:2], 9)])
async def test_another_grant_finds_nothing(uploads: Uploads, scope: Scope | None) -> None:
    interrupted(uploads, ALICE, {"aa": 4 * MIB}, asyncio.CancelledError())
    assert uploads.missing_bytes(FILES, scope) == 6 * MIB
    with uploads.parts(FILES, scope) as parts:
        assert {part.received for part in parts.values()} == {0}
    assert uploads.kept_bytes == 4 * MIB


@pytest.mark.parametrize(
    ("scope", "sizes", "error"),
    [
        (None, {"aa": 4 * MIB}, asyncio.CancelledError()),
        (ALICE, {"aa": KEPT_BYTES_MIN - 1}, asyncio.CancelledError()),
        (ALICE, {"aa": 4 * MIB}, RuntimeError("a refusal")),
        (ALICE, FILES, ModelTruncated("in itself")),
    ],
    ids=["not_to_be_resumed", "too_little", "refused", "whole"],
)
async def test_what_no_try_comes_back_for_is_removed(
    uploads: Uploads,
    tmp_path: Path,
    scope: Scope | None,
    sizes: dict[str, int],
    error: BaseException,
) -> None:
    interrupted(uploads, scope, sizes, error)
    assert uploads.kept_bytes == 0
    assert left_in(tmp_path) == []


async def test_the_oldest_gives_way_where_too_much_is_kept(uploads: Uploads) -> None:
    for scope in (ALICE, BOB, CAROL):
        interrupted(uploads, scope, {"aa": 4 * MIB}, asyncio.CancelledError())
    assert uploads.kept_bytes == 8 * MIB
    assert uploads.missing_bytes(FILES, ALICE) == 6 * MIB
    assert uploads.missing_bytes(FILES, CAROL) == 2 * MIB


async def test_what_is_kept_ends_with_its_age(uploads: Uploads, tmp_path: Path) -> None:
    now = asyncio.get_running_loop().time()
    interrupted(uploads, ALICE, {"aa": 4 * MIB}, asyncio.CancelledError())
    uploads.expire(now + 59.0)
    assert uploads.kept_bytes == 4 * MIB
    uploads.expire(now + 61.0)
    assert uploads.kept_bytes == 0
    assert left_in(tmp_path) == []


async def test_a_grant_that_ended_and_an_agent_that_stops_leave_nothing(
    uploads: Uploads, tmp_path: Path
) -> None:
    for scope in (ALICE, BOB):
        interrupted(uploads, scope, {"aa": 4 * MIB}, asyncio.CancelledError())
    uploads.forget(ALICE)
    uploads.forget(CAROL)
    assert uploads.kept_bytes == 4 * MIB
    uploads.forget_all()
    assert left_in(tmp_path) == []


async def test_files_that_the_next_try_does_not_name_are_removed(
    uploads: Uploads, tmp_path: Path
) -> None:
    interrupted(uploads, ALICE, {"aa": 4 * MIB, "bb": MIB}, asyncio.CancelledError())
    with uploads.parts({"bb": 3 * MIB}, ALICE) as parts:
        assert parts["bb"].received == 0, "of another size, so another file"
        assert left_in(tmp_path / "uploads") == []


# Room ------------------------------------------------------------------------------------------


async def test_bytes_that_are_to_come_are_reserved(uploads: Uploads, disk: Disk) -> None:
    disk.free = 8 * MIB
    with uploads.parts(FILES, ALICE) as parts:
        with pytest.raises(DiskFull, match=f"room for {2 * MIB}"):
            uploads.check_room(3 * MIB, BOB)
        parts["aa"].write(bytes(4 * MIB))
        disk.free -= 4 * MIB
        with pytest.raises(DiskFull, match=f"room for {2 * MIB}"):
            uploads.check_room(3 * MIB, BOB)
        uploads.check_room(2 * MIB, BOB)
    uploads.check_room(4 * MIB, BOB)


async def test_what_is_kept_for_others_gives_way_to_an_upload_and_one_s_own_does_not(
    uploads: Uploads, disk: Disk
) -> None:
    for scope in (ALICE, BOB):
        interrupted(uploads, scope, {"aa": 4 * MIB}, asyncio.CancelledError())
    disk.free = 0
    with pytest.raises(DiskFull):
        uploads.check_room(MIB, BOB)
    assert uploads.missing_bytes(FILES, ALICE) == 6 * MIB
    assert uploads.missing_bytes(FILES, BOB) == 2 * MIB


async def test_a_full_disk_takes_nothing(uploads: Uploads, disk: Disk, tmp_path: Path) -> None:
    disk.free = 5 * MIB
    with pytest.raises(DiskFull), uploads.parts(FILES, ALICE):
        raise AssertionError("there is no room")
    assert left_in(tmp_path) == []


def test_a_write_that_fails_half_way_is_written_again(tmp_path: Path) -> None:
    part = Part(tmp_path / "part", 6)
    part.write(b"abc")
    with part.path.open("ab") as file:
        file.write(b"xy")  # what a full disk took of it
    part.write(b"def")
    assert part.path.read_bytes() == b"abcdef"
    assert part.missing_bytes == 0


def test_a_part_is_never_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "part").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        Part(tmp_path / "part", 3).write(b"abc")
    assert not (tmp_path / "elsewhere").exists()
