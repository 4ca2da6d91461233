"""A file that a user named to be written to: found fit before the work, respected in the end.

Theory of operation
-------------------
`Output.at` looks at what is there, without changing it, and decides how it will be written:

- **Replaced**: a new file is written beside a regular one, made like it (mode, owner, ACL), and
  moved into its place. A reader sees the old bytes or the new ones. Through a symbolic link, it is
  the link's target that is replaced.
- **Filled**: what must stay the very file it is gets its bytes at the end, when all of them are known
  to be right: a device, a pipe, an open file (``/dev/stdout``, ``/dev/fd/3``), a file with several
  names (hard links), one whose owner we could not keep, or one in a folder where nothing can be made.

What is never true: a device or a pipe that became a regular file; a file that holds a part, unless the
disk filled up while one of the second kind was filled; anything left behind by work that failed.
Everything here blocks.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from seatkeeper.core.errors import InvalidArgument
from seatkeeper.core.text import printable

PROBE_BYTES = 64 << 10
"""Written, and taken away again, to find out whether there is room at all."""
LINKS_MAX = 40
"""Symbolic links that lead to one file, as the kernel has it."""
READER_SECONDS_MAX = 30.0
"""How long to wait for the reader of a named pipe."""
_POLL_SECONDS = 0.05
_OPEN_FILES = re.compile(r"/proc/(?:self|thread-self|\d+)(?:/task/\d+)?/fd/(\d+)")
_OURS = re.compile(rf"/proc/(?:self|thread-self|{os.getpid()})(?:/task/\d+)?/fd/\d+")
_ACL = "system.posix_acl_access"
_PROTECTED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_IMMOVABLE = _PROTECTED | {errno.EBUSY, errno.EXDEV}


@dataclass(frozen=True)
class Output:
    """A place to write to, and how."""

    path: Path
    """As the user named it."""
    target: Path
    """What is replaced or filled: the end of the symbolic links."""
    before: os.stat_result | None
    """What is there now; None: nothing."""
    is_filled: bool
    """Whether it stays the file that it is, rather than being replaced."""

    @classmethod
    def at(cls, path: str | os.PathLike[str], *, field: str = "to") -> Output:
        """Return the place, once it is known that it can be written to now.

        Raises `InvalidArgument` naming ``field``, with an ``OSError`` as its cause where one says why.
        """
        named = Path(path)
        try:
            return cls._found(named, field)
        except OSError as error:
            why = error.strerror
            if isinstance(error, FileNotFoundError):
                why = "no such folder; make it first"
            raise _refused(named, why, field) from error
        except ValueError as error:  # a NUL
            raise _refused(named, str(error), field) from error

    @classmethod
    def _found(cls, path: Path, field: str) -> Output:
        target = _target_of(path)
        try:
            before = target.stat()
        except FileNotFoundError:
            _try_folder(target.parent)
            return cls(path, target, None, False)
        if stat.S_ISDIR(before.st_mode):
            raise _refused(path, "that is a folder; name a file in it", field)
        if stat.S_ISBLK(before.st_mode) or stat.S_ISSOCK(before.st_mode):
            raise _refused(path, "that is a disk or a socket; name a file or a pipe", field)
        _try_to_open(target, before)
        if _OPEN_FILES.fullmatch(str(target)) or not stat.S_ISREG(before.st_mode):
            return cls(path, target, before, True)
        is_filled = before.st_nlink > 1 or not _can_be_kept(before)
        try:
            _try_folder(target.parent)
        except OSError as error:
            if error.errno not in _PROTECTED:
                raise
            is_filled = True
        return cls(path, target, before, is_filled)

    def is_same_as(self, other: str | os.PathLike[str]) -> bool:
        """Return whether both names are of one file, or would be. A null device takes any number."""
        there = _target_of(Path(other))
        if self.before is not None:
            with suppress(OSError):
                same = os.path.samestat(self.before, there.stat())
                return same and not _is_null(self.before)
            return False
        return os.path.realpath(there) == os.path.realpath(self.target)

    @property
    def is_standard_output(self) -> bool:
        """Whether it is where this process writes what it says."""
        with suppress(OSError):
            before = self.before
            return (
                before is not None
                and not _is_null(before)
                and os.path.samestat(before, os.fstat(1))
            )
        return False

    def write(self, content: bytes) -> None:
        """Write it whole. Raises ``OSError``."""
        with self.writer(len(content)) as writer:
            writer.write(content)
            writer.finish()

    def adopt(self, draft: Path, number: int) -> None:
        """Have ``draft``, a whole file of the same folder that is open as ``number``, take its place.

        Where it cannot be moved there, its bytes are copied. Raises ``OSError``.
        """
        with _named(self.path):
            if self.before is not None:
                _make_like(number, self.before, self.target)
            os.fsync(number)
            try:
                draft.replace(self.target)
            except OSError as error:
                if self.before is None or error.errno not in _IMMOVABLE:
                    raise
                with draft.open("rb") as source, self.target.open("wb") as place:
                    shutil.copyfileobj(source, place, 1 << 20)
                draft.unlink()
            _sync_folder(self.target.parent)

    def writer(self, size: int = 0) -> OutputWriter:
        """Begin to write about ``size`` bytes. Raises ``OSError``, also when there is no room."""
        return OutputWriter(self, size)


class OutputWriter:
    """Writes one output. Leaving it without `finish` leaves everything as it was."""

    def __init__(self, output: Output, size: int) -> None:
        self._output = output
        self._draft: Path | None = None
        self._file: IO[bytes]
        with _named(output.path):
            if output.is_filled:
                self._file = _spool(output.target.parent)
            else:
                number, self._draft = _new_file(output.target.parent)
                self._file = os.fdopen(number, "w+b")
            try:
                _reserve(self._file, size)
            except OSError:
                self._end()
                raise

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave nothing behind that is not whole."""
        self._end()

    def write(self, content: bytes) -> None:
        """Append. Raises ``OSError``."""
        with _named(self._output.path):
            self._file.write(content)

    def finish(self) -> None:
        """Put the bytes in their place. Raises ``OSError``."""
        with _named(self._output.path):
            self._file.flush()
            if self._draft is None or not self._replace(self._draft):
                self._fill()

    def _replace(self, draft: Path) -> bool:
        """Return whether it could be moved to its place: not where a file is mounted there."""
        before, number = self._output.before, self._file.fileno()
        if before is not None:
            _make_like(number, before, self._output.target)
        os.fsync(number)
        try:
            draft.replace(self._output.target)
        except OSError as error:
            if before is None or error.errno not in _IMMOVABLE:
                raise
            return False
        self._draft = None
        _sync_folder(self._output.target.parent)
        return True

    def _fill(self) -> None:
        self._file.seek(0)
        with os.fdopen(_opened(self._output.target), "wb") as place:
            is_regular = stat.S_ISREG(os.fstat(place.fileno()).st_mode)
            if is_regular and not _OURS.fullmatch(str(self._output.target)):
                place.truncate(0)
            shutil.copyfileobj(self._file, place, 1 << 20)
            place.flush()
            if is_regular:
                os.fsync(place.fileno())

    def _end(self) -> None:
        with suppress(OSError):  # what a full disk did not take is not missed any more
            self._file.close()
        if self._draft is not None:
            with suppress(OSError):
                self._draft.unlink()


