"""The rules that decide who is served next, each with its name, and how they are said.

Policies name them where they hold a ticket back or put another before it (``plan``); ``waiting`` says
which of them decides now. What a rule is for people is written here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Rule(StrEnum):
    """What a ticket waits for. The values are names on the wire: they stay."""

    NEXT = "next"
    """Nothing: the next decision grants it."""
    CLOSED = "closed"
    """The pool has no seats."""
    DRAINED = "drained"
    """An administrator has drained the pool."""
    DRAINING = "draining"
    """More seats are held than the pool has: it was made smaller."""
    SESSION = "session"
    """Its session has ended; it goes with it."""
    WORK = "work"
    """Another does, or is to do, the same work."""
    GANG = "gang"
    ALTERNATIVES = "alternatives"
    """It is granted together with seats of other pools, or not at all."""
    LIMIT = "limit"
    """Its project, or one that this is a part of, may hold no more."""
    PER_HOLDER = "per_holder"
    """Its holder has the most that each holder may hold."""
    PER_HOST = "per_host"
    """Its host has the most that each host may hold."""
    PER_PROJECT = "per_project"
    """Its project has the most that each project may hold."""
    STAY = "stay"
    """It is next, and seats that would do are kept after a release or a loss."""
    RESERVATION = "reservation"
    """What is free is kept for others while a window is open."""
    POLICY = "policy"
    """The pool's policy holds it back, by a rule without a name."""
    SEATS = "seats"
    """It is next, and too few seats are free."""
    LARGE = "large"
    """One that is next wants more seats than are free, and is not passed."""
    PRIORITY = "priority"
    """Others have a higher priority."""
    ARRIVAL = "arrival"
    """Others came before it."""
    MOVED = "moved"
    """An administrator moved others before it, or it behind them."""
    GUARANTEE = "guarantee"
    """Others' projects are under their guarantees."""
    WEIGHT = "weight"
    """Others' projects have less for their weights."""
    EXCLUDE = "exclude"
    """Never of one that waits: it is not let in, and denied."""
    INCLUDE = "include"
    """As above: others are let in."""
    CAPACITY = "capacity"
    """As above: it wants more seats than the pool has. Said of what an advisory pool grants."""
    COST_CLASS = "cost_class"
    """As above: the pool's costs do not list its class."""


@dataclass(frozen=True, slots=True)
class Reason:
    """A rule, and what it says of one ticket."""

    rule: Rule
    text: str
    """For people; without the rule's name."""
    of: str = ""
    """Which of several rules of this kind: its name, where they have names of their own."""

    @property
    def name(self) -> str:
        """The rule's name, and which of several it is: ``reservation nightly``."""
        return f"{self.rule} {self.of}" if self.of else str(self.rule)

    def __str__(self) -> str:
        """Return the text with the rule's name."""
        return f"{self.text} (rule `{self.name}`)"


ORDERS = {
    Rule.PRIORITY: "of a higher priority",
    Rule.ARRIVAL: "that came before it",
    Rule.MOVED: "that an administrator's move put before it",
    Rule.GUARANTEE: "of projects under their guarantees",
    Rule.WEIGHT: "of projects that have less for their weights",
}
"""Rules that put one request before another, as a description of that other."""
