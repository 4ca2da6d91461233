"""An administrator's move of a ticket, in its record."""

from __future__ import annotations

from fractions import Fraction

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.domain import Move
from seatkeeper.server.store.formats import RULES_FORMAT


def write_move(record: state_pb2.TicketRecord, move: Move | None) -> None:
    """Write into a ticket's record that it was moved, and that older nodes must not overlook it."""
    if move is None:
        return
    record.format = RULES_FORMAT
    numerator, halvings = move.place.numerator, move.place.denominator.bit_length() - 1
    record.move.place = numerator.to_bytes((numerator.bit_length() + 7) // 8, "big")
    record.move.halvings = halvings
    record.move.move_id = move.move_id
    record.move.reason = move.reason
    record.move.moved_at_millis = move.moved_at


def read_move(record: state_pb2.TicketRecord) -> Move | None:
    """Return the move in a ticket's record; None: it is at its own place."""
    if not record.HasField("move"):
        return None
    place = Fraction(int.from_bytes(record.move.place, "big"), 1 << record.move.halvings)
    said = record.move
    return Move(place, said.move_id, said.reason, said.moved_at_millis)