def check_apart(outputs: dict[str, Output], inputs: dict[str, str | os.PathLike[str]]) -> None:
    """Raise `InvalidArgument` when two outputs are one file, or one of them is what is read.

    Both are known by what the user calls them.
    """
    names = list(outputs)
    for number, name in enumerate(names):
        for other in names[number + 1 :]:
            if outputs[name].is_same_as(outputs[other].path):
                raise InvalidArgument(
                    f"{name} and {other} are one file, {_shown(outputs[name].path)}: name two",
                    field="to",
                )
        for source, path in inputs.items():
            if outputs[name].is_same_as(path):
                raise InvalidArgument(
                    f"{name} {_shown(outputs[name].path)}: that is the {source}; name another file",
                    field="to",
                )


def _refused(path: Path, why: str | None, field: str) -> InvalidArgument:
    return InvalidArgument(f"{_shown(path)}: {why}", field=field)


def _shown(path: Path) -> str:
    return printable(str(path))


def _target_of(path: Path) -> Path:
    """Follow symbolic links, but not those of open files: what they lead to has no name."""
    at = path.absolute()
    for _ in range(LINKS_MAX):
        at = Path(os.path.realpath(at.parent), at.name)
        if _OPEN_FILES.fullmatch(str(at)) or not at.is_symlink():
            return at
        at = at.parent / at.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _is_null(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3)


def _can_be_kept(before: os.stat_result) -> bool:
    """Whether a file made anew can have the same owner and group."""
    if os.geteuid() == 0:
        return True
    return before.st_uid == os.geteuid() and before.st_gid in {os.getegid(), *os.getgroups()}


def _try_to_open(target: Path, before: os.stat_result) -> None:
    """Raise ``OSError`` unless it can be written to. Devices are not touched by it, nor pipes."""
    if stat.S_ISREG(before.st_mode):
        os.close(os.open(target, os.O_WRONLY | os.O_CLOEXEC))
    elif not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))


def _try_folder(folder: Path) -> None:
    """Raise ``OSError`` unless a file can be made there, and has room."""
    number, draft = _new_file(folder)
    try:
        if os.write(number, bytes(PROBE_BYTES)) < PROBE_BYTES:
            # A part fitted, which is no error yet.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        os.fsync(number)
    finally:
        os.close(number)
        draft.unlink()


def _new_file(folder: Path) -> tuple[int, Path]:
    """Make a file there, with the mode of any new one, under a name as short as it is unlikely."""
    while True:
        draft = folder / f".{os.urandom(8).hex()}.seatkeeper"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with suppress(FileExistsError):
            return os.open(draft, flags, 0o666), draft


def _spool(folder: Path) -> IO[bytes]:
    """Return a file without a name: beside the place if possible, where there is room for it."""
    if not str(folder).startswith(("/dev", "/proc", "/sys")):
        with suppress(OSError):
            return tempfile.TemporaryFile(dir=folder)
    return tempfile.TemporaryFile()


def _reserve(file: IO[bytes], size: int) -> None:
    """Find out now whether there is room."""
    if not size:
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        # Some file systems do not report it.
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise


def _make_like(number: int, before: os.stat_result, target: Path) -> None:
    with suppress(OSError):
        os.fchown(number, before.st_uid, before.st_gid)
    os.fchmod(number, stat.S_IMODE(before.st_mode) & 0o777)
    with suppress(OSError):
        os.setxattr(number, _ACL, os.getxattr(target, _ACL))


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _opened(target: Path) -> int:
    """Open what is there, and make nothing. It waits for the reader of a named pipe."""
    if _OURS.fullmatch(str(target)):
        # Not opened again: that would begin at the front, and write over what is there.
        return os.dup(int(target.name))
    deadline = time.monotonic() + READER_SECONDS_MAX
    while True:
        try:
            number = os.open(target, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() >= deadline:
                raise TimeoutError(
                    errno.ETIMEDOUT, "no process reads this pipe", str(target)
                ) from error
            time.sleep(_POLL_SECONDS)
        else:
            os.set_blocking(number, True)
            return number


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Have errors name what the user named, not what we made of it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
