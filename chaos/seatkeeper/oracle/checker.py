"""Whether a service kept its promises. Pure.

The checker has two things: the store's whole change stream, and what users observed. An answer that a
user never got proves nothing, so it is in no record. What is in the record must agree with the change
stream, and the change stream with itself.

====  ====================================================================================
I1    never more seats out than the pool has, at any revision; of an advisory pool, never one
      more that is not marked
I2    fences of a pool are unique, and only grow
I3    what was granted is in the history; what was given back is gone; what was refused is
      never granted
I4    one request has one effect, however often it arrives; one work has one holder at a time;
      of a gang all is granted at once, or nothing
I5    users never believe in more seats than there are, all at once
I6    served in order, within a priority, or a project and its priority; no project is over its
      limit by a grant; no place in the queue is lost
I7    what the dead held is free in time; what machines borrowed, no earlier than its day and skew
I8    no request is denied before its time, or long after it, and nothing is left behind
I9    nothing is published under a grant that has ended, or under an older fence than before
I10   memory and open files stay within bounds; the runner of the processes checks these
====  ====================================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from math import inf

from seatkeeper.oracle.alternatives import check_alternatives
from seatkeeper.oracle.gangs import check_gangs
from seatkeeper.oracle.history import FaultKind, replay
from seatkeeper.oracle.kept_free import check_kept_free
from seatkeeper.oracle.record import Believed, Denied, Prevented, Record
from seatkeeper.oracle.stored import PREFIX, located, read_engine, read_grant
from seatkeeper.server.store import Change
from seatkeeper.v1 import build_pb2


class Invariant(Enum):
    """What must be true; the names are those of the table above."""

    I1 = "over-grant"
    I2 = "fence"
    I3 = "answers"
    I4 = "one effect"
    I5 = "beliefs"
    I6 = "order"
    I7 = "reclaim"
    I8 = "left behind"
    I9 = "published"
    I10 = "growth"


@dataclass(frozen=True, slots=True)
class Violation:
    """One time that something was not as promised."""

    invariant: Invariant
    message: str
    about: str = ""
    """What stays the same when it is found again later, where the message does not."""

    @property
    def key(self) -> str:
        """The same for the same violation, whenever it is found."""
        return f"{self.invariant.name} {self.about or self.message}"

    def __str__(self) -> str:
        """Return it in one line."""
        return f"{self.invariant.name} {self.message}"


PUNCTUALITY_SLACK = 5.0
"""Seconds that a wait may be longer than asked for: who finds a node dead tries others, with pauses."""
WAIT_SLACK = 0.3
"""Seconds that a wait may be shorter than asked for: a call's deadline leaves time to answer."""

GrantName = tuple[str, str]
"""Pool and grant id."""

_BY_FAULT = {
    FaultKind.OVER_GRANT: Invariant.I1,
    FaultKind.DRAINED: Invariant.I1,
    FaultKind.FENCE: Invariant.I2,
    FaultKind.GRANTED_TWICE: Invariant.I4,
    FaultKind.ORDER: Invariant.I6,
    FaultKind.OVER_LIMIT: Invariant.I6,
    FaultKind.NOT_ALLOWED: Invariant.I6,
    FaultKind.KEPT: Invariant.I6,
    FaultKind.CALLED_BACK: Invariant.I6,
    FaultKind.SAME_WORK: Invariant.I4,
    FaultKind.TAKEN_AWAY: Invariant.I6,
    FaultKind.REWRITTEN: Invariant.I4,
    FaultKind.MARK: Invariant.I1,
    FaultKind.STAY: Invariant.I7,
    FaultKind.BORROWED: Invariant.I7,
    FaultKind.COUNTED: Invariant.I1,
}


def check_history(
    changes: Sequence[Change],
    prefix: str = PREFIX,
    *,
    at_rest: bool = True,
    besides: Container[FaultKind] = (),
) -> Iterator[Violation]:
    """Check the change stream alone. ``at_rest``: all sessions have ended, so nothing may be left.

    ``besides``: what is not checked, such as the order where another than priority and acceptance is
    served.
    """
    for wrong in check_gangs(changes, prefix):
        yield Violation(Invariant.I4, wrong)
    for wrong in check_alternatives(changes, prefix):
        yield Violation(Invariant.I4, wrong)
    for wrong in check_kept_free(changes, prefix):
        yield Violation(Invariant.I6, wrong)
    for pool, history in replay(changes, prefix).items():
        for fault in history.faults:
            if fault.kind in besides:
                continue
            where = f"{pool}, revision {fault.revision}"
            yield Violation(_BY_FAULT[fault.kind], f"{where}: {fault.message}")
        # What is borrowed stays when all sessions have ended.
        out = history.out - history.borrowed
        if at_rest and (out or history.waiting):
            left = f"{out} seats out and {history.waiting} tickets at the end"
            yield Violation(Invariant.I8, f"{pool}: {left}")


