"""A claim on a grant, held for one build."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from datetime import timedelta
from types import TracebackType
from typing import Self

import grpc

from seatkeeper.client import AsyncSeatClient
from seatkeeper.core.errors import (
    AlreadyExists,
    InUse,
    SeatError,
    SeatLost,
    ServiceUnavailable,
    SessionLost,
)
from seatkeeper.core.ids import new_id
from seatkeeper.core.serving.failure import Failure, error_info
from seatkeeper.core.tokens import TokenClaims
from seatkeeper.v1 import build_service_pb2

logger = logging.getLogger(__name__)

LISTEN_AGAIN = 1.0
"""Seconds until a lost connection to all nodes is tried again."""


class Claim:
    """Holds a grant for one build: ``async with``. Entering makes the claim.

    ``lost`` is done once the grant has ended: stop working then. While no node can be reached the
    build goes on: whether the seat still stands is looked up again when it publishes.
    """

    def __init__(
        self,
        client: AsyncSeatClient,
        agent: build_service_pb2.AgentInfo,
        token: str,
        claims: TokenClaims,
    ) -> None:
        self.claim_id = new_id()
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Why the grant ended."""
        self._client = client
        self._agent = agent
        self._token = token
        self._claims = claims
        self._made: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._made_at = 0.0
        self._grant_ended = False
        self._in_doubt = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Make the claim. Raises ``InUse``, ``TokenInvalid``, ``ServiceUnavailable`` or ``Failure``."""
        self._task = asyncio.create_task(self._listen_loop())
        try:
            await self._made
        except asyncio.CancelledError:
            # It may have been made all the same.
            await self._stop()
            await self._give_up()
            raise
        except SeatLost as error:
            await self._stop()
            gone = error_info("FINISHED")
            raise Failure(grpc.StatusCode.FAILED_PRECONDITION, str(error), gone) from error
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the claim up, so that another build may use the grant."""
        await self._stop()
        if not self._grant_ended:
            await self._give_up()

    @property
    def age(self) -> timedelta:
        """Time since it was made."""
        return timedelta(seconds=asyncio.get_running_loop().time() - self._made_at)

    async def _give_up(self) -> None:
        try:
            await self._client.engines.yield_claim(
                pool=self._claims.pool,
                grant_id=self._claims.grant_id,
                claim_id=self.claim_id,
            )
        except SeatError as trouble:
            about = {"claim_id": self.claim_id, "error": str(trouble)}
            logger.warning("claim_release_failed", extra=about)

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _listen_loop(self) -> None:
        while not self.lost.done():
            try:
                # Our own session may have been lost; the seat is the client's, and stands.
                await self._client.engines.register_agent(self._agent)
                await self._listen()
            except SeatLost as error:
                self._grant_ended = True
                self._notify(error)
            except (ServiceUnavailable, SessionLost, AlreadyExists) as error:
                if not self._made.done():
                    self._notify(error)
                    return
                about = {"claim_id": self.claim_id, "error": str(error)}
                logger.warning("claim_watch_failed", extra=about | {"retry_in_s": LISTEN_AGAIN})
                await asyncio.sleep(LISTEN_AGAIN)
            except InUse as error:
                # A stream that broke is opened again as it was. Under a session that was lost
                # meanwhile it finds the agent unknown; once registered again, it may not.
                if not self._made.done() or self._in_doubt:
                    self._notify(error)
                self._in_doubt = True
            except SeatError as error:
                self._notify(error)

    async def _listen(self) -> None:
        stream = self._client.engines.claim(
            self._token, agent_id=self._agent.agent_id, claim_id=self.claim_id
        )
        async with aclosing(stream):
            async for event in stream:
                if event.HasField("made"):
                    self._in_doubt = False
                    if not self._made.done():
                        self._made_at = asyncio.get_running_loop().time()
                        self._made.set_result(None)
                if event.HasField("ended"):
                    raise SeatLost(event.ended.message)

    def _notify(self, error: SeatError) -> None:
        if not self._made.done():
            self._made.set_exception(error)
        if not self.lost.done():
            self.lost.set_result(str(error))
