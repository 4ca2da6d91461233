"""What options files say of all seats of a feature: idle times, and how far it may be overdrawn."""

from __future__ import annotations

from dataclasses import dataclass, field

from seatkeeper.client.imports.daemons import Daemons
from seatkeeper.client.imports.dialect import Dialect
from seatkeeper.client.imports.parsed import Became, IdleTime, MostOverdraft, Outcome
from seatkeeper.client.imports.seats import Features, Pool
from seatkeeper.client.imports.shares import of_these_alone
from seatkeeper.core.hold import HOLD_MAX, IDLE_MIN

WARNING_SECONDS = 60
"""How long a holder is warned: these servers warn none."""
APPLIED_MAX = 200_000
"""Most pools that lines may change, in all."""
_IDLE_MAX = int(HOLD_MAX.total_seconds())
_IDLE_MIN = int(IDLE_MIN.total_seconds())
REPORTED = (
    "holders are warned for a minute, and those alone count as idle that report what they do: with "
    "`report_activity()`, or `seatkeeper run --activity`"
)


@dataclass
class Terms:
    """What applies to all seats of one pool."""

    idle_seconds: int | None = None
    """0: seats are never idle; None: nothing is said."""
    idle_of: list[Outcome] = field(default_factory=list)
    overdraft_of: list[Outcome] = field(default_factory=list)
    """The lines that bound its overdraft."""


class TermsOf:
    """Reads such lines, those of one feature before those of all."""

    def __init__(self, dialect: Dialect, features: Features, daemons: Daemons) -> None:
        self.found = {id(pool): Terms() for pool in features.pools.values()}
        self._dialect = dialect
        self._features = features
        self._daemons = daemons
        self._applied = 0

    def add(self, outcome: Outcome, said: IdleTime | MostOverdraft) -> None:
        """Apply a line, and say what became of it."""
        pools = self._pools(outcome, said.feature)
        if not pools:
            return
        self._applied += len(pools)
        if self._applied > APPLIED_MAX:
            reason = (
                f"lines before it have changed {APPLIED_MAX} pools: import fewer files at once"
            )
            outcome.ends_as(Became.UNREADABLE, reason)
            return
        if isinstance(said, MostOverdraft):
            self._bound(outcome, said, pools)
        else:
            self._idle(outcome, said, pools)
        if said.qualifier and outcome.became in (Became.TRANSLATED, Became.PARTLY):
            outcome.partly(of_these_alone(said.qualifier))

    def _pools(self, outcome: Outcome, feature: str) -> list[Pool]:
        """Return the pools that a line is about; none: say of the line why."""
        if feature:
            pools = self._features.named(self._dialect.key(feature))
            if not pools:
                outcome.ends_as(*self._features.absent(self._dialect.key(feature)))
            return pools
        found = self._daemons.pools(outcome.statement.file)
        if found is None:
            reason = (
                "it is of all features of one vendor, and which that is is not known: name this "
                "file VENDOR.opt, or import one vendor's files at once"
            )
            outcome.ends_as(Became.NONE, reason)
        elif not found:
            outcome.ends_as(Became.NONE, "no licence line was read: name its licence file, too")
        return found or []

    def _idle(self, outcome: Outcome, said: IdleTime, pools: list[Pool]) -> None:
        if not said.seconds:
            for pool in pools:
                terms = self.found[id(pool)]
                terms.idle_seconds = terms.idle_seconds or 0
            outcome.ends_as(Became.NOT_NEEDED, "0: no seat is called back for being idle")
            return
        seconds = min(max(said.seconds, _IDLE_MIN), _IDLE_MAX)
        if seconds != said.seconds:
            outcome.partly("it is 90 days here: a pool takes no more")
        did = False
        for pool in pools:
            terms = self.found[id(pool)]
            if terms.idle_seconds is None:
                terms.idle_seconds, did = seconds, True
                terms.idle_of.append(outcome)
        if did:
            outcome.partly(REPORTED)
        else:
            reason = "another line says after what time these seats are idle, and counts"
            outcome.ends_as(Became.NOT_NEEDED, reason)

    def _bound(self, outcome: Outcome, said: MostOverdraft, pools: list[Pool]) -> None:
        did = False
        for pool in pools:
            terms = self.found[id(pool)]
            if not any(source.overdraft for source in pool.sources) or terms.overdraft_of:
                continue
            did = True
            terms.overdraft_of.append(outcome)
            left = said.seats
            for source in pool.sources:
                source.overdraft = min(source.overdraft, left)
                left -= source.overdraft
        if not did:
            reason = "its licences allow no overdraft, or another line bounds it, and counts"
            outcome.ends_as(Became.NOT_NEEDED, reason)
