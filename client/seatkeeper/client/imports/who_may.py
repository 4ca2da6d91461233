"""From INCLUDE, EXCLUDE and limits of every user to the rules of pools.

All lines of a pool make one list of who is let in, and one of who is kept out; as with the servers, who
is on both is kept out. A line that becomes no rule is named. Where that leaves a pool without any list
of who is let in, it lets in everybody, and the line says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from seatkeeper.client.imports.borrowing import lends
from seatkeeper.client.imports.daemons import Daemons
from seatkeeper.client.imports.dialect import Dialect
from seatkeeper.client.imports.drafts import Draft, Entry
from seatkeeper.client.imports.groups import DefinedGroup, Groups, not_defined
from seatkeeper.client.imports.holders import Holders, holders_of, hosts_of
from seatkeeper.client.imports.names import name_of
from seatkeeper.client.imports.parsed import Access, Became, Claim, Outcome
from seatkeeper.client.imports.seats import Features, Pool
from seatkeeper.client.imports.shares import of_these_alone
from seatkeeper.core.pool_rule_faults import NAMES_MAX
from seatkeeper.core.validate import SEATS_MAX

APPLIED_MAX = 200_000
"""Most changes of a pool's rules that lines may make, in all."""
REASONS_MAX = 3
_NO_PART = {
    "INTERNET": "an address",
    "INTERNET_GROUP": "an address",
    "DISPLAY": "a display",
}
_ALL_USERS = frozenset({"ALL_USERS", "*"})
_EACH_HOLDER = (
    "it is for each holder, which is user@host unless a request says otherwise: a user of two hosts "
    "has it twice"
)


@dataclass
class Ruled:
    """The rules of a pool, and where they come from."""

    draft: Draft = field(default_factory=Draft)
    per_holder: int | None = None
    limits: list[Outcome] = field(default_factory=list)
    """The lines of ``per_holder``."""


@dataclass
class _Asked:
    """What lines say of a pool."""

    entries: list[Entry] = field(default_factory=list)
    """In the order of the lines."""
    not_let_in: list[Outcome] = field(default_factory=list)
    """Lines that let somebody in, and are lost."""
    per_holder: int | None = None
    limits: list[Outcome] = field(default_factory=list)


def is_of_every_user(claim: Claim) -> bool:
    """Return whether a line limits each user alike."""
    return claim.is_limit and claim.kind == "USER" and claim.who in _ALL_USERS