@dataclass(frozen=True, slots=True)
class Given:
    """Seats as the store first had them."""

    at: float
    seats: int


@dataclass(frozen=True, slots=True)
class Life:
    """What became of one grant id in the store."""

    given: Mapping[int, Given]
    """By fence: every time that it was granted."""
    ended_at: float | None
    """When it was gone for good; None: it is not."""
    holder: str
    is_borrowed: bool = False
    """Whether a machine had it at last, and no session."""
    counts_once: tuple[tuple[str, str], ...] = ()
    """What it had in common with those with which it counted once."""


def lives(
    changes: Iterable[Change], changed_at: Mapping[int, float], prefix: str = PREFIX
) -> dict[GrantName, Life]:
    """Return what became of every grant. ``changed_at``: when each revision came about."""
    found: dict[GrantName, Life] = {}
    for pool, kind, name, change in located(changes, prefix):
        if kind != "grants":
            continue
        before, at = found.get((pool, name)), changed_at[change.revision]
        if change.entry is None:
            if before is not None:
                found[pool, name] = replace(before, ended_at=at)
            continue
        grant = read_grant(name, change.entry.value)
        given = {grant.fence: Given(at, grant.seats), **(before.given if before else {})}
        shared = grant.counts_once or (before.counts_once if before else ())
        is_borrowed = grant.borrow is not None
        found[pool, name] = Life(given, None, grant.holder, is_borrowed, shared)
    return found


def check_answers(found: Mapping[GrantName, Life], record: Record) -> Iterator[Violation]:
    """Check whether what users observed agrees with what was in the store."""
    for reported in record.acquired:
        life = found.get((reported.pool, reported.grant_id))
        given = life.given.get(reported.fence) if life is not None else None
        if given is None:
            yield Violation(Invariant.I3, f"{reported} is in no revision")
        elif given.at > reported.at:
            yield Violation(
                Invariant.I3, f"{reported}, and it was granted only at {given.at:.3f}"
            )
        elif given.seats != reported.seats:
            yield Violation(Invariant.I3, f"{reported}, and it was granted {given.seats} seats")
    for back in record.returned:
        life = found.get((back.pool, back.grant_id))
        if life is not None and (life.ended_at is None or life.ended_at > back.at):
            yield Violation(Invariant.I3, f"{back}, and it was gone at {life.ended_at}")
    for refused in record.refused:
        life = found.get((refused.pool, refused.grant_id))
        if life is not None and (life.ended_at is None or life.ended_at > refused.at):
            yield Violation(Invariant.I3, f"{refused}, and it held seats until {life.ended_at}")


def check_beliefs(
    beliefs: Iterable[Believed],
    capacity: Mapping[str, int],
    found: Mapping[GrantName, Life] | None = None,
) -> Iterator[Violation]:
    """Check whether users believed in more seats than there were; reported once for each pool.

    ``found``: what became of grants, by which those count once that do.
    """
    lives_of = found or {}
    by_pool: dict[str, list[Believed]] = {}
    for belief in beliefs:
        if belief.until > belief.since:  # else it was seen once, and not again
            by_pool.setdefault(belief.pool, []).append(belief)
    for pool, believed in by_pool.items():
        ends: list[tuple[float, int, tuple[tuple[str, str], ...]]] = []
        for belief in believed:
            life = lives_of.get((pool, belief.grant_id))
            shared = life.counts_once if life is not None else ()
            ends += [
                (belief.since, belief.seats, shared),
                (belief.until, -belief.seats, shared),
            ]
        sizes: dict[tuple[tuple[str, str], ...], Counter[int]] = {}
        held = 0
        # Who stops at a moment makes room for who begins at it.
        for at, seats, shared in sorted(ends):
            if not shared:
                held += seats
            else:
                counts = sizes.setdefault(shared, Counter())
                held -= max(+counts, default=0)
                counts[abs(seats)] += 1 if seats > 0 else -1
                held += max(+counts, default=0)
            if held > capacity[pool]:
                who = [str(each) for each in believed if each.since <= at < each.until]
                message = f"{held} of {capacity[pool]} seats of {pool} at {at:.3f} s"
                yield Violation(Invariant.I5, f"users believe in {message}: {', '.join(who)}")
                break


