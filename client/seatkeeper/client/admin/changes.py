"""What may be said of a pool when it is made or changed, and the specification that this comes to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any, TypedDict, TypeVar

from seatkeeper.client.admin.borrows import with_borrow
from seatkeeper.client.admin.counting import with_counting
from seatkeeper.client.admin.holds import with_hold
from seatkeeper.client.admin.lots import LotChange, change_lots
from seatkeeper.client.admin.projects import with_projects
from seatkeeper.client.admin.reservations import ReservationChange, change_reservations
from seatkeeper.client.admin.rules import Rules, with_rules
from seatkeeper.client.admin.stays import with_stay
from seatkeeper.client.config.options import refuse_others, spelled_out
from seatkeeper.core.errors import ServiceTooOld
from seatkeeper.core.lot_text import plain_seats
from seatkeeper.v1 import pool_service_pb2 as pb

_Method = TypeVar("_Method", bound=Callable[..., Any])


class Staying(TypedDict, total=False):
    """How long seats stay with those who have them."""

    hold: pb.HoldRule | None
    borrow: pb.BorrowRule | None
    borrow_include: pb.Who | None
    borrow_exclude: pb.Who | None
    stay: pb.StayRule | None


class Sharing(Staying, total=False):
    """How a pool's seats go to those who ask."""

    projects: Iterable[pb.ProjectShare]
    usage_half_life: timedelta | None
    overtaking: pb.Overtaking | None
    reclaim: pb.ReclaimRule | None
    rules: Rules | None
    advisory: bool | None
    costs: Mapping[str, int] | None
    count_once: Collection[str] | None


class NewPool(Sharing, total=False):
    """What may be said of a new pool, beside its name and its seats."""

    description: str
    lots: Iterable[pb.Lot]
    burst_rule: pb.BurstRule | None
    reservations: Iterable[pb.Reservation]


class PoolChange(Sharing, total=False):
    """What may be changed of one: what is not given, or None, stays."""

    seats: int | None
    description: str | None
    without_projects: Collection[str]
    lots: LotChange | None
    burst_rule: pb.BurstRule | None
    reservations: ReservationChange | None


DEFAULTS: dict[str, object] = {
    "projects": (),
    "usage_half_life": None,
    "overtaking": None,
    "reclaim": None,
    "hold": None,
    "stay": None,
    "borrow": None,
    "borrow_include": None,
    "borrow_exclude": None,
    "rules": None,
    "advisory": None,
    "costs": None,
    "count_once": None,
}


def making(method: _Method) -> _Method:
    """Spell ``**said`` of a method that makes a pool out, for `help` and for editors."""
    more = {"description": "", "lots": (), "burst_rule": None, "reservations": ()}
    return spelled_out(NewPool, DEFAULTS | more)(method)


def changing(method: _Method) -> _Method:
    """Spell ``**said`` of a method that changes a pool out, likewise."""
    more = {"seats": None, "description": None, "without_projects": (), "lots": None}
    more |= {"burst_rule": None}
    more |= {"reservations": None}
    return spelled_out(PoolChange, DEFAULTS | more)(method)


def new_spec(name: str, seats: int, said: NewPool) -> pb.PoolSpec:
    """Return the specification of a new pool."""
    refuse_others(NewPool, said)
    spec = pb.PoolSpec(name=name, seats=seats, description=said.get("description", ""))
    if lots := list(said.get("lots", ())):
        spec.lots.CopyFrom(pb.PoolLots(lots=lots, seats=seats))
    if (rule := said.get("burst_rule")) is not None:
        spec.lots.burst_rule.CopyFrom(rule)
        spec.lots.seats = seats
    policy = with_projects(spec.policy, said.get("projects", ()), (), *_how(said))
    if (rules := said.get("rules")) is not None:
        with_rules(policy, rules)
    with_hold(policy, said.get("hold"))
    with_stay(policy, said.get("stay"))
    with_borrow(policy, *_borrowing(said))
    with_counting(policy, said.get("advisory"), said.get("costs"))
    policy.count_once.extend(said.get("count_once") or ())
    policy.reservations.extend(said.get("reservations", ()))
    if policy.ByteSize():
        spec.policy.CopyFrom(policy)
    return spec


