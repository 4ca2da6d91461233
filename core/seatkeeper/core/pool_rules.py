"""Who may use a pool, and how much each may have of it. Pure.

What is excluded is excluded, also where it is included; and of a pool that includes any, only those are
let in. Nodes decide by it; what may be said is in ``pool_rule_faults``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

ANY = "*"
"""Stands for any text, once in a pattern."""


@dataclass(frozen=True)
class Who:
    """Some of those who ask: by project, by holder, by a group of holders, or by host."""

    projects: tuple[str, ...] = ()
    """Names and patterns, as below."""
    holders: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    """In any case of letters."""

    @property
    def is_empty(self) -> bool:
        """Whether it names none."""
        return not (self.projects or self.holders or self.groups or self.hosts)

    def __str__(self) -> str:
        """Return it for people: ``project vision, holder ci-*``."""
        said = [f"project {each}" for each in self.projects]
        said += [f"holder {each}" for each in self.holders]
        said += [f"group {each}" for each in self.groups]
        return ", ".join([*said, *(f"host {each}" for each in self.hosts)])


@dataclass(frozen=True)
class HolderGroup:
    """Holders under one name."""

    name: str
    holders: tuple[str, ...]

    def __str__(self) -> str:
        """Return it for people."""
        return f"{self.name}: {', '.join(self.holders)}"


@dataclass(frozen=True)
class AtMost:
    """The most that each holder, or each project, may have; None: all there is."""

    seats: int | None = None
    tickets: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it limits nothing."""
        return self.seats is None and self.tickets is None

    def __str__(self) -> str:
        """Return it for people: ``seats=2,tickets=5``."""
        said = [] if self.seats is None else [f"seats={self.seats}"]
        return ",".join(said + ([] if self.tickets is None else [f"tickets={self.tickets}"]))


NOT_SAID = Who()
NO_LIMIT = AtMost()


@dataclass(frozen=True)
class PoolRules:
    """Who may use a pool, and how much each may have."""

    groups: tuple[HolderGroup, ...] = ()
    include: Who = NOT_SAID
    """Empty: all are let in."""
    exclude: Who = NOT_SAID
    """Empty: none is kept out."""
    per_holder: AtMost = NO_LIMIT
    per_project: AtMost = NO_LIMIT
    """Of what a project asks for itself: that of its parts is not counted."""
    per_host: AtMost = NO_LIMIT
    """Of a host that is not known nothing is counted."""

    @cached_property
    def limits_seats(self) -> bool:
        """Whether there is a most of seats that each may hold."""
        return any(most.seats is not None for _, most in self.limits)

    @cached_property
    def limits_tickets(self) -> bool:
        """Whether there is a most of requests that each may have in the queue."""
        return any(most.tickets is not None for _, most in self.limits)

    @cached_property
    def limits(self) -> tuple[tuple[str, AtMost], ...]:
        """What each may have, by the names of the fields."""
        most = (self.per_holder, self.per_host, self.per_project)
        return tuple(zip(("per_holder", "per_host", "per_project"), most, strict=True))

    @cached_property
    def looks_at_hosts(self) -> bool:
        """Whether anything depends on the host that a request comes from."""
        named = self.include.hosts or self.exclude.hosts
        return bool(named) or not self.per_host.is_empty

    def broken_by(self, holder: str, project: str, seats: int, host: str = "") -> str | None:
        """Return the name of the rule by which a request can never be served; None: it can.

        The names are those of the fields. ``host``: empty where it is not known.
        """
        if self.excluded_by(holder, project, host) is not None:
            return "exclude"
        if not self.includes(holder, project, host):
            return "include"
        for name, most in self.limits:
            is_counted = bool(host) or name != "per_host"
            if most.seats is not None and seats > most.seats and is_counted:
                return name
        return None

    def excluded_by(self, holder: str, project: str, host: str = "") -> str | None:
        """Return what of the rules keeps a holder out, such as ``holder mal*``; None: nothing does."""
        return self._excluded.found(holder, project, host)

    def includes(self, holder: str, project: str, host: str = "") -> bool:
        """Return whether a holder is among those who are let in."""
        return self.include.is_empty or self._included.found(holder, project, host) is not None

    @cached_property
    def _excluded(self) -> _Matcher:
        return _Matcher(self.exclude, self.groups)

    @cached_property
    def _included(self) -> _Matcher:
        return _Matcher(self.include, self.groups)

    def lines(self) -> list[str]:
        """Return it for people."""
        lists = [f"group {each}" for each in self.groups]
        lists += [] if self.include.is_empty else [f"include: {self.include}"]
        lists += [] if self.exclude.is_empty else [f"exclude: {self.exclude}"]
        lists += [] if self.per_holder.is_empty else [f"per holder: {self.per_holder}"]
        lists += [] if self.per_host.is_empty else [f"per host: {self.per_host}"]
        return lists + (
            [] if self.per_project.is_empty else [f"per project: {self.per_project}"]
        )


NO_RULES = PoolRules()


def finder(who: Who, groups: Iterable[HolderGroup]) -> Callable[[str, str, str], str | None]:
    """Return what says, of a holder, a project and a host, which entry of ``who`` means it.

    It says None where none does. The host is empty where it is not known.
    """
    return _Matcher(who, groups).found


class _Names:
    """Names and patterns, asked whether one fits; most are answered without a look at each."""

    def __init__(self, what: str, patterns: Iterable[str]) -> None:
        self._what = what
        patterns = tuple(patterns)
        self._exact = frozenset(each for each in patterns if ANY not in each)
        self._open = tuple((each, *each.split(ANY, 1)) for each in patterns if ANY in each)

    def found(self, name: str) -> str | None:
        if name in self._exact:
            return f"{self._what} {name}"
        for pattern, before, after in self._open:
            is_long = len(name) >= len(before) + len(after)
            if is_long and name.startswith(before) and name.endswith(after):
                return f"{self._what} {pattern}"
        return None


class _Matcher:
    """Who is meant, made ready to be asked often."""

    def __init__(self, who: Who, groups: Iterable[HolderGroup]) -> None:
        members = {group.name: group.holders for group in groups}
        self._projects = _Names("project", who.projects)
        self._holders = [
            _Names("holder", who.holders),
            *(_Names(f"group {name}, holder", members.get(name, ())) for name in who.groups),
        ]
        self._hosts = _Names("host", (each.lower() for each in who.hosts))

    def found(self, holder: str, project: str, host: str) -> str | None:
        if (by := self._projects.found(project)) is not None:
            return by
        if host and (by := self._hosts.found(host.lower())) is not None:
            return by
        return next((by for each in self._holders if (by := each.found(holder))), None)
