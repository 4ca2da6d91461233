"""How a pool's seats go to those who wait, as options of commands and as facts of a pool."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

import typer

from seatkeeper.cli.exits import Exit, fail
from seatkeeper.client.admin.projects import overtaking_text, parse_overtaking
from seatkeeper.client.admin.reclaims import parse_reclaim, reclaim_text
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.v1 import pool_service_pb2 as pb

HalfLife = typer.Option(
    "--usage-half-life",
    metavar="SECONDS",
    min=0,
    max=90 * 24 * 3600,
    help="A project that has used little for its weight comes first; half of what was used is "
    "forgotten in this time. 0: only what is held counts.",
)
Overtake = typer.Option(
    "--overtaking",
    metavar="RULE",
    help="seats=N,within=SECONDS: while a request wants more seats than are free, smaller ones behind "
    "it may be granted N seats in all, until it has waited so long. none: they wait with it, as in "
    "every pool that says nothing.",
)
ReclaimOption = typer.Option(
    "--reclaim",
    metavar="RULE",
    help="notice=SECONDS,minimum_hold=SECONDS,hourly=N: seats that projects hold beyond their "
    "guarantees are called back for one under its own. Their holders have at least the notice; seats "
    "held for less than the minimum (60) stay, and at most N (60) grants are called back in an hour. "
    "none: no seat is called back, as in every pool that says nothing.",
)


@dataclass(frozen=True)
class Sharing:
    """What an administrator says of it: each field is an option."""

    usage_half_life: Annotated[float | None, HalfLife] = None
    overtaking: Annotated[str | None, Overtake] = None
    reclaim: Annotated[str | None, ReclaimOption] = None

    @property
    def is_given(self) -> bool:
        """Whether anything is said."""
        given = (self.usage_half_life, self.overtaking, self.reclaim)
        return any(each is not None for each in given)

    @property
    def half_life(self) -> timedelta | None:
        """What is said of the half-life; 0: none. One between 0 and 1 ends the command."""
        return half_life_of(self.usage_half_life)

    @property
    def overtaking_rule(self) -> pb.Overtaking | None:
        """What is said of overtaking. One that cannot be read ends the command."""
        return parsed_overtaking(self.overtaking)

    @property
    def reclaim_rule(self) -> pb.ReclaimRule | None:
        """What is said of calling back. One that cannot be read ends the command."""
        return parsed_reclaim(self.reclaim)


def sharing_facts(policy: pb.PoolPolicy) -> list[tuple[str, str]]:
    """Return what `pool show` says of a policy, beside its projects."""
    found = []
    if policy.HasField("overtaking"):
        found.append(("overtaking", overtaking_text(policy.overtaking)))
    if policy.HasField("reclaim"):
        found.append(("reclaim", reclaim_text(policy.reclaim)))
    return found


def half_life_of(seconds: float | None) -> timedelta | None:
    """Return what an option says of the half-life; 0: none. One between 0 and 1 ends the command."""
    if seconds is not None and 0 < seconds < 1:
        fail(Exit.USAGE, f"--usage-half-life {seconds:g}: from 1 s on, or 0 for none")
    return None if seconds is None else timedelta(seconds=seconds)


def parsed_reclaim(text: str | None) -> pb.ReclaimRule | None:
    """Return what an option says of calling back. One that cannot be read ends the command."""
    try:
        return None if text is None else parse_reclaim(text)
    except InvalidArgument as error:
        fail(Exit.USAGE, str(error))


def parsed_overtaking(text: str | None) -> pb.Overtaking | None:
    """Return what an option says of overtaking. One that cannot be read ends the command."""
    try:
        return None if text is None else parse_overtaking(text)
    except InvalidArgument as error:
        fail(Exit.USAGE, str(error))
