"""What every service of a node shares: sessions, seats, and the signing of tokens."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from seatkeeper.server.domain import Grant, Instant, Reclaim
from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.pool.confirmed import Confirmed
from seatkeeper.server.pool.router import PoolRouter
from seatkeeper.server.pool.windows import notice_of
from seatkeeper.server.sessions.sessions import Session, Sessions
from seatkeeper.server.store import StoreError
from seatkeeper.server.tokens.signer import TokenSigner
from seatkeeper.server.wire.reclaims import fill_reclaiming
from seatkeeper.server.wire.validate import check_reclaimable, check_tokens_for
from seatkeeper.v1 import seat_pb2, seat_service_pb2

TOKENS_SECONDS = 1.0
"""How long the answer to a renewal may wait for grants to be read, for the tokens in it."""
SIGNED_AT_ONCE = 64


@dataclass(frozen=True)
class Core:
    """The parts of a node that its services use."""

    node_id: str
    sessions: Sessions
    seats: PoolRouter
    signer: TokenSigner
    clock: Clock

    def opened(self, session: Session) -> seat_service_pb2.Opened:
        """Return the answer to an opened or resumed session."""
        opened = seat_service_pb2.Opened(session_id=session.session_id, node_id=self.node_id)
        opened.ttl.FromTimedelta(session.ttl)
        # Many open or resume at one moment, when a node has died: spread out what follows.
        opened.renew_in.FromTimedelta(renew_in(session.ttl) * random.uniform(0.2, 1.0))
        return opened

    def fill_granted(
        self,
        granted: seat_pb2.Granted,
        pool: str,
        grant: Grant,
        session: Session,
        certificate_sha256: bytes | None,
        *,
        with_token: bool,
    ) -> None:
        """Fill in the answer to a granted request; its token lasts as long as the lease is known to."""
        granted.grant_id = grant.grant_id
        granted.pool = pool
        granted.seats = grant.seats
        granted.fence = grant.fence
        granted.holder = grant.attribution.holder
        granted.project = grant.attribution.project
        granted.reclaimable = grant.heeds_within is not None
        if granted.reclaimable and (rule := self.seats.notes.hold_rule(pool)) is not None:
            if rule.longest is not None:
                held = timedelta(milliseconds=grant.granted_at - grant.held_since)
                granted.longest_hold.FromTimedelta(max(rule.longest - held, timedelta(0)))
            if rule.idle is not None:
                granted.idle_limit.FromTimedelta(rule.idle)
        spec, _ = self.seats.catalogue.spec(pool)
        if spec is not None and spec.windows:
            granted.notice = notice_of(spec, self.seats.state(pool), grant)
        if with_token:
            until = session.alive_until
            if grant.heeds_within is not None:
                # It may be called back by now; not before it was held for so long.
                until = min(until, Instant(grant.granted_at + _millis(grant.heeds_within)))
            if until > self.clock.now() or grant.heeds_within is None:
                granted.token = self._token(pool, grant, until, certificate_sha256)
        seconds, millis = divmod(grant.granted_at, 1000)
        granted.granted_at.seconds = seconds
        granted.granted_at.nanos = millis * 1_000_000

    async def renewed(
        self,
        session: Session,
        request: seat_service_pb2.Renew,
        certificate_sha256: bytes | None,
    ) -> seat_service_pb2.Renewed:
        """Renew a session; return the answer. Raises ``SessionLost``, ``Malformed``."""
        check_tokens_for(request)
        check_reclaimable(request)
        ttl = await self.sessions.renew(session)
        return await self.renewal_answer(session, request, ttl, certificate_sha256)

    async def renewal_answer(
        self,
        session: Session,
        request: seat_service_pb2.Renew,
        ttl: timedelta,
        certificate_sha256: bytes | None,
    ) -> seat_service_pb2.Renewed:
        """Return the answer to a renewal that has been made, with the tokens it asks for.

        Tokens are signed from the grants' records as the store has them now, not from this node's view,
        and what is called back is read at the same revision. A store that cannot be read in time costs
        the tokens, and the word on what is held, never the answer.
        """
        renewed = seat_service_pb2.Renewed(sequence=request.sequence)
        renewed.ttl.FromTimedelta(ttl)
        renewed.renew_in.FromTimedelta(renew_in(ttl))
        asked = _by_pool(request)
        with suppress(TimeoutError, StoreError):
            async with asyncio.timeout(TOKENS_SECONDS):
                for pool, grants in asked.items():
                    await self._add_grants(renewed, pool, grants, session, certificate_sha256)
        return renewed

    async def _add_grants(
        self,
        renewed: seat_service_pb2.Renewed,
        pool: str,
        asked: _Asked,
        session: Session,
        certificate_sha256: bytes | None,
    ) -> None:
        found = await self.seats.confirmed(pool, asked.tokens | asked.reclaimable)
        for number, (grant_id, grant) in enumerate(found.grants.items(), start=1):
            if grant.session_id == session.session_id:
                ref = seat_service_pb2.GrantRef(pool=pool, grant_id=grant_id)
                reclaim = found.reclaims.get(grant_id)
                if grant_id in asked.reclaimable:
                    held = renewed.held.add(grant=ref)
                    if reclaim is not None:
                        fill_reclaiming(held.reclaiming, pool, grant_id, reclaim)
                    await self._heeded(grant, session, found)
                    if (idle_for := asked.idle.get(grant_id)) is not None:
                        known = found.holds.idle.get(grant_id)
                        await self.seats.notes.note_activity(pool, grant, idle_for, known)
                if grant_id in asked.tokens:
                    until = _token_ends(session.alive_until, reclaim)
                    token = self._token(pool, grant, until, certificate_sha256)
                    renewed.tokens.add(grant=ref, token=token)
            if number % SIGNED_AT_ONCE == 0:
                await asyncio.sleep(0)  # others want to go on, too

    async def _heeded(self, grant: Grant, session: Session, found: Confirmed) -> None:
        """Begin the notice of a grant that an administrator calls back, as its holder knows of it now.

        Its holder names it among those that may be called back, and so counts on it no longer than it
        was promised. Where this is not written in time, the next renewal tries again.
        """
        if grant.heeds_within is None and grant.grant_id in found.holds.revokes:
            with suppress(StoreError):
                await self.seats.notes.heed(grant, found.entries[grant.grant_id], session.ttl)

    def _token(
        self, pool: str, grant: Grant, expires_at: Instant, certificate_sha256: bytes | None
    ) -> str:
        return self.signer.sign(
            pool,
            grant,
            issued_at=self.clock.now(),
            expires_at=expires_at,
            certificate_sha256=certificate_sha256,
        )


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a renewal asks about the grants of one pool, by id, each once."""

    tokens: dict[str, None] = field(default_factory=dict)
    reclaimable: dict[str, None] = field(default_factory=dict)
    idle: dict[str, timedelta] = field(default_factory=dict)
    """For how long nothing was done with them."""


def _by_pool(request: seat_service_pb2.Renew) -> dict[str, _Asked]:
    found: dict[str, _Asked] = {}
    for ref in request.tokens_for:
        found.setdefault(ref.pool, _Asked()).tokens[ref.grant_id] = None
    for ref in request.reclaimable:
        found.setdefault(ref.pool, _Asked()).reclaimable[ref.grant_id] = None
    for each in request.activity:
        if (of_pool := found.get(each.grant.pool)) is not None:
            of_pool.idle[each.grant.grant_id] = each.idle_for.ToTimedelta()
    return found


def _token_ends(alive_until: Instant, reclaim: Reclaim | None) -> Instant:
    """Return until when a token is good: no longer than the seats can be counted on."""
    if reclaim is None:
        return alive_until
    return Instant(min(alive_until, reclaim.decided_at + _millis(reclaim.within)))


def _millis(time: timedelta) -> int:
    return time // timedelta(milliseconds=1)


def renew_in(ttl: timedelta) -> timedelta:
    """Return when to renew: a third of the ttl, so that two may be lost, or a little earlier."""
    return ttl / 3 * random.uniform(0.8, 1.0)
