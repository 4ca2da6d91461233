"""What renewals say of grants that go on, and that is written: that they are heeded, or idle."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import timedelta
from typing import Protocol

from seatkeeper.server.domain import Command, Grant, HoldRule, ReportIdle
from seatkeeper.server.pool.catalogue import PoolCatalogue
from seatkeeper.server.pool.confirmed import heed
from seatkeeper.server.pool.forwarder import Forwarded
from seatkeeper.server.pool.subscribers import Listener
from seatkeeper.server.store import Entry, Store


class Submit(Protocol):
    """Has a command decided: see ``PoolRouter``."""

    def __call__(
        self, pool: str, command: Command, listener: Listener, *, may_delay: bool
    ) -> Awaitable[None]:
        """Hand it to the loop of its pool."""
        ...


class GrantNotes:
    """Writes what holders say of their grants, as far as their pools look at it."""

    def __init__(self, store: Store, catalogue: PoolCatalogue, submit: Submit) -> None:
        self._store = store
        self._catalogue = catalogue
        self._submit = submit

    async def heed(self, grant: Grant, entry: Entry, within: timedelta) -> bool:
        """Write that the holder of a grant heeds reclaims from now on. Raises ``StoreError``."""
        return await heed(self._store, grant, entry, within)

    async def note_activity(
        self, pool: str, grant: Grant, idle_for: timedelta, known: timedelta | None
    ) -> None:
        """Have written that a grant is idle, or is not any more, where its pool looks at that.

        ``known``: what is written of it. No answer is waited for: the next renewal says it again.
        """
        rule = self.hold_rule(pool)
        if rule is None or rule.idle is None or grant.heeds_within is None:
            return
        is_idle = idle_for >= rule.idle
        if is_idle is (known is not None):
            return
        said = idle_for if is_idle else None
        command = ReportIdle(grant.grant_id, grant.session_id, grant.fence, said)
        await self._submit(pool, command, Forwarded(), may_delay=True)

    def hold_rule(self, pool: str) -> HoldRule | None:
        """Return how long seats of a pool may be held, as this node knows it."""
        spec, _ = self._catalogue.spec(pool)
        return None if spec is None else spec.policy.hold