def change_spec(spec: pb.PoolSpec, said: PoolChange) -> None:
    """Change what is given of a specification, and nothing else. Raises `InvalidArgument`."""
    refuse_others(PoolChange, said)
    if lots := said.get("lots"):
        change_lots(spec, lots)
    if (seats := said.get("seats")) is not None:
        spec.seats = spec.lots.seats = seats
    if (rule := said.get("burst_rule")) is not None:
        spec.seats = spec.lots.seats = plain_seats(spec)
        spec.lots.burst_rule.CopyFrom(rule)
    if not spec.lots.lots and not lots and rule is None:
        spec.ClearField("lots")
    if (description := said.get("description")) is not None:
        spec.description = description
    shares, without = said.get("projects", ()), said.get("without_projects", ())
    how = _how(said)
    if shares or without or any(each is not None for each in how):
        spec.policy.CopyFrom(with_projects(spec.policy, shares, without, *how))
    if (rules := said.get("rules")) is not None:
        with_rules(spec.policy, rules)
        spec.policy.SetInParent()
    if (hold := said.get("hold")) is not None:
        with_hold(spec.policy, hold)
        spec.policy.SetInParent()
    if (stay := said.get("stay")) is not None:
        with_stay(spec.policy, stay)
        spec.policy.SetInParent()
    if any(each is not None for each in _borrowing(said)):
        with_borrow(spec.policy, *_borrowing(said))
        spec.policy.SetInParent()
    if reservations := said.get("reservations"):
        change_reservations(spec, reservations)
    advisory, costs = said.get("advisory"), said.get("costs")
    if advisory is not None or costs is not None:
        with_counting(spec.policy, advisory, costs)
        spec.policy.SetInParent()
    if (count_once := said.get("count_once")) is not None:
        spec.policy.count_once[:] = count_once
        spec.policy.SetInParent()


def _borrowing(
    said: Sharing,
) -> tuple[pb.BorrowRule | None, pb.Who | None, pb.Who | None]:
    return said.get("borrow"), said.get("borrow_include"), said.get("borrow_exclude")


def _how(
    said: Sharing,
) -> tuple[timedelta | None, pb.Overtaking | None, pb.ReclaimRule | None]:
    return said.get("usage_half_life"), said.get("overtaking"), said.get("reclaim")


def as_asked(pool: pb.Pool, asked: pb.PoolSpec) -> pb.Pool:
    """Return a pool that was made or changed. Raises `ServiceTooOld` where something was left out."""
    made, name, wanted = pool.spec.policy, pool.spec.name, asked.policy
    if wanted.projects and not made.projects:
        raise _too_old("knows no projects", f"pool {name} lists none")
    if wanted.HasField("overtaking") and not made.HasField("overtaking"):
        raise _too_old("knows no overtaking", f"pool {name} allows none")
    if wanted.overtaking.HasField("hold_back") and not made.overtaking.HasField("hold_back"):
        raise _too_old("keeps no seats for gangs", f"pool {name} does not")
    if wanted.HasField("reclaim") and not made.HasField("reclaim"):
        raise _too_old("calls no seats back", f"pool {name} does not")
    if wanted.HasField("hold") and not made.HasField("hold"):
        raise _too_old("knows no longest hold", f"pool {name} has none")
    if wanted.HasField("stay") and not made.HasField("stay"):
        raise _too_old("keeps no released seats", f"those of pool {name} are free at once")
    if wanted.HasField("borrow") and not made.HasField("borrow"):
        raise _too_old("lends no seats to machines", f"pool {name} does not")
    if borrowers(wanted.borrow) and not borrowers(made.borrow):
        raise _too_old("lends to all", f"who may borrow of pool {name} is not said")
    if wanted.HasField("rules") and not made.HasField("rules"):
        raise _too_old("knows no rules", f"pool {name} lets all in")
    if wanted.count_once and not made.count_once:
        raise _too_old("counts each grant", f"those of pool {name} count by themselves")
    if wanted.reservations and not made.reservations:
        raise _too_old("keeps no seats", f"pool {name} has no reservation")
    if wanted.HasField("counting") and not made.HasField("counting"):
        raise _too_old("knows neither advisory pools nor costs", f"pool {name} is a plain one")
    if asked.lots.lots and not pool.spec.lots.lots:
        raise _too_old("knows no lots", f"pool {name} has its plain seats alone")
    if asked.lots.burst_rule.seats and not pool.spec.lots.burst_rule.seats:
        raise _too_old("starts no bursts", f"pool {name} has no rule that does")
    if any(lot.overdraft for lot in asked.lots.lots) and not any(
        lot.overdraft for lot in pool.spec.lots.lots
    ):
        raise _too_old("knows no overdraft", f"pool {name} allows none")
    return pool


def borrowers(rule: pb.BorrowRule) -> bool:
    """Return whether a rule says who may borrow, or how much each project."""
    return any(rule.HasField(key) for key in ("include", "exclude", "per_project"))


def _too_old(what: str, so: str) -> ServiceTooOld:
    return ServiceTooOld(
        f"the node that answered {what}, so {so}; upgrade all nodes, then update the pool"
    )
