"""What a machine keeps of a borrowed seat, and what it says of it offline."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.unit.kit import POOL, a_grant, uuid7

from seatkeeper.client.borrowing.folder import (
    BorrowedSeat,
    BorrowFolder,
    SeatState,
    default_folder,
    thumbprint_of,
)
from seatkeeper.client.borrowing.offline import CLOCK_LEEWAY, verify_borrowed
from seatkeeper.core.errors import (
    ClockSetBack,
    InvalidArgument,
    SeatError,
    TokenExpired,
    TokenForged,
    TokenForOtherMachine,
    TokenForOtherPool,
    TokenInvalid,
)
from seatkeeper.server.domain import Instant
from seatkeeper.server.tokens.signer import TokenSigner, jwks

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
SIGNER, STRANGER = TokenSigner.generate(), TokenSigner.generate()


def millis(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def token(*, signer: TokenSigner = SIGNER, machine: str | None = None) -> str:
    bound = thumbprint_of(KEY) if machine is None else machine
    begins, ends = Instant(millis(NOW)), Instant(millis(NOW + DAY))
    return signer.sign(POOL, a_grant(1), machine=bound, issued_at=begins, expires_at=ends)


def seat(**change: Any) -> BorrowedSeat:
    borrowed = BorrowedSeat(
        pool=POOL,
        grant_id=uuid7(1),
        fence=1,
        state=SeatState.BORROWED,
        until_millis=millis(NOW + DAY),
        token=token(),
        jwks=jwks([SIGNER.jwk_json]),
    )
    return replace(borrowed, **change)


def verified(
    one: BorrowedSeat,
    now: datetime = NOW,
    *,
    latest: datetime = NOW,
    key: Ed25519PrivateKey = KEY,
) -> str | None:
    claims = verify_borrowed(
        one, key, now=now, latest_millis=millis(latest), challenge=b"challenge"
    )
    return claims.machine


@pytest.mark.parametrize("now", [NOW, NOW + timedelta(hours=12), NOW + DAY - SECOND])
def test_a_machine_has_its_seat_until_the_day(now: datetime) -> None:
    assert verified(seat(), now) == thumbprint_of(KEY)


@pytest.mark.parametrize(
    ("check", "error"),
    [
        (lambda: verified(seat(), NOW + DAY), TokenExpired),
        (lambda: verified(seat(), NOW - timedelta(minutes=1)), TokenExpired),
        (lambda: verified(seat(), key=OTHER), TokenForOtherMachine),
        (lambda: verified(seat(token=token(machine=""))), TokenForOtherMachine),
        (lambda: verified(seat(token=token()[:-4] + "AAAA")), TokenForged),
        (lambda: verified(seat(pool="other")), TokenForOtherPool),
        (lambda: verified(seat(token=token(signer=STRANGER))), TokenInvalid),
        (lambda: verified(seat(state=SeatState.RETURNING)), TokenInvalid),
        (lambda: verified(seat(state=SeatState.ASKED)), TokenInvalid),
        (lambda: verified(seat(), latest=NOW + CLOCK_LEEWAY + SECOND), ClockSetBack),
    ],
)
def test_what_proves_nothing(check: Callable[[], object], error: type[SeatError]) -> None:
    with pytest.raises(error):
        check()


def test_a_clock_that_is_corrected_a_little_is_right() -> None:
    assert verified(seat(), latest=NOW + CLOCK_LEEWAY) is not None


def test_a_key_is_made_once_and_is_its_users_alone(tmp_path: Path) -> None:
    folder = BorrowFolder(tmp_path / "machine")
    with pytest.raises(FileNotFoundError):
        folder.key()
    first = folder.key(make=True)
    again = BorrowFolder(tmp_path / "machine").key(make=True)
    assert thumbprint_of(first) == thumbprint_of(again)
    file = tmp_path / "machine" / "machine.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    file.chmod(0o640)
    with pytest.raises(InvalidArgument, match="read by others"):
        folder.key()
    file.chmod(0o600)
    file.write_text("no key")
    with pytest.raises(InvalidArgument, match="no private key"):
        folder.key()


def test_what_is_kept_is_found_again_and_is_private(tmp_path: Path) -> None:
    folder = BorrowFolder(tmp_path)
    assert folder.seat(POOL) is None
    folder.keep(seat())
    folder.keep(seat(pool="other", state=SeatState.ASKED))
    assert folder.seat(POOL) == seat()
    assert {each.pool for each in folder.seats()} == {POOL, "other"}
    (file,) = tmp_path.glob(f"{POOL}*")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text("{}")
    with pytest.raises(InvalidArgument, match="damaged"):
        folder.seat(POOL)
    folder.forget(POOL)
    folder.forget(POOL)
    assert folder.seat(POOL) is None


def test_the_latest_time_never_goes_back(tmp_path: Path) -> None:
    folder = BorrowFolder(tmp_path)
    assert folder.latest_millis() == 0
    folder.see(5)
    folder.see(3)
    assert folder.latest_millis() == 5
    (tmp_path / "latest-time").write_text("noon")
    with pytest.raises(InvalidArgument, match="damaged"):
        folder.latest_millis()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SEATKEEPER_BORROW_FOLDER": "/x", "HOME": "/h"}, "/x"),
        ({"XDG_STATE_HOME": "/s", "HOME": "/h"}, "/s/seatkeeper/borrow"),
        ({"HOME": "/h"}, "/h/.local/state/seatkeeper/borrow"),
    ],
)
def test_where_it_is_kept(environ: dict[str, str], expected: str) -> None:
    assert default_folder(environ) == Path(expected)