class WhoMay:
    """Reads the lines of who may use what, and makes the rules of pools of them."""

    def __init__(
        self,
        dialect: Dialect,
        features: Features,
        groups: Groups,
        daemons: Daemons,
        *,
        is_of_borrowing: bool = False,
    ) -> None:
        """``is_of_borrowing``: who may borrow. Members of groups are listed then, as are hosts."""
        self._dialect = dialect
        self._features = features
        self._groups = groups
        self._daemons = daemons
        self._asked = {id(pool): _Asked() for pool in features.pools.values()}
        self._holders: dict[int, Holders] = {}
        self._applied = 0
        self._is_of_borrowing = is_of_borrowing

    def limit(self, outcome: Outcome, claim: Claim) -> None:
        """Read a limit of every user."""
        pools = self._features.named(self._dialect.key(claim.feature))
        if not pools:
            outcome.ends_as(*self._features.absent(self._dialect.key(claim.feature)))
            return
        if not claim.seats:
            outcome.ends_as(Became.NONE, "it lets no user in: give the pool no seats")
            return
        if not self._may_apply(outcome, len(pools)):
            return
        did = False
        for pool in pools:
            asked = self._asked[id(pool)]
            is_less = self._dialect.is_lowest_limit_in_force and claim.seats < (
                asked.per_holder or 0
            )
            if asked.per_holder is None or is_less:
                asked.per_holder = claim.seats
                asked.limits.append(outcome)
                did = True
        if not did:
            reason = "an earlier line limits every user already, and counts"
            outcome.ends_as(Became.NOT_NEEDED, reason)
            return
        qualified = [of_these_alone(claim.qualifier)] if claim.qualifier else []
        for reason in (_EACH_HOLDER, *qualified, *claim.losses):
            outcome.partly(reason)

    def access(self, outcome: Outcome, access: Access) -> None:
        """Read who may use a feature, or may not."""
        pools, absent = self._pools(outcome, access)
        if not pools:
            outcome.ends_as(*absent)
            return
        if not self._may_apply(outcome, len(pools)):
            return
        found = self._entry(outcome, access)
        if not isinstance(found, Entry):
            outcome.ends_as(*found)
            # What is not understood, the server ignores, too.
            if not access.is_exclusion and found[0] is Became.NONE:
                for pool in pools:
                    self._asked[id(pool)].not_let_in.append(outcome)
            return
        if access.qualifier:
            outcome.partly(of_these_alone(access.qualifier))
        for reason in access.losses:
            outcome.partly(reason)
        for pool in pools:
            if not self._is_of_borrowing or lends(pool):
                self._asked[id(pool)].entries.append(found)
        if self._is_of_borrowing and not any(map(lends, pools)):
            reason = f"no licence of it says that its seats may be {self._dialect.borrowed}"
            outcome.ends_as(Became.NOT_NEEDED, reason)

    def _pools(self, outcome: Outcome, access: Access) -> tuple[list[Pool], tuple[Became, str]]:
        """Return the pools that a line is about, and what becomes of it where there are none."""
        if access.feature:
            feature = self._dialect.key(access.feature)
            return self._features.named(feature), self._features.absent(feature)
        pools = self._daemons.pools(outcome.statement.file)
        if pools is None:
            reason = (
                "it is of all features of one vendor, and which that is is not known: name this "
                "file VENDOR.opt, or import one vendor's files at once"
            )
            return [], (Became.NONE, reason)
        return pools, (Became.NONE, "no licence line was read: name its licence file, too")

    def _may_apply(self, outcome: Outcome, pools: int) -> bool:
        self._applied += pools
        if self._applied > APPLIED_MAX:
            reason = (
                f"lines before it have changed {APPLIED_MAX} rules: import fewer files at once"
            )
            outcome.ends_as(Became.UNREADABLE, reason)
        return self._applied <= APPLIED_MAX

    def _entry(self, outcome: Outcome, access: Access) -> Entry | tuple[Became, str]:
        """Return what a line says of each of its pools, or why it says nothing."""
        is_out = access.is_exclusion
        if (what := _NO_PART.get(access.kind)) is not None:
            return Became.NONE, f"{what} is not part of a request"
        if access.kind == "PROJECT":
            if not name_of(access.who):
                return Became.NONE, "no name for a project can be made of it"
            return Entry(outcome, is_out, project=access.who)
        if access.kind in ("GROUP", "HOST_GROUP"):
            group = self._groups.named(outcome.statement.file, access.kind, access.who)
            if group is None:
                return not_defined(access.who)
            holders = self._members(group)
            if not holders.whole:
                why = "; ".join(holders.lost[:REASONS_MAX]) or "it has no members"
                return Became.NONE, f"group {access.who[:60]}: {why}"
            if access.kind == "HOST_GROUP":
                return Entry(outcome, is_out, hosts=holders, listed=group)
            if self._is_of_borrowing:
                return Entry(outcome, is_out, holders=holders, listed=group)
            return Entry(outcome, is_out, holders=holders, group=group)
        if access.kind == "HOST":
            hosts = hosts_of([access.who])
            if not hosts.whole:
                return Became.NONE, "; ".join(hosts.lost)
            return Entry(outcome, is_out, hosts=hosts)
        holders = holders_of(
            [access.who], is_case_sensitive=self._dialect.is_name_case_sensitive
        )
        if not holders.whole:
            return Became.NONE, "; ".join(holders.lost)
        for reason in holders.unclear:
            outcome.partly(reason)
        return Entry(outcome, is_out, holders=holders)

    def _members(self, group: DefinedGroup) -> Holders:
        """Return the members of a group as holders, and say of its lines what is lost."""
        if id(group) in self._holders:
            return self._holders[id(group)]
        for outcome, line in group.lines:
            found = self._holders_in(group, line.members)
            reasons = [*found.lost, *found.unclear]
            for reason in reasons[:REASONS_MAX]:
                outcome.partly(reason)
            if len(reasons) > REASONS_MAX:
                outcome.partly(f"and {len(reasons) - REASONS_MAX} more such members")
        return self._holders.setdefault(id(group), self._holders_in(group, group.members))

    def _holders_in(self, group: DefinedGroup, members: tuple[str, ...]) -> Holders:
        if group.kind == "HOST_GROUP":
            return hosts_of(members)
        is_exact = self._dialect.is_name_case_sensitive
        return holders_of(members, is_case_sensitive=is_exact)

    def made(self) -> dict[int, Ruled]:
        """Return the rules of pools, by the identity of each, and say of lines what became of them."""
        kept: set[int] = set()
        lost: dict[int, Outcome] = {}
        ruled: dict[int, Ruled] = {}
        for at, asked in self._asked.items():
            draft, over = _fitting(asked.entries)
            ruled[at] = Ruled(
                draft,
                None if asked.per_holder is None else min(asked.per_holder, SEATS_MAX),
                asked.limits,
            )
            no_room = {id(each) for each in over}
            for entry in asked.entries:
                if id(entry) not in no_room:
                    kept.add(id(entry.outcome))
                    for group in filter(None, (entry.group, entry.listed)):
                        group.is_in_rules = True
            lost |= {id(each.outcome): each.outcome for each in over}
            asked.not_let_in += [each.outcome for each in over if not each.is_exclusion]
        for each, outcome in lost.items():
            reason = f"a pool has at most {NAMES_MAX} names in its rules, and there are more"
            if each in kept:
                outcome.partly(f"{reason}: some pools go without this line")
            else:
                outcome.ends_as(Became.NONE, reason)
        self._say_what_is_open(ruled)
        return ruled

    def _say_what_is_open(self, ruled: dict[int, Ruled]) -> None:
        """Say of lines that let somebody in, and are lost, where everybody is let in instead."""
        for pool in self._features.pools.values():
            asked = self._asked[id(pool)]
            if not ruled[id(pool)].draft.lets_in_some:
                for outcome in asked.not_let_in:
                    does = "lends to" if self._is_of_borrowing else "lets in"
                    reason = f"pool {pool.feature[:60]} {does} everybody"
                    if len(outcome.reasons) <= REASONS_MAX and reason not in outcome.reasons:
                        outcome.reasons.append(reason)


def _fitting(entries: list[Entry]) -> tuple[Draft, list[Entry]]:
    """Return the rules of a pool, and what has no room in them.

    Where not all has, holders are meant in their usual form only; and where that is still too much, who
    is kept out comes first.
    """
    draft = Draft()
    if all(draft.add(entry) for entry in entries):
        return draft, []
    draft = Draft(is_brief=True)
    in_order = sorted(entries, key=lambda entry: not entry.is_exclusion)
    over = [entry for entry in in_order if not draft.add(entry)]
    no_room = {id(entry) for entry in over}
    for entry in entries:
        holders = entry.holders
        if id(entry) not in no_room and holders and holders.whole != holders.brief:
            entry.outcome.partly(
                f"a pool has at most {NAMES_MAX} names in its rules: it is for holders such as "
                "user@host, not for who says the user's name alone"
            )
    return draft, over
