"""Between a pool's lots and their message: in requests, in the store, and in what clients are shown."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp

from seatkeeper.core.lot_use import LotMarks, LotSeats
from seatkeeper.core.lots import (
    NO_LOTS,
    Lot,
    LotKind,
    LotState,
    PoolLots,
    Price,
    PriceUnit,
)
from seatkeeper.core.rule_messages import fill_rule, months_in, rule_in
from seatkeeper.v1 import pool_service_pb2 as pb

_STATES = {
    LotState.PENDING: pb.LOT_STATE_PENDING,
    LotState.IN_FORCE: pb.LOT_STATE_IN_FORCE,
    LotState.ENDED: pb.LOT_STATE_ENDED,
}
_KINDS = {LotKind.BASE: pb.LOT_KIND_BASE, LotKind.BURST: pb.LOT_KIND_BURST}
_UNITS = {
    PriceUnit.SEAT_YEAR: pb.LOT_PRICE_UNIT_SEAT_YEAR,
    PriceUnit.SEAT_HOUR: pb.LOT_PRICE_UNIT_SEAT_HOUR,
}
_STATE_OF: dict[int, LotState] = {number: state for state, number in _STATES.items()}
_KIND_OF = {number: kind for kind, number in _KINDS.items()}
_UNIT_OF = {number: unit for unit, number in _UNITS.items()}


def encode_lots(lots: PoolLots) -> pb.PoolLots:
    """Return the message for a pool's lots."""
    message = pb.PoolLots(
        lots=map(encode_lot, lots.lots),
        seats=lots.seats,
        edited_revision=lots.edited_revision,
    )
    fill_rule(message, lots.rule, lots.months, fill_price)
    return message


def encode_lot(lot: Lot) -> pb.Lot:
    """Return the message for a lot."""
    encoded = pb.Lot(
        name=lot.name,
        seats=lot.seats,
        kind=_KINDS[lot.kind],
        owner=lot.owner,
        state=_STATES[lot.state],
        announced_days=lot.announced_days,
        overdraft=lot.overdraft,
        is_by_rule=lot.is_by_rule,
    )
    for field, instant in (
        *(("begins_at", lot.begins), ("ends_at", lot.ends)),
        *(("began_at", lot.began_at), ("ended_at", lot.ended_at)),
    ):
        if instant is not None:
            getattr(encoded, field).FromMilliseconds(instant)
    if lot.price is not None:
        fill_price(encoded.price, lot.price)
    return encoded


def fill_price(message: pb.LotPrice, price: Price) -> None:
    """Say a price in a message."""
    message.amount, message.currency = price.amount, price.currency
    message.per = _UNITS[price.per]


def read_price(message: pb.LotPrice) -> Price:
    """Return the price in a message."""
    per = _UNIT_OF.get(message.per, PriceUnit.SEAT_YEAR)
    return Price(message.amount, message.currency, per)


def encode_seats(seats: LotSeats) -> pb.LotSeats:
    """Return the message for seats that come from a lot."""
    encoded = pb.LotSeats(lot=seats.lot, seats=seats.seats, kind=_KINDS[seats.kind])
    if seats.began_at is not None:
        encoded.began_at.FromMilliseconds(seats.began_at)
    if seats.price is not None:
        fill_price(encoded.price, seats.price)
    return encoded


def decode_seats(message: pb.LotSeats) -> LotSeats:
    """Return the seats in a message."""
    return LotSeats(
        message.lot,
        message.seats,
        _millis(message.began_at) if message.HasField("began_at") else None,
        _KIND_OF.get(message.kind, LotKind.BASE),
        read_price(message.price) if message.HasField("price") else None,
    )


def decode_marks(lots: Iterable[pb.LotSeats], overdraft: int) -> LotMarks | None:
    """Return the marks of a grant; None: it has none."""
    seats = tuple(map(decode_seats, lots))
    return LotMarks(seats, overdraft) if seats or overdraft else None


def decode_lots(message: pb.PoolLots) -> PoolLots:
    """Return the lots in a message."""
    rule = rule_in(message, read_price)
    if not message.lots and rule is None:
        return NO_LOTS
    return PoolLots(
        *(tuple(map(decode_lot, message.lots)), message.seats, message.edited_revision),
        rule=rule,
        months=months_in(message),
    )


def decode_lot(message: pb.Lot) -> Lot:
    """Return the lot in a message."""
    return Lot(
        name=message.name,
        seats=message.seats,
        begins=_millis(message.begins_at) if message.HasField("begins_at") else None,
        ends=_millis(message.ends_at) if message.HasField("ends_at") else None,
        price=read_price(message.price) if message.HasField("price") else None,
        kind=_KIND_OF.get(message.kind, LotKind.BASE),
        owner=message.owner,
        state=_state_of(message.state),
        began_at=_millis(message.began_at) if message.HasField("began_at") else None,
        ended_at=_millis(message.ended_at) if message.HasField("ended_at") else None,
        announced_days=message.announced_days,
        overdraft=message.overdraft,
        is_by_rule=message.is_by_rule,
    )


def _state_of(number: int) -> LotState:
    """Return a state; one of a later version counts no seats, and is not moved."""
    if number == pb.LOT_STATE_UNSPECIFIED:
        return LotState.PENDING
    return _STATE_OF.get(number, LotState.ENDED)


def _millis(timestamp: Timestamp) -> int:
    return timestamp.ToMilliseconds()
