"""How a pool's seats go to those who wait: what options say, and what is said of a pool."""

from __future__ import annotations

from datetime import timedelta

from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.render import iso
from seatkeeper.client.admin.borrows import borrow_text, parse_borrow
from seatkeeper.client.admin.holds import hold_text, parse_hold
from seatkeeper.client.admin.projects import overtaking_text, parse_overtaking
from seatkeeper.client.admin.reclaims import parse_reclaim, reclaim_text
from seatkeeper.client.admin.rules import who_texts
from seatkeeper.client.admin.stays import parse_stay, stay_text
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.v1 import pool_service_pb2 as pb


def sharing_facts(pool: pb.Pool) -> list[tuple[str, str]]:
    """Return what `pool show` says of a pool's policy, beside its projects."""
    policy, found = pool.spec.policy, []
    if pool.HasField("hold_back"):
        kept = pool.hold_back
        text = f"{kept.idle} free, for the gang of {kept.grant_id}, until {iso(kept.until)} at most"
        found.append(("kept free", text))
    if policy.HasField("overtaking"):
        found.append(("overtaking", overtaking_text(policy.overtaking)))
    if policy.HasField("reclaim"):
        found.append(("reclaim", reclaim_text(policy.reclaim)))
    if policy.HasField("hold"):
        found.append(("hold", hold_text(policy.hold)))
    if policy.HasField("stay"):
        found.append(("stay", stay_text(policy.stay)))
    if policy.HasField("borrow"):
        found.append(("borrow", borrow_text(policy.borrow)))
        for key in ("include", "exclude"):
            if policy.borrow.HasField(key):
                who = who_texts(getattr(policy.borrow, key))
                found.append((f"borrow {key}", ", ".join(who)))
    return found


def half_life_of(seconds: float | None) -> timedelta | None:
    """Return what an option says of the half-life; 0: none. One between 0 and 1 ends the command."""
    if seconds is not None and 0 < seconds < 1:
        fail(Exit.USAGE, f"--usage-half-life {seconds:g}: from 1 s on, or 0 for none")
    return None if seconds is None else timedelta(seconds=seconds)


def parsed_reclaim(text: str | None) -> pb.ReclaimRule | None:
    """Return what an option says of calling back. One that cannot be read ends the command."""
    try:
        return None if text is None else parse_reclaim(text)
    except InvalidArgument as error:
        fail(Exit.USAGE, str(error))


def parsed_hold(text: str | None) -> pb.HoldRule | None:
    """Return what an option says of longest holds. One that cannot be read ends the command."""
    try:
        return None if text is None else parse_hold(text)
    except InvalidArgument as error:
        fail(Exit.USAGE, str(error))


def parsed_stay(text: str | None) -> pb.StayRule | None:
    """Return what an option says of seats that are kept. One that cannot be read ends the command."""
    try:
        return None if text is None else parse_stay(text)
    except InvalidArgument as error:
        fail(Exit.USAGE, str(error))


def parsed_borrow(text: str | None) -> pb.BorrowRule | None:
    """Return what an option says of borrowing. One that cannot be read ends the command."""
    try:
        return None if text is None else parse_borrow(text)
    except InvalidArgument as error:
        fail(Exit.USAGE, str(error))


def parsed_overtaking(text: str | None) -> pb.Overtaking | None:
    """Return what an option says of overtaking. One that cannot be read ends the command."""
    try:
        return None if text is None else parse_overtaking(text)
    except InvalidArgument as error:
        fail(Exit.USAGE, str(error))