def check_reclaim(
    found: Mapping[GrantName, Life],
    record: Record,
    deadline: Callable[[str, float], float],
    *,
    now: float = inf,
) -> Iterator[Violation]:
    """Check whether the seats of killed users were free by ``deadline(user, killed_at)``.

    Their seats are those that they received, and those whose holder has a user's name; but for what a
    machine has borrowed, which stays until its day. ``now``:
    when the checker looks; deadlines after that are not over yet.
    """
    theirs: dict[str, set[GrantName]] = {user: set() for user in record.killed}
    for reported in record.acquired:
        if reported.user in theirs:
            theirs[reported.user].add((reported.pool, reported.grant_id))
    for name, known in found.items():
        if known.holder in theirs:
            theirs[known.holder].add(name)
    for user, killed_at in record.killed.items():
        latest = deadline(user, killed_at)
        if latest >= now:
            continue
        for pool, grant_id in sorted(theirs[user]):
            life = found.get((pool, grant_id))
            if life is None or life.is_borrowed:
                continue
            if life.ended_at is None or life.ended_at > latest:
                yield Violation(
                    Invariant.I7,
                    f"{user} was killed at {killed_at:.2f} s and held {grant_id} of {pool} until "
                    f"{life.ended_at}, past {latest:.2f} s",
                    about=grant_id,  # it may be held by a user, and by its process
                )


def check_waits(denied: Iterable[Denied]) -> Iterator[Violation]:
    """Check whether users were denied only when they had waited for a seat."""
    for reported in denied:
        waited = reported.at - reported.asked_at
        if waited < reported.wait - WAIT_SLACK:
            yield Violation(
                Invariant.I8,
                f"{reported.user} asked for {reported.pool} with a wait of {reported.wait:g} s, "
                f"and was denied "
                f"after {waited:.3f} s, at {reported.at:.2f} s",
            )


def check_punctuality(denied: Iterable[Denied]) -> Iterator[Violation]:
    """Check whether users were denied in time, where nothing kept the answer from them."""
    for reported in denied:
        waited = reported.at - reported.asked_at
        if waited > reported.wait + PUNCTUALITY_SLACK:
            yield Violation(
                Invariant.I8,
                f"{reported.user} asked for {reported.pool} with a wait of {reported.wait:g} s, "
                f"and was denied "
                f"only after {waited:.3f} s, at {reported.at:.2f} s",
            )


def count_prevented(
    prevented: Iterable[Prevented], changes: Iterable[Change], prefix: str = PREFIX
) -> dict[str, int]:
    """Return how often each attack was tried and refused.

    What was published under a grant before is left out: it may be the copy of a request whose answer
    got lost.
    """
    published = {
        _named(engine) for change in changes if (engine := read_engine(change, prefix))
    }
    counted = Counter(
        reported.attack
        for reported in prevented
        if (reported.pool, reported.grant_id, reported.fence) not in published
    )
    return dict(counted)


def check_published(
    changes: Iterable[Change],
    record: Record,
    prefix: str = PREFIX,
    *,
    pools: Container[str] | None = None,
) -> Iterator[Violation]:
    """Check whether engines were published under live grants only, by ever newer fences.

    ``pools``: whose engines to check; None: all. Of others the changes do not show enough.
    """
    live: dict[GrantName, int] = {}
    newest: dict[tuple[str, str], int] = {}
    written: set[tuple[str, str, int]] = set()
    for change in changes:
        for pool, kind, name, _ in located([change], prefix):
            if kind == "grants":
                live.pop((pool, name), None)
                if change.entry is not None:
                    grant = read_grant(name, change.entry.value)
                    live[pool, name] = grant.fence
        manifest = read_engine(change, prefix)
        if manifest is None or (pools is not None and manifest.pool not in pools):
            continue
        grant_name = manifest.pool, manifest.grant_id
        written.add(_named(manifest))
        where = f"revision {change.revision} publishes {manifest.key[:12]}"
        if live.get(grant_name) != manifest.fence:
            yield Violation(Invariant.I9, f"{where} under no grant: {grant_name}")
        if newest.get((manifest.pool, manifest.key), 0) > manifest.fence:
            yield Violation(Invariant.I9, f"{where} under the old fence {manifest.fence}")
        newest[manifest.pool, manifest.key] = manifest.fence
    for reported in record.published:
        if (reported.pool, reported.grant_id, reported.fence) not in written:
            yield Violation(Invariant.I3, f"{reported} is in no revision")


def _named(manifest: build_pb2.EngineManifest) -> tuple[str, str, int]:
    return manifest.pool, manifest.grant_id, manifest.fence
