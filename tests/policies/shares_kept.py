"""What shares of projects promise, said without their code."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from fractions import Fraction

from tests.policies.counted_once import each_once, largest_of, shared_of, taking
from tests.policies.rules import Step, place_of
from tests.policies.rules_kept import breach, held_back
from tests.policies.windows_kept import KeptNow

from seatkeeper.server.domain import (
    Grant,
    Overtaking,
    PoolPolicy,
    ProjectShare,
    ReclaimRule,
    Ticket,
    Usage,
)

Held = Mapping[str, int | Fraction]
"""Seats by project, with those of its parts; and, as ``own of``, without them."""
LAB = PoolPolicy(
    (
        ProjectShare(project="lab", guaranteed=2, limit=4),
        ProjectShare(project="cv", weight=2, parent="lab"),
        ProjectShare(project="nlp", guaranteed=1, limit=3, parent="lab"),
    )
)
"""For a pool in which also a project asks that is not listed."""


def drawn_policy(rng: random.Random, seats: int) -> PoolPolicy:
    """Return a policy that a pool of so many seats can have, for projects cv, nlp and asr.

    Every one may hold a seat. Sometimes cv and nlp are parts of a lab. Sometimes none is listed.
    """
    has_lab = rng.random() < 0.5
    left = seats
    shares: list[ProjectShare] = []
    for project in ("cv", "nlp", "asr"):
        if project == "asr" and rng.random() < 0.5:
            continue  # not listed
        guaranteed = rng.randint(0, left)
        left -= guaranteed
        limit = rng.choice([None, None, rng.randint(max(1, guaranteed), max(1, seats))])
        parent = "lab" if has_lab and project != "asr" else ""
        shares.append(
            ProjectShare(
                project=project,
                guaranteed=guaranteed,
                limit=limit,
                weight=rng.choice([1, 1, 2, 3]),
                parent=parent,
            )
        )
    if has_lab:
        within = sum(share.guaranteed for share in shares if share.parent)
        limit = rng.choice([None, rng.randint(max(1, within), max(1, seats))])
        shares.insert(0, ProjectShare(project="lab", limit=limit, weight=rng.choice([1, 2])))
    half_life = rng.choice([None, timedelta(seconds=3), timedelta(minutes=1)])
    overtaking = Overtaking(
        rng.randint(1, 4), rng.choice([timedelta(seconds=2), timedelta(minutes=1)])
    )
    if overtaking.seats % 2:  # no draw of its own, so the others stay as they were
        overtaking = replace(overtaking, hold_back=timedelta(seconds=3))
    reclaim = None
    if any(share.guaranteed for share in shares) and rng.random() < 0.5:
        notice, least = rng.choice([1, 2, 4]), rng.choice([0, 1, 5])
        reclaim = ReclaimRule(timedelta(seconds=notice), timedelta(seconds=least), 1_000)
    match rng.randrange(5):
        case 0 | 1:
            return PoolPolicy(tuple(shares), half_life, reclaim=reclaim)
        case 2 | 3:
            return PoolPolicy(tuple(shares), half_life, overtaking, reclaim)
        case _:
            return PoolPolicy(overtaking=overtaking)


@dataclass(frozen=True)
class SharesKept:
    """Limits hold; and what is granted is the next ticket, of all that are known to have waited.

    Or one that overtakes it, as far as the policy allows.
    """

    policy: PoolPolicy

    def broken_by(self, step: Step) -> Iterator[str]:
        """Yield what is wrong however much of what had ended the decision knew of.

        An advisory pool promises no order: the oracle looks at its marks.
        """
        if step.after.spec is not None and step.after.spec.policy.counting.is_advisory:
            return
        faults = [
            list(self._broken_by(step, step.unseen[known:]))
            for known in range(len(step.unseen) + 1)
        ]
        yield from min(faults, key=len)

    def _broken_by(self, step: Step, unseen: Sequence[Grant | Ticket]) -> Iterator[str]:
        """Grant by grant: what is held grows as they are made."""
        # Those that take over seats which are kept for them hold no more than before.
        new_grants = [grant for grant in step.made if not grant.continues]
        made = {grant.grant_id for grant in new_grants}
        unseen = [each for each in unseen if each.grant_id not in step.after.kept]
        held: dict[str, int] = {}
        there = [*step.after.grants.values(), *step.after.kept.values()]
        holding = [g for g in there if g.grant_id not in made]
        holding += [each for each in unseen if isinstance(each, Grant)]
        shared = largest_of(holding)
        # Who takes no seats waits for none, and takes none from others.
        new_grants = [taking(grant, grant.group, shared) for grant in new_grants]
        new_grants = [grant for grant in new_grants if grant.seats]
        all_holding, holding = holding, each_once(holding)
        for grant in holding:
            self._add(held, grant)
        # What is new in this step came in an order that the history does not say.
        newest = step.before.guard.ticket_number + 1
        waiting = {
            # Moves of this step are made after its grants.
            grant_id: step.before.tickets.get(grant_id)
            or replace(ticket, number=min(ticket.number, newest))
            for grant_id, ticket in step.after.tickets.items()
            if not ticket.gang  # served with others alone, and not when its turn comes
        }
        waiting |= {
            each.grant_id: each for each in unseen if isinstance(each, Ticket) and not each.gang
        }
        spec = step.after.spec
        waiting = {
            grant_id: beside
            for grant_id, each in waiting.items()
            if (beside := taking(each, shared_of(spec, each), shared)).seats
        }
        for grant in new_grants:
            stored = step.before.tickets.get(grant.grant_id)
            asked = stored or _as_ticket(grant, newest)
            waiting[grant.grant_id] = replace(asked, seats=grant.seats)
        used = self._used(step.before.guard.usage, held)
        new = Counter(each.project for each in waiting.values() if place_of(each) == newest)
        works = {
            each.work_key for each in step.after.grants.values() if each.grant_id not in made
        } - {""}
        works |= {each.work_key for each in unseen if isinstance(each, Grant)} - {""}
        # One that was refused may have been next, and not have fitted.
        is_unclear = step.has_refused or any(count > 1 for count in new.values())
        rules = step.after.spec.policy.rules if step.after.spec else self.policy.rules
        if rules.limits_seats and not self.policy.projects:
            is_unclear = is_unclear or new.total() > 1
        overtaken = Counter(step.before.guard.overtaken)
        # Some of those who share a seat may be among those whom a window is for.
        kept = KeptNow(step.after.spec, all_holding)
        for grant in new_grants:
            asked = waiting[grant.grant_id]
            if any(self._is_over(held, each, asked) for each in self._path(grant.project)):
                yield f"{grant.project} got {grant.seats} seats over a limit"
                return
            if said := breach(rules, grant):
                yield f"{grant.grant_id} was granted, and {said}"
                return
            is_shared = bool(self.policy.projects)
            # One whose work another does holds up none behind it.
            asking = [each for each in waiting.values() if each.work_key not in works]
            back = held_back(rules, asking, holding, is_shared=is_shared)
            if grant.grant_id in back and not is_unclear:
                yield f"{grant.grant_id} was granted, and a limit of each holds it back"
                return
            holding.append(grant)
            able = [
                each
                for each in waiting.values()
                if each.work_key not in works and each.grant_id not in back
            ]
            free = step.after.spec.seats + step.after.spec.overdraft if step.after.spec else 0
            free -= sum(seats for name, seats in held.items() if name.startswith("own of "))
            if said := kept.breach(grant, free):
                yield f"{grant.grant_id} was granted, and {said}"
                return
            first = self._first(able, {**held, **used}, asked)
            passed = set()
            is_behind = False
            while first and first != asked:
                left = free - kept.for_others(first)
                if kept.lets_pass(asked, first, free, is_behind=is_behind):
                    pass
                elif self._may_be_overtaken(first, grant, left, overtaken):
                    passed.add(first.grant_id)
                else:
                    break
                is_behind = True
                able.remove(first)
                first = self._first(able, {**held, **used}, asked)
            kept.take(grant)
            overtaken.update(dict.fromkeys(passed, grant.seats))
            works |= {grant.work_key} - {""}
            del waiting[grant.grant_id]
            if first != asked and not is_unclear:
                name = first.grant_id if first else "none"
                yield f"{grant.grant_id} of {grant.project} was served before {name}"
            self._add(held, grant)

    def _may_be_overtaken(
        self, ticket: Ticket, grant: Grant, free: int, overtaken: Mapping[str, int]
    ) -> bool:
        rule = self.policy.overtaking
        return (
            rule is not None
            and ticket.seats > free
            and overtaken.get(ticket.grant_id, 0) + grant.seats <= rule.seats
            and timedelta(milliseconds=grant.granted_at - ticket.queued_at) < rule.within
        )

    def _first(self, waiting: Sequence[Ticket], held: Held, asked: Ticket) -> Ticket | None:
        if self.policy.projects:
            return self._next("", waiting, held, asked)
        return min(
            waiting,
            key=lambda each: (-each.priority, place_of(each), each != asked),
            default=None,
        )

    def _next(
        self, project: str, waiting: Sequence[Ticket], held: Held, asked: Ticket
    ) -> Ticket | None:
        """The next ticket of a project and its parts; of the pool, for the empty name.

        Where two come at once, the one that is ``asked`` for.
        """
        own = [each for each in waiting if each.project == project]
        found = (
            [min(own, key=lambda each: (-each.priority, place_of(each), each != asked))]
            if own
            else []
        )
        names = {self._path(each.project)[0] for each in waiting} if not project else set()
        names |= {share.project for share in self.policy.projects if share.parent == project}
        ways = [(self._turn("", each, held), each) for each in found]
        firsts = {name: self._next(name, waiting, held, asked) for name in sorted(names)}
        ways += [(self._turn(name, each, held), each) for name, each in firsts.items() if each]
        ways = [(turn, each) for turn, each in ways if not self._is_over(held, project, each)]
        return min(ways, key=lambda way: (way[0], way[1] != asked), default=(None, None))[1]

    def _turn(
        self, name: str, ticket: Ticket, held: Held
    ) -> tuple[bool, Fraction, int | Fraction]:
        """How late a project's next ticket is; of the empty name: what a project asks for itself."""
        below = [each for each in self._path(ticket.project) if name in self._path(each)]
        is_due = any(
            held.get(each, 0) + ticket.seats <= self._guaranteed(each) for each in below if name
        )
        weight = {share.project: share.weight for share in self.policy.projects}.get(name, 1)
        due = self._guaranteed(name) if is_due and self._guaranteed(name) else weight
        seats = held.get(name or f"own of {ticket.project}", 0)
        if is_due and self._guaranteed(name):
            return False, Fraction(2 * seats + 1, 2 * due), place_of(ticket)
        used = held.get(
            f"used by {name}" if name else f"own use of {ticket.project}", Fraction(0)
        )
        return not is_due, (seats + Fraction(1, 2) + 4 * used) / due, place_of(ticket)

    def _used(self, usage: Usage, held: Held) -> dict[str, Fraction]:
        """How many seats each project has held lately, with its parts; rounded, as equals differ.

        One that is not listed: what it holds.
        """
        if self.policy.usage_half_life is None:
            return {}
        rate = math.log(2) / (self.policy.usage_half_life.total_seconds() * 1000)
        listed = {share.project for share in self.policy.projects}
        found = {
            f"{what} {project}": Fraction(seats)
            for project, seats in held.items()
            if project not in listed and not project.startswith("own of ")
            for what in ("own use of", "used by")
        }
        for project, millis in usage.seat_millis.items():
            for key in (
                f"own use of {project}",
                *(f"used by {e}" for e in self._path(project)),
            ):
                found[key] = found.get(key, Fraction(0)) + Fraction(round(millis * rate, 9))
        return found

    def _guaranteed(self, name: str) -> int:
        given = {share.project: share.guaranteed for share in self.policy.projects}
        parts = [share.project for share in self.policy.projects if share.parent == name]
        return max(given.get(name, 0), sum(map(self._guaranteed, parts)))

    def _is_over(self, held: Held, name: str, asked: Ticket) -> bool:
        limits = {share.project: share.limit for share in self.policy.projects}
        limit = limits.get(name)
        return limit is not None and held.get(name, 0) + asked.seats > limit

    def _path(self, project: str) -> list[str]:
        """From the largest project down to this one."""
        parents = {share.project: share.parent for share in self.policy.projects}
        path = [project]
        while parents.get(path[0]):
            path.insert(0, parents[path[0]])
        return path

    def _add(self, held: dict[str, int], grant: Grant) -> None:
        for each in (*self._path(grant.project), f"own of {grant.project}"):
            held[each] = held.get(each, 0) + grant.seats


def _as_ticket(grant: Grant, number: int) -> Ticket:
    """What a request that did not wait asked for."""
    return Ticket(
        grant_id=grant.grant_id,
        session_id=grant.session_id,
        lease_id=grant.lease_id,
        attribution=grant.attribution,
        seats=grant.seats,
        number=number,
        queued_at=grant.asked_at,
    )
