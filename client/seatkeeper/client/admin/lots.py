"""A pool's contracts and bursts, as text and as messages."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from seatkeeper.core.errors import InvalidArgument
from seatkeeper.core.instants import parse_instant, parse_price
from seatkeeper.core.lot_messages import encode_lot
from seatkeeper.core.lot_text import plain_seats
from seatkeeper.core.lots import Lot, Price
from seatkeeper.v1 import pool_service_pb2 as pb

_FIELDS = ("name", "seats", "from", "until", "price", "owner", "overdraft")


def parse_lot(text: str) -> pb.Lot:
    """Return what ``text`` says of a contract, such as ``name=acme,seats=16,until=2026-12-31``.

    A day is the whole of it, in UTC. Raises `InvalidArgument` for what cannot be read; whether the
    values make sense is for a node to say.
    """
    given: dict[str, str] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        field, equals, value = (each.strip() for each in part.partition("="))
        if not equals or field not in _FIELDS:
            raise InvalidArgument(
                f"lot {text[:100]!r}: {part[:100]!r} is none of "
                f"{', '.join(f'{each}=' for each in _FIELDS)}"
            )
        if field in given:
            raise InvalidArgument(f"lot {text[:100]!r}: {field} is given twice")
        given[field] = value
    name, seats = given.get("name", ""), given.get("seats", "")
    if not name:
        raise InvalidArgument(f"lot {text[:100]!r} has no name; write name=acme-2026,seats=16")
    if not (seats.isascii() and seats.isdecimal() and len(seats) < 10):
        raise InvalidArgument(f"lot {name}: seats={seats[:100]} is no number from 1 on")
    overdraft = given.get("overdraft", "0")
    if not (overdraft.isascii() and overdraft.isdecimal() and len(overdraft) < 10):
        raise InvalidArgument(f"lot {name}: overdraft={overdraft[:100]} is no number from 0 on")
    return encode_lot(
        Lot(
            name=name,
            seats=int(seats),
            begins=_instant(name, "from", given.get("from")),
            ends=_instant(name, "until", given.get("until")),
            price=_price(name, given.get("price")),
            owner=given.get("owner", ""),
            overdraft=int(overdraft),
        )
    )


def _instant(name: str, field: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_instant(text, is_end=field == "until")
    except ValueError as error:
        raise InvalidArgument(f"lot {name}: {field}: {error}") from error


def _price(name: str, text: str | None) -> Price | None:
    try:
        return None if text is None else parse_price(text)
    except ValueError as error:
        raise InvalidArgument(f"lot {name}: price: {error}") from error


@dataclass(frozen=True)
class LotChange:
    """What is to become of a pool's lots: the rest of them stays."""

    given: Sequence[pb.Lot] = ()
    """Added, or in the place of those of their names. Bursts that have ended are forgotten then, and
    when one of these is a contract, so are contracts."""
    without: Collection[str] = ()
    """Names of lots that are left out."""

    def __bool__(self) -> bool:
        """Return whether anything is to change."""
        return bool(self.given or self.without)


def change_lots(spec: pb.PoolSpec, change: LotChange) -> None:
    """Change a specification that was read.

    Raises `InvalidArgument` for a lot that is not there, and for a contract in the place of a burst, or
    the other way round, unless that is a burst that has ended.
    """
    there = {lot.name: lot for lot in spec.lots.lots}
    plain = plain_seats(spec)
    for name in change.without:
        if there.pop(name, None) is None:
            raise InvalidArgument(f"pool {spec.name} has no lot {name}")
    if change.given:
        # A burst leaves contracts, and so the pool's file, as they are.
        has_contract = not all(map(_is_burst, change.given))
        there = {
            name: lot
            for name, lot in there.items()
            if lot.state != pb.LOT_STATE_ENDED or not (has_contract or _is_burst(lot))
        }
    for lot in change.given:
        was = there.get(lot.name, lot)
        if _is_burst(was) and not _is_burst(lot):
            raise InvalidArgument(
                f"pool {spec.name} has a burst {lot.name}: stop it first, or take another name"
            )
        if _is_burst(lot) and not _is_burst(was):
            raise InvalidArgument(
                f"pool {spec.name} has a contract {lot.name}: take another name for the burst"
            )
        there[lot.name] = lot
    spec.lots.CopyFrom(pb.PoolLots(lots=there.values(), seats=plain))
    spec.seats = plain


def _is_burst(lot: pb.Lot) -> bool:
    return lot.kind == pb.LOT_KIND_BURST
