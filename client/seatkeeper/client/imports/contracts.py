"""Licences with dates, as the lots of a pool."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from seatkeeper.client.imports.names import name_of
from seatkeeper.client.imports.parsed import Became, Outcome
from seatkeeper.client.imports.seats import YEAR_MAX, Pool, Source
from seatkeeper.core.amounts import count
from seatkeeper.core.instants import parse_instant
from seatkeeper.core.lot_messages import encode_lot
from seatkeeper.core.lots import LOTS_MAX, Lot
from seatkeeper.v1 import pool_service_pb2 as pb

_NAME_MAX = 63
_SUFFIX_MAX = 6
_INT_MAX = (1 << 31) - 1


@dataclass
class Contract:
    """A lot, and where it comes from."""

    lot: pb.Lot
    outcomes: tuple[Outcome, ...]


@dataclass
class Contracts:
    """What the dated licences of a pool become."""

    contracts: tuple[Contract, ...] = ()
    seats: int = 0
    """Seats that have no end that a lot could have."""
    lost: tuple[Source, ...] = ()
    """What has no room."""


YEAR_MIN = 1970
"""The first in which a lot may begin; what began before is in force."""


def contracts_of(pool: Pool) -> Contracts:
    """Return the lots of a pool: one for each licence, or for licences with the same dates.

    Licences share a lot only where there are more than a pool has room for. Where there is still not
    enough, those that begin last are lost.
    """
    dated = [source for source in pool.sources if source.is_lot and source.seats]
    endless = []
    parts = []
    for source in dated:
        is_far = source.expires is not None and source.expires.year >= YEAR_MAX
        if is_far:
            source.outcome.partly(
                f"in force until {source.expires}: lots end before {YEAR_MAX}, so it has no end here"
            )
        if is_far and source.starts is None and not source.overdraft:
            endless.append(source)
        else:
            parts.append([source])
    if len(parts) > LOTS_MAX:
        shared: dict[tuple[date | None, date | None], list[Source]] = {}
        for (source,) in parts:
            shared.setdefault((source.starts, source.expires), []).append(source)
        parts = sorted(shared.values(), key=lambda part: part[0].starts or date.min)
    taken: set[str] = set()
    return Contracts(
        tuple(_contract(pool, part, taken) for part in parts[:LOTS_MAX]),
        sum(source.seats for source in endless),
        tuple(source for part in parts[LOTS_MAX:] for source in part),
    )


def _contract(pool: Pool, sources: list[Source], taken: set[str]) -> Contract:
    first = sources[0]
    name = _free(name_of(first.contract) or name_of(pool.feature) or "lot", taken)
    lot = Lot(
        name=name,
        seats=min(sum(source.seats for source in sources), _INT_MAX),
        begins=None if first.starts is None else _begin(first.starts),
        ends=None if first.expires is None else _end(first.expires),
        overdraft=min(sum(source.overdraft for source in sources), _INT_MAX),
    )
    outcomes = {id(source.outcome): source.outcome for source in sources}
    return Contract(encode_lot(lot), tuple(outcomes.values()))


def _free(base: str, taken: set[str]) -> str:
    """Return a name that no other lot of the pool has."""
    found, number = base, 1
    while found in taken:  # at most once for each lot
        number += 1
        found = f"{base[: _NAME_MAX - _SUFFIX_MAX]}-{number}"
    taken.add(found)
    return found


def _begin(day: date) -> int | None:
    """Return the first moment of a day; None: no lot has dates of so long ago."""
    return None if day.year < YEAR_MIN else parse_instant(day.isoformat())


def _end(day: date) -> int | None:
    """Return the moment at which a day is over; None: no lot ends so late."""
    return None if day.year >= YEAR_MAX else parse_instant(day.isoformat(), is_end=True)


def say_what_is_lost(lost: Iterable[Source]) -> None:
    """Name licences that have no room among the lots of their pool."""
    for source in lost:
        end = f" until {source.expires}" if source.expires is not None else ""
        begin = f" from {source.starts}" if source.starts is not None else ""
        reason = (
            f"a pool has at most {LOTS_MAX} lots, and its {count(source.seats, 'seat')}{begin}{end} "
            "are not among them: add them when one has ended"
        )
        if source.outcome.targets:
            source.outcome.partly(reason)
        else:
            source.outcome.ends_as(Became.NONE, reason)
