"""How a pool counts requests: what a seat costs by class, and whether it only counts. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from seatkeeper.core.validate import is_name

DEFAULT_CLASS = "default"
"""The class of requests that name none."""
COSTS_MAX = 100
COST_MAX = 1_000

CountingFault = tuple[int, str, str]
"""What is wrong: the place of the class among the given, the field, empty for the list, and why."""


@dataclass(frozen=True, slots=True)
class ClassCost:
    """What a seat costs that is asked for as one of a class."""

    name: str
    seats: int

    def __str__(self) -> str:
        """Return it for people: ``a100=4``."""
        return f"{self.name}={self.seats}"


@dataclass(frozen=True, slots=True)
class Counting:
    """How a pool counts requests. Without anything: each by its seats, none beyond the capacity."""

    is_advisory: bool = False
    """Whether it counts, and refuses nothing that can be granted."""
    costs: tuple[ClassCost, ...] = ()
    """Each class once, in the order in which they were given."""

    def cost_of(self, name: str) -> int | None:
        """Return what a seat of a class costs, empty: of none; None: there is no such class."""
        wanted = name or DEFAULT_CLASS
        found = next((each.seats for each in self.costs if each.name == wanted), None)
        return 1 if found is None and wanted == DEFAULT_CLASS else found

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that a request may name."""
        return tuple(each.name for each in self.costs)

    def lines(self) -> list[str]:
        """Return it for people."""
        said = ["advisory"] if self.is_advisory else []
        return said + ([f"costs: {','.join(map(str, self.costs))}"] if self.costs else [])

    def faults(self) -> Iterator[CountingFault]:
        """Yield all that is wrong with it."""
        if len(self.costs) > COSTS_MAX:
            yield 0, "", f"{len(self.costs)} classes are over {COSTS_MAX}"
        seen: set[str] = set()
        for place, each in enumerate(self.costs):
            if not is_name(each.name):
                yield place, "name", f"{each.name[:64]!r} is not a name"
            elif each.name in seen:
                yield place, "name", f"{each.name} is there twice"
            seen.add(each.name)
            if not 1 <= each.seats <= COST_MAX:
                yield place, "seats", f"{each.seats} is not from 1 to {COST_MAX}"


PLAIN = Counting()
