"""Where results are written to: found fit first, and respected whatever it is."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from seatkeeper.client.builds import output as _output
from seatkeeper.client.builds.output import Output, check_apart
from seatkeeper.core.errors import InvalidArgument

OTHER_USER = 65534


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.usefixtures("umask")
def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path: Path) -> None:
    Output.at(tmp_path / "new").write(b"engine")
    assert (tmp_path / "new").read_bytes() == b"engine"
    assert mode(tmp_path / "new") == 0o640
    assert names(tmp_path) == {"new"}


def test_a_file_that_is_there_keeps_its_mode_and_is_replaced_at_once(tmp_path: Path) -> None:
    file = tmp_path / "old"
    file.write_bytes(b"old")
    file.chmod(0o604)
    with file.open("rb") as reader, Output.at(file).writer() as writer:
        writer.write(b"new")
        assert file.read_bytes() == b"old"
        writer.finish()
        assert reader.read() == b"old"  # who reads it sees all of the old one
    assert (file.read_bytes(), mode(file)) == (b"new", 0o604)
    assert names(tmp_path) == {"old"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_keeps_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "old"
    file.write_bytes(b"old")
    os.chown(file, OTHER_USER, OTHER_USER)
    Output.at(file).write(b"new")
    assert (file.stat().st_uid, file.stat().st_gid) == (OTHER_USER, OTHER_USER)


def test_who_could_not_keep_the_owner_leaves_the_file_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "theirs"
    file.write_bytes(b"long old content")
    number = file.stat().st_ino
    monkeypatch.setattr(_output, "_can_be_kept", lambda before: False)
    Output.at(file).write(b"new")
    assert (file.read_bytes(), file.stat().st_ino) == (b"new", number)


def test_leaving_early_leaves_everything_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    for name in ("old", "new"):
        with Output.at(tmp_path / name).writer(1 << 20) as writer:
            writer.write(b"half")
    assert names(tmp_path) == {"old"}
    assert (tmp_path / "old").read_bytes() == b"old"


@pytest.mark.parametrize("there", [True, False])
def test_a_symbolic_link_stays_one_and_its_target_is_written(
    tmp_path: Path, there: bool
) -> None:
    (tmp_path / "store").mkdir()
    if there:
        (tmp_path / "store/engine").write_bytes(b"old")
    (tmp_path / "link").symlink_to("store/engine")
    (tmp_path / "link2").symlink_to("link")
    Output.at(tmp_path / "link2").write(b"new")
    assert (tmp_path / "link2").is_symlink()
    assert (tmp_path / "store/engine").read_bytes() == b"new"


def test_a_file_with_two_names_stays_one_file(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"much longer than what comes")
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    Output.at(tmp_path / "one").write(b"new")
    assert (tmp_path / "two").read_bytes() == b"new"
    assert (tmp_path / "one").samefile(tmp_path / "two")
    assert names(tmp_path) == {"one", "two"}


def test_a_null_device_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/null")
    for path in (Path("/dev/null"), tmp_path / "link"):
        Output.at(path).write(b"engine")
        assert stat.S_ISCHR(path.stat().st_mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices")
def test_a_device_stays_one_in_a_folder_that_could_be_written_to(tmp_path: Path) -> None:
    device = tmp_path / "null"
    os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    Output.at(device).write(b"engine")
    assert stat.S_ISCHR(device.stat().st_mode)
    assert mode(device) & 0o600 == 0o600


def test_a_named_pipe_gets_the_bytes(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    place = Output.at(pipe)  # it has no reader yet
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    place.write(b"engine" * 100_000)
    reader.join(30)
    assert got == [b"engine" * 100_000]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_pipe_without_a_reader_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_output, "READER_SECONDS_MAX", 0.1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no process reads this pipe") as failed:
        Output.at(tmp_path / "pipe").write(b"engine")
    assert failed.value.filename == str(tmp_path / "pipe")


def test_an_open_file_gets_the_bytes_where_it_is(tmp_path: Path) -> None:
    """As `-o /dev/stdout >> log` and `-o /dev/fd/3 3> file` want it."""
    log = tmp_path / "log"
    with log.open("wb", buffering=0) as file:
        file.write(b"before ")
        Output.at(f"/dev/fd/{file.fileno()}").write(b"engine")
        file.write(b" after")
    assert log.read_bytes() == b"before engine after"
    readable, writable = os.pipe()
    Output.at(f"/proc/self/fd/{writable}").write(b"engine")
    os.close(writable)
    assert os.read(readable, 100) == b"engine"
    os.close(readable)


def test_a_place_that_no_file_can_be_moved_to_is_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a file that is mounted into a container by itself."""
    file = tmp_path / "mounted"
    file.write_bytes(b"old old old")

    def busy(self: Path, target: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", busy)
    Output.at(file).write(b"new")
    assert file.read_bytes() == b"new"
    assert names(tmp_path) == {"mounted"}


def refused(path: str | Path) -> str:
    with pytest.raises(InvalidArgument) as error:
        Output.at(path)
    assert error.value.field == "to"
    return str(error.value)


def test_where_nothing_can_be_written_is_found_out_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "astray").symlink_to("absent/file")
    assert "no such folder; make it first" in refused(tmp_path / "absent/engine")
    assert "no such folder" in refused(tmp_path / "astray")
    assert "that is a folder" in refused(tmp_path)
    assert "that is a folder" in refused("")
    assert "Not a directory" in refused(tmp_path / "file/engine")
    assert "symbolic links" in refused(tmp_path / "loop")
    assert "File name too long" in refused(tmp_path / ("x" * 256))
    assert "null" in refused(f"{tmp_path}/a\0b")
    Output.at(tmp_path / ("x" * 255)).write(b"engine")
    assert names(tmp_path) == {"file", "loop", "astray", "x" * 255}


