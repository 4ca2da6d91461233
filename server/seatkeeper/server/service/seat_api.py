"""What every service of a node shares: sessions, seats, and the signing of tokens."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from seatkeeper.server.domain import Grant
from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.pool.router import PoolRouter
from seatkeeper.server.sessions.sessions import Session, Sessions
from seatkeeper.server.store import StoreError
from seatkeeper.server.tokens.signer import TokenSigner
from seatkeeper.server.wire.validate import check_tokens_for
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
        if with_token:
            granted.token = self._token(pool, grant, session, certificate_sha256)
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

        Tokens are signed from the grants' records as the store has them now, not from this node's view.
        A store that cannot be read in time costs the tokens, never the answer.
        """
        renewed = seat_service_pb2.Renewed(sequence=request.sequence)
        renewed.ttl.FromTimedelta(ttl)
        renewed.renew_in.FromTimedelta(renew_in(ttl))
        by_pool: dict[str, dict[str, None]] = {}
        for ref in request.tokens_for:
            by_pool.setdefault(ref.pool, {})[ref.grant_id] = None
        with suppress(TimeoutError, StoreError):
            async with asyncio.timeout(TOKENS_SECONDS):
                for pool, grant_ids in by_pool.items():
                    await self._add_tokens(
                        renewed, pool, grant_ids, session, certificate_sha256
                    )
        return renewed

    async def _add_tokens(
        self,
        renewed: seat_service_pb2.Renewed,
        pool: str,
        grant_ids: Iterable[str],
        session: Session,
        certificate_sha256: bytes | None,
    ) -> None:
        grants = await self.seats.confirmed(pool, grant_ids)
        for number, (grant_id, grant) in enumerate(grants.items(), start=1):
            if grant.session_id == session.session_id:
                ref = seat_service_pb2.GrantRef(pool=pool, grant_id=grant_id)
                token = self._token(pool, grant, session, certificate_sha256)
                renewed.tokens.add(grant=ref, token=token)
            if number % SIGNED_AT_ONCE == 0:
                await asyncio.sleep(0)  # others want to go on, too

    def _token(
        self, pool: str, grant: Grant, session: Session, certificate_sha256: bytes | None
    ) -> str:
        return self.signer.sign(
            pool,
            grant,
            issued_at=self.clock.now(),
            expires_at=session.alive_until,
            certificate_sha256=certificate_sha256,
        )


def renew_in(ttl: timedelta) -> timedelta:
    """Return when to renew: a third of the ttl, so that two may be lost, or a little earlier."""
    return ttl / 3 * random.uniform(0.8, 1.0)
