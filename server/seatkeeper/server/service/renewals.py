"""Renewals of one session's lease, asked for over a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from seatkeeper.server.service.seat_api import Core
from seatkeeper.server.sessions.sessions import Session, SessionError, SessionLost
from seatkeeper.server.store import StoreError
from seatkeeper.v1 import seat_service_pb2

RENEWALS_MAX = 1024
"""Renewals waiting to be answered, from which on no more commands are read."""
RENEW_SECONDS_MAX = 5.0
"""How long a renewal is tried again while the store does not answer."""
RENEW_PAUSE = 0.2


class RenewingStream(Protocol):
    """The stream that receives the outcome of renewals."""

    def on_renewed(self, ttl: timedelta) -> None:
        """Note that the lease has ``ttl`` left now."""

    def answer_renewal(self, answer: seat_service_pb2.Renewed) -> None:
        """Send the answer to a renewal."""

    def lose_session(self) -> None:
        """End the stream: its session has ended."""

    def end(self, failure: Exception) -> None:
        """End the stream with a failure."""

    def wake(self) -> None:
        """Look again whether the stream has anything left to do."""


class Renewals:
    """One renewal of the lease is under way at a time, and answers all that came before it was sent.

    A store that is silent is asked again for `RENEW_SECONDS_MAX`; then the stream ends.
    """

    def __init__(
        self, core: Core, certificate_sha256: bytes | None, stream: RenewingStream
    ) -> None:
        self._core = core
        self._certificate_sha256 = certificate_sha256
        self._stream = stream
        self._waiting: list[seat_service_pb2.Renew] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def are_answered(self) -> bool:
        """Whether everything that was asked for has been answered."""
        return not self._waiting and not self._is_running

    def add(self, session: Session, request: seat_service_pb2.Renew) -> None:
        """Renew ``session``, and answer ``request``."""
        self._waiting.append(request)
        if not self._is_running:
            self._task = asyncio.create_task(self._renew(session))

    async def until_few_wait(self) -> None:
        """Wait while too many renewals wait to be answered."""
        if len(self._waiting) > RENEWALS_MAX and self._task is not None:
            await asyncio.wait({self._task})

    def stop(self) -> Sequence[asyncio.Task[None]]:
        """Stop the renewal that is under way; return its task, for the caller to wait for."""
        if self._task is None:
            return ()
        self._task.cancel()
        return (self._task,)

    @property
    def _is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    async def _renew(self, session: Session) -> None:
        """Answer the renewals that have come, and those that come meanwhile."""
        try:
            while self._waiting:
                answered, ttl = await self._renew_lease(session)
                self._stream.on_renewed(ttl)
                for request in answered:
                    answer = await self._core.renewal_answer(
                        session, request, ttl, self._certificate_sha256
                    )
                    self._stream.answer_renewal(answer)
        except SessionLost:
            self._stream.lose_session()
        except (StoreError, SessionError) as error:
            self._stream.end(error)
        finally:
            # Whether all is answered is asked when this task is done.
            asyncio.get_running_loop().call_soon(self._stream.wake)

    async def _renew_lease(
        self, session: Session
    ) -> tuple[list[seat_service_pb2.Renew], timedelta]:
        """Renew; return the commands that this answers: those that came before it was sent."""
        deadline = self._core.clock.monotonic() + RENEW_SECONDS_MAX
        answered: list[seat_service_pb2.Renew] = []
        while True:
            answered += self._waiting
            self._waiting.clear()
            try:
                return answered, await self._core.sessions.renew(session)
            except StoreError as error:
                if not error.retryable or self._core.clock.monotonic() >= deadline:
                    raise
            await asyncio.sleep(RENEW_PAUSE)
