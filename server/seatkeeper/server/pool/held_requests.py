"""Grants that go on, as administrators deal with them: called back, or held for longer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from seatkeeper.server.domain import (
    ExtendGrant,
    Grant,
    Noted,
    Reclaim,
    Revoke,
    RevokeGrant,
    WithdrawRevoke,
)
from seatkeeper.server.domain.commands import HoldCommand
from seatkeeper.server.pool.admin import Pools, PoolView
from seatkeeper.server.pool.requests import RequestDiffers, Requests, grant_in
from seatkeeper.server.sessions.sessions import Session

NOT_HEEDED = (
    "its client does not know that seats may be called back, so a notice would not reach it: wait "
    "until it gives them back, or free them at once with `seatkeeper grant release --now`"
)

BORROWED = (
    "a machine has borrowed the seats, and no notice reaches it: wait until it gives them back, or "
    "free them at once with `seatkeeper grant release --now`; the machine goes on until its day"
)


@dataclass(frozen=True, slots=True)
class HeldGrant:
    """A grant as it is held now, and the pool that it was found in."""

    grant: Grant
    view: PoolView

    @property
    def reclaim(self) -> Reclaim | None:
        """The call for its seats, if there is one."""
        return self.view.state.guard.reclaims.running.get(self.grant.grant_id)


class HeldRequests:
    """What administrators say of grants that are held. Raises as ``Requests`` does."""

    def __init__(
        self,
        pools: Pools,
        requests: Requests,
        session: Callable[[str], Awaitable[Session | None]],
    ) -> None:
        """``session`` finds a session by its id, as the store has it; None: it has ended."""
        self._pools = pools
        self._requests = requests
        self._session = session

    async def revoke(
        self, pool: str, grant_id: str, revoke: Revoke, peer: str, *, fence: int = 0
    ) -> HeldGrant:
        """Call a grant back with a notice; return it as it is held now.

        Of what is given as ``heeds_within`` nothing is looked at: that is the holder's session's.
        ``RequestDiffers``: its client does not heed reclaims, or it is called back otherwise.
        """
        view = await self._pools.read(pool)
        grant = grant_in(view, grant_id, fence)
        if grant.borrow is not None:
            raise RequestDiffers(f"grant {grant_id} of pool {pool}: {BORROWED}")
        within = grant.heeds_within
        if within is None:
            session = await self._session(grant.session_id)
            if session is None or not session.heeds_reclaim:
                raise RequestDiffers(f"grant {grant_id} of pool {pool}: {NOT_HEEDED}")
            within = session.ttl
        said = Revoke(revoke.reason, revoke.by, revoke.decided_at, revoke.notice, within)
        command = RevokeGrant(grant_id, grant.session_id, grant.fence, said)
        return await self._said(pool, command, peer)

    async def withdraw(self, pool: str, grant_id: str, peer: str) -> HeldGrant:
        """Take back that a grant is called back by an administrator; return it as it is held now."""
        grant = grant_in(await self._pools.read(pool), grant_id)
        command = WithdrawRevoke(grant_id, grant.session_id, grant.fence)
        return await self._said(pool, command, peer)

    async def extend(
        self,
        pool: str,
        grant_id: str,
        extended: timedelta,
        seen: timedelta,
        peer: str,
        *,
        fence: int = 0,
    ) -> HeldGrant:
        """Let a grant be held for longer than the pool's longest hold; return it as it is held now.

        ``seen``: what was seen of that; where it is something else, ``RequestDiffers`` is raised.
        """
        grant = grant_in(await self._pools.read(pool), grant_id, fence)
        command = ExtendGrant(grant_id, grant.session_id, grant.fence, extended, seen)
        return await self._said(pool, command, peer)

    async def _said(self, pool: str, command: HoldCommand, peer: str) -> HeldGrant:
        outcome = await self._requests.decided(pool, command, peer)
        assert isinstance(outcome, Noted)
        view = await self._pools.read(pool)
        grant = view.state.grants.get(command.grant_id)
        return HeldGrant(
            outcome.grant if grant is None else grant, view
        )  # or it has ended since
