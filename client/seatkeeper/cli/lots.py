"""How the command line reads and shows a pool's contracts and bursts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import RenderableType

from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.render import Json, iso, say, table
from seatkeeper.client.admin.lots import LotChange, parse_lot
from seatkeeper.core.amounts import count, span
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.core.instants import instant_shown
from seatkeeper.core.lot_messages import decode_lot, decode_lots
from seatkeeper.core.lot_text import shortfall_text
from seatkeeper.core.lots import Lot, LotState
from seatkeeper.v1 import pool_service_pb2 as pb

LotOption = typer.Option(
    "--lot",
    metavar="KEY=VALUE,...",
    help="A contract, whose seats count while it is in force: name=, seats=N, and as you like from= "
    "and until= (a day, 2026-12-31, is the whole of it in UTC; or a time, 2026-12-31T18:00:00Z), "
    "price=1250.50 EUR/seat-year (or /seat-hour), owner=. May be repeated.",
)
WithoutLot = typer.Option(
    "--without-lot", metavar="NAME", help="A lot to take out. May be repeated."
)


@dataclass(frozen=True)
class NewLots:
    """The lots of a pool that is made."""

    lot: Annotated[list[str] | None, LotOption] = None

    @property
    def given(self) -> list[pb.Lot]:
        """What is said of them. What cannot be read ends the command."""
        try:
            return [parse_lot(text) for text in self.lot or []]
        except InvalidArgument as error:
            fail(Exit.USAGE, str(error))


@dataclass(frozen=True)
class ChangedLots(NewLots):
    """What is to become of a pool's lots."""

    without_lot: Annotated[list[str] | None, WithoutLot] = None

    @property
    def change(self) -> LotChange:
        """What is to become of them. What cannot be read ends the command."""
        return LotChange(self.given, self.without_lot or [])


def warn_of_shortfall(pool: pb.Pool) -> None:
    """Say when guarantees will not be covered, if so."""
    if text := shortfall_text(pool.spec, now_millis()):
        say(f"pool {pool.spec.name}: {text}", stderr=True)


def now_millis() -> int:
    """Return Unix milliseconds by this machine's clock."""
    return time.time_ns() // 1_000_000


def lot_json(lot: pb.Lot) -> Json:
    """Return a lot for programs; ``price`` is text, because money is no float."""
    known = decode_lot(lot)
    left = None
    if known.state is LotState.IN_FORCE and known.ends is not None:
        left = round((known.ends - now_millis()) / 1000, 3)
    return {
        "name": known.name,
        "seats": known.seats,
        "kind": known.kind.value,
        "state": known.state.value,
        "from": iso(lot.begins_at) if known.begins is not None else None,
        "until": iso(lot.ends_at) if known.ends is not None else None,
        "ends_in_seconds": left,
        "announced_days": known.announced_days or None,
        "price": str(known.price) if known.price else None,
        "owner": known.owner,
    }


def lots_json(pool: pb.Pool) -> Json:
    """Return what a pool says of its lots for programs; nothing where it has none."""
    if not pool.spec.lots.lots:
        return {}
    return {
        "seats_without_contract": pool.spec.lots.seats,
        "lots": [lot_json(lot) for lot in pool.spec.lots.lots],
    }


def lots_table(pool: pb.Pool) -> RenderableType:
    """Return the lots of a pool, with what has been written of each, and their sum."""
    return lots_rows([(pool.spec.name, lot) for lot in decode_lots(pool.spec.lots).lots])


def lots_rows(lots: Sequence[tuple[str, Lot]], *, with_pools: bool = False) -> RenderableType:
    """Return lots, each with its pool's name."""
    headings = ("lot", "kind", ">seats", "state", "from", "until", "price", "owner")
    rows = [
        (
            *([pool] if with_pools else []),
            *(lot.name, lot.kind.value, str(lot.seats), _state(lot)),
            *(_shown(lot.begins), _shown(lot.ends)),
            *(str(lot.price) if lot.price else "-", lot.owner or "-"),
        )
        for pool, lot in lots
    ]
    return table((*(["pool"] if with_pools else []), *headings), rows)


def seats_text(pool: pb.Pool) -> str:
    """Return what the seats of a pool with lots come from."""
    lots = decode_lots(pool.spec.lots)
    inside = sum(lot.state is LotState.IN_FORCE for lot in lots.lots)
    return f"{lots.seats} without a contract, and {count(inside, 'lot')} in force"


def _state(lot: Lot) -> str:
    if lot.state is LotState.IN_FORCE and lot.ends is not None:
        return f"{lot.state.value}, {span(max(0, lot.ends - now_millis()) / 1000)} left"
    return lot.state.value


def _shown(instant: int | None) -> str:
    return "-" if instant is None else instant_shown(instant)
