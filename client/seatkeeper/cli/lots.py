"""How the command line reads and shows a pool's contracts and bursts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.render import Json, iso, say, table
from seatkeeper.client.admin.burst_rules import parse_burst_rule
from seatkeeper.client.admin.lots import LotChange, parse_lot
from seatkeeper.core.amounts import count, span
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.core.instants import instant_shown
from seatkeeper.core.lot_messages import decode_lot, decode_lots
from seatkeeper.core.lot_text import has_lots, shortfall_text
from seatkeeper.core.lots import Lot, LotState, PoolLots
from seatkeeper.core.rule_bursts import left, obstacle
from seatkeeper.core.rule_text import rule_texts
from seatkeeper.v1 import pool_service_pb2 as pb

if TYPE_CHECKING:
    from rich.console import RenderableType

LotOption = typer.Option(
    "--lot",
    metavar="KEY=VALUE,...",
    help="A contract, whose seats count while it is in force: name=, seats=N, and as you like from= "
    "and until= (a day, 2026-12-31, is the whole of it in UTC; or a time, 2026-12-31T18:00:00Z), "
    "price=1250.50 EUR/seat-year (or /seat-hour), owner=, overdraft=N seats that it allows beyond its "
    "own. May be repeated.",
)
BurstRuleOption = typer.Option(
    "--burst-rule",
    metavar="RULE",
    help="seats=N,length=2h,p95_wait=10m,for=15m,hours_per_month=N: a burst of so many seats and so "
    "long is started by itself when more than one request in twenty has waited for 10m or longer, for "
    "15m; but for no more hours in a month (UTC). As you like price=0.80 EUR/seat-hour, and with that "
    "budget=500 EUR a month. none: no burst is started, as in every pool that says nothing.",
)
WithoutLot = typer.Option(
    "--without-lot", metavar="NAME", help="A lot to take out. May be repeated."
)


@dataclass(frozen=True)
class NewLots:
    """The lots of a pool that is made."""

    lot: Annotated[list[str] | None, LotOption] = None
    burst_rule: Annotated[str | None, BurstRuleOption] = None

    @property
    def rule(self) -> pb.BurstRule | None:
        """When bursts are started; None: it is not given. What cannot be read ends the command."""
        try:
            return None if self.burst_rule is None else parse_burst_rule(self.burst_rule)
        except InvalidArgument as error:
            fail(Exit.USAGE, str(error))

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
        "overdraft": known.overdraft,
        "by_rule": known.is_by_rule,
    }


def lots_json(pool: pb.Pool) -> Json:
    """Return what a pool says of its lots for programs; nothing where it has none."""
    if not has_lots(pool.spec):
        return {}
    held = {(each.lot, each.began_at.ToMilliseconds()): each for each in pool.lot_use.lots}
    return {
        "seats_without_contract": pool.spec.lots.seats,
        "lots": [
            lot_json(lot)
            | {"held": held.pop((lot.name, lot.began_at.ToMilliseconds()), pb.LotSeats()).seats}
            for lot in pool.spec.lots.lots
        ],
        "overdraft": pool.lot_use.overdraft,
        "overdraft_held": pool.lot_use.overdraft_held,
        "burst_rule": rule_json(pool),
    }


def rule_json(pool: pb.Pool) -> Json | None:
    """Return the rule that starts bursts, and what it has left of this month; None: there is none."""
    lots = decode_lots(pool.spec.lots)
    if not lots.rule:
        return None
    hours, budget = left(lots, now_millis())
    return {
        **rule_texts(lots.rule),
        "hours_left": round(hours, 2),
        "budget_left": budget or None,
        "obstacle": obstacle(lots, now_millis()) or None,
    }


def rule_facts(pool: pb.Pool) -> list[tuple[str, str]]:
    """Return the same for people, as rows of facts."""
    lots = decode_lots(pool.spec.lots)
    if not lots.rule:
        return []
    said = rule_texts(lots.rule)
    price = f" at {said['price']}" if "price" in said else ""
    text = (
        f"{count(lots.rule.seats, 'seat')} for {said['length']}{price} when the 95th percentile of "
        f"waits is {said['when.p95_wait']} or more for {said['when.for']}"
    )
    return [("burst rule", text), ("left this month", left_text(lots))]


def left_text(lots: PoolLots) -> str:
    """Return what a rule has left of this month, in UTC, and why it starts none, for people."""
    assert lots.rule is not None
    hours, budget = left(lots, now_millis())
    text = f"{hours:.4g} of {count(lots.rule.hours_per_month, 'hour')}"
    text += f", {budget} of {rule_texts(lots.rule)['budget']}" if budget else ""
    why = obstacle(lots, now_millis())
    return f"{text}; {why}" if why else text


def lots_table(pool: pb.Pool) -> RenderableType:
    """Return the lots of a pool, with what has been written of each, and their sum."""
    return lots_rows([(pool.spec.name, lot) for lot in decode_lots(pool.spec.lots).lots])


def lots_rows(lots: Sequence[tuple[str, Lot]], *, with_pools: bool = False) -> RenderableType:
    """Return lots, each with its pool's name."""
    headings = ("lot", "kind", ">seats", "state", "from", "until", "price", "owner")
    rows = [
        (
            *([pool] if with_pools else []),
            *(lot.name, lot.kind.value, _seats(lot), _state(lot)),
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
    text = f"{lots.seats} without a contract, and {count(inside, 'lot')} in force"
    use = pool.lot_use
    if use.overdraft or use.overdraft_held:
        text += f"; overdraft {use.overdraft}, of which {use.overdraft_held} held"
    return text


def _seats(lot: Lot) -> str:
    return f"{lot.seats} + {lot.overdraft}" if lot.overdraft else str(lot.seats)


def _state(lot: Lot) -> str:
    if lot.state is LotState.IN_FORCE and lot.ends is not None:
        return f"{lot.state.value}, {span(max(0, lot.ends - now_millis()) / 1000)} left"
    return lot.state.value


def _shown(instant: int | None) -> str:
    return "-" if instant is None else instant_shown(instant)
