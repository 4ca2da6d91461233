"""A machine's key and what it has borrowed, in files that only its user reads.

``machine.key`` is made once, and never written again: the seats are bound to it. Of each pool one seat
may be borrowed at a time, in a file of its own. A file is written beside and renamed, so that a machine
that is switched off in between has the old one or the new one.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from seatkeeper.core.errors import InvalidArgument
from seatkeeper.core.jws import public_jwk

VARIABLE = "SEATKEEPER_BORROW_FOLDER"
KEY_FILE = "machine.key"
CLOCK_FILE = "latest-time"
SUFFIX = ".seat.json"
SEATS_MAX = 1_000
FILE_MAX = 256 * 1024
PRIVATE = 0o600


class SeatState(StrEnum):
    """What is known here of a borrowed seat."""

    ASKED = "asked"
    """It was asked for, and the answer is not known: it may be borrowed."""
    BORROWED = "borrowed"
    RETURNING = "returning"
    """It is given back, and the answer is not known. It is not used any more."""


@dataclass(frozen=True, kw_only=True)
class BorrowedSeat:
    """One grant that this machine has borrowed, or has asked for."""

    pool: str
    grant_id: str
    fence: int
    state: SeatState = SeatState.ASKED
    seats: int = 1
    until_millis: int = 0
    """Its day; 0: not known."""
    token: str = ""
    jwks: str = ""
    """The public keys that verify it."""

    def after(self, state: SeatState) -> BorrowedSeat:
        """Return it in another state."""
        return replace(self, state=state)


def default_folder(environ: Mapping[str, str]) -> Path:
    """Return where a machine keeps what it has borrowed, if nothing else is said."""
    if place := environ.get(VARIABLE):
        return Path(place)
    state = environ.get("XDG_STATE_HOME") or str(
        Path(environ.get("HOME", "~")) / ".local" / "state"
    )
    return Path(state).expanduser() / "seatkeeper" / "borrow"


class BorrowFolder:
    """The files. Raises ``OSError`` as the system does, and `InvalidArgument` for a damaged file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def key(self, *, make: bool = False) -> Ed25519PrivateKey:
        """Return the machine's key. ``make``: make it where there is none.

        Raises `InvalidArgument` for one that others can read: who has it is this machine.
        """
        file = self.path / KEY_FILE
        if make:
            self._make_key(file)
        data = _read(file)
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            raise InvalidArgument(f"{file} can be read by others: chmod 600, or make a new one")
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except ValueError as error:
            raise InvalidArgument(f"{file} is no private key: {error}") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidArgument(f"{file} is no Ed25519 key")
        return key

    def seat(self, pool: str) -> BorrowedSeat | None:
        """Return what is borrowed of a pool; None: nothing."""
        file = self.path / f"{pool}{SUFFIX}"
        try:
            said = json.loads(_read(file))
            return BorrowedSeat(**{**said, "state": SeatState(said["state"])})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            raise InvalidArgument(
                f"{file} is damaged: give the seat back by hand, or wait until its day"
            ) from None

    def seats(self) -> list[BorrowedSeat]:
        """Return all that is borrowed, by pool."""
        names = sorted(file.name for file in self.path.glob(f"*{SUFFIX}"))[:SEATS_MAX]
        found = (self.seat(name.removesuffix(SUFFIX)) for name in names)
        return [seat for seat in found if seat is not None]

    def keep(self, seat: BorrowedSeat) -> None:
        """Write what is known of a seat."""
        self._write(f"{seat.pool}{SUFFIX}", json.dumps(asdict(seat)).encode())

    def forget(self, pool: str) -> None:
        """Remove what was known of a pool's seat."""
        with suppress(FileNotFoundError):
            (self.path / f"{pool}{SUFFIX}").unlink()

    def latest_millis(self) -> int:
        """Return the latest time that was seen here; 0: none was."""
        try:
            return int(_read(self.path / CLOCK_FILE))
        except FileNotFoundError:
            return 0
        except ValueError:
            raise InvalidArgument(f"{self.path / CLOCK_FILE} is damaged") from None

    def see(self, millis: int) -> None:
        """Note a time, unless a later one was seen."""
        if millis > self.latest_millis():
            self._write(CLOCK_FILE, b"%d" % millis)

    def _make_key(self, file: Path) -> None:
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        pem = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        fresh = self.path / f".{KEY_FILE}.{os.getpid()}"
        _write_private(fresh, pem)
        with suppress(FileExistsError):  # of two that make it at once, the first stays
            os.link(fresh, file)
        fresh.unlink()

    def _write(self, name: str, data: bytes) -> None:
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = self.path / f".{name}.{os.getpid()}"
        _write_private(fresh, data)
        fresh.replace(self.path / name)


def thumbprint_of(key: Ed25519PrivateKey) -> str:
    """Return what a machine is known by."""
    return public_jwk(key.public_key().public_bytes_raw())["kid"]


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(FILE_MAX)


def _write_private(file: Path, data: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())
