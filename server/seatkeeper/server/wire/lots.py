"""What a request may say of a pool's lots. Pure; raises ``Malformed``."""

from __future__ import annotations

from dataclasses import replace

from seatkeeper.core.burst_rule import NO_RULE, BurstRule
from seatkeeper.core.lot_messages import decode_lots, read_price
from seatkeeper.core.lots import LOTS_MAX, NO_LOTS, OWNER_MAX, PoolLots, as_asked, lots_faults
from seatkeeper.core.rule_bursts import rule_faults
from seatkeeper.core.rule_messages import rule_in
from seatkeeper.core.text import hidden_in, named
from seatkeeper.core.validate import SEATS_MAX, Malformed, check_name
from seatkeeper.v1 import pool_service_pb2 as pb

_UNITS = (pb.LOT_PRICE_UNIT_SEAT_YEAR, pb.LOT_PRICE_UNIT_SEAT_HOUR)
_FOR_WHAT = "say for what: a seat-year or a seat-hour"
_KINDS = (pb.LOT_KIND_UNSPECIFIED, pb.LOT_KIND_BASE, pb.LOT_KIND_BURST)


def check_lots(spec: pb.PoolSpec) -> PoolLots:
    """Check what a request says of a pool's lots; return them with nothing written of them.

    Raises ``Malformed``. States are set by nodes, and what a request says of them is not taken over;
    but a caller that has read the pool, does not know lots, and changes ``seats`` is refused by them.
    """
    message, rule = spec.lots, _check_rule(spec.lots)
    if not message.lots and not rule:
        return NO_LOTS if rule is None else PoolLots(seats=spec.seats, rule=rule)
    if len(message.lots) > LOTS_MAX:
        raise Malformed("spec.lots", f"{len(message.lots)} lots are over {LOTS_MAX}")
    if not 0 <= message.seats <= SEATS_MAX:
        raise Malformed("spec.lots.seats", f"{message.seats} is not from 0 to {SEATS_MAX}")
    for place, lot in enumerate(message.lots):
        _check_lot(f"spec.lots.lots[{place}]", lot)
    lots = decode_lots(message)
    if not lots.lots and spec.HasField("seats"):
        lots = replace(lots, seats=spec.seats)
    for place, field, why in lots_faults(lots.lots, lots.seats):
        name = {"from": "begins_at", "until": "ends_at"}.get(field, field)
        raise Malformed(
            f"spec.lots.lots[{place}].{name}", f"lot {lots.lots[place].name}: {why}"
        )
    if spec.HasField("seats") and spec.seats not in (lots.seats, lots.in_force):
        raise Malformed(
            "spec.seats",
            f"{spec.seats} seats of a pool with lots, of which {lots.in_force} are in force: "
            "change `lots.seats`, those without a contract, or the lots",
        )
    return PoolLots(tuple(map(as_asked, lots.lots)), lots.seats, rule=rule)


def _check_rule(lots: pb.PoolLots) -> BurstRule | None:
    """Check the rule that starts bursts; return it; None: nothing is said of it."""
    if lots.burst_rule.HasField("price") and lots.burst_rule.price.per not in _UNITS:
        raise Malformed("spec.lots.burst_rule.price.per", _FOR_WHAT)
    rule = rule_in(lots, read_price)
    if rule is not None and rule != NO_RULE:
        for field, why in rule_faults(rule):
            raise Malformed(f"spec.lots.burst_rule.{field}", why)
    return rule


def _check_lot(field: str, lot: pb.Lot) -> None:
    check_name(f"{field}.name", lot.name)
    for name in ("begins_at", "ends_at"):
        timestamp = getattr(lot, name)
        if not (-(1 << 40) < timestamp.seconds < 1 << 40 and 0 <= timestamp.nanos < 10**9):
            raise Malformed(f"{field}.{name}", "is not between the years 1970 and 2200")
    if lot.HasField("price") and lot.price.per not in _UNITS:
        raise Malformed(f"{field}.price.per", _FOR_WHAT)
    if lot.kind not in _KINDS:
        raise Malformed(f"{field}.kind", f"{lot.kind} is no kind of lot that this node knows")
    if len(lot.owner) > OWNER_MAX:
        raise Malformed(f"{field}.owner", f"has over {OWNER_MAX} characters")
    if hidden := hidden_in(lot.owner):
        raise Malformed(
            f"{field}.owner", f"has characters that cannot be shown, such as {named(hidden)}"
        )