def failing(number: int) -> Callable[..., object]:
    def fail(*args: object, **kwargs: object) -> object:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_so_is_a_folder_where_nothing_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(_output, "_new_file", failing(number))
    assert os.strerror(number) in refused(tmp_path / "engine")


def test_a_disk_with_room_for_a_part_of_the_probe_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "write", lambda number, content: len(content) - 1)
    assert "No space left on device" in refused(tmp_path / "engine")
    assert names(tmp_path) == set()


def test_so_is_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", failing(errno.ENOSPC))
    assert "No space left on device" in refused(tmp_path / "engine")
    monkeypatch.undo()
    assert names(tmp_path) == set()


def test_room_is_made_before_the_bytes_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", failing(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left") as failed:
        Output.at(tmp_path / "engine").writer(1 << 40)
    assert failed.value.filename == str(tmp_path / "engine")
    assert names(tmp_path) == set()


def test_a_file_in_a_folder_where_nothing_can_be_made_is_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "engine"
    file.write_bytes(b"old old")
    monkeypatch.setattr(_output, "_try_folder", failing(errno.EACCES))
    Output.at(file).write(b"new")
    assert file.read_bytes() == b"new"


def test_a_full_device_is_reported_by_the_name_that_it_was_given() -> None:
    with pytest.raises(OSError, match="No space left") as failed:
        Output.at("/dev/full").write(b"engine")
    assert failed.value.filename == "/dev/full"


def test_two_outputs_must_be_two_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "hard").hardlink_to(tmp_path / "file")
    (tmp_path / "soft").symlink_to("file")
    (tmp_path / "to-be").symlink_to("new")
    os.mkfifo(tmp_path / "pipe")
    ways = [
        ("new", "new"),
        ("new", "../" + tmp_path.name + "/./new"),
        ("new", "to-be"),
        ("file", "hard"),
        ("file", "soft"),
        ("pipe", "pipe"),
    ]
    for one, other in ways:
        outputs = {
            "--output": Output.at(tmp_path / one),
            "--manifest": Output.at(f"{tmp_path}/{other}"),
        }
        with pytest.raises(InvalidArgument, match="--output and --manifest are one file"):
            check_apart(outputs, {})
        if one == "file":
            with pytest.raises(InvalidArgument, match="that is the model"):
                check_apart({"--output": outputs["--output"]}, {"model": tmp_path / other})
    apart = {
        "--output": Output.at(tmp_path / "new"),
        "--manifest": Output.at(tmp_path / "file"),
    }
    check_apart(apart, {"model": tmp_path / "absent"})
    null = Output.at("/dev/null")
    check_apart({"--output": null, "--manifest": null}, {})
