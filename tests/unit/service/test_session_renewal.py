"""Until when a session is known to live, and with it the tokens that are signed under it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.unit.kit import KEYS, FakeClock
from tests.unit.services import Who, open_of

from seatkeeper.server.domain import Instant
from seatkeeper.server.sessions.sessions import Session, Sessions
from seatkeeper.server.store import MemoryStore

ANNA = Who("018c0000-0000-7000-8000-000000000001", b"a" * 16)
TTL = timedelta(seconds=10)
SLOW = timedelta(seconds=3)


class SlowStore(MemoryStore):
    """Does at once what it is asked about leases, and answers late."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(now=clock.monotonic)
        self._clock = clock

    async def grant_lease(self, lease_id: int, ttl: timedelta) -> timedelta:
        granted = await super().grant_lease(lease_id, ttl)
        self._clock.advance(SLOW)
        return granted

    async def keep_alive(self, lease_id: int) -> timedelta:
        ttl = await super().keep_alive(lease_id)
        self._clock.advance(SLOW)
        return ttl


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def sessions(clock: FakeClock) -> Sessions:
    return Sessions(SlowStore(clock), KEYS, clock, default_ttl=TTL)


def good_for(session: Session, since: Instant) -> timedelta:
    return timedelta(milliseconds=session.alive_until - since)


async def test_an_opening_counts_from_when_the_lease_was_asked_for(
    sessions: Sessions, clock: FakeClock
) -> None:
    """The answer may be slow, and the lease runs on meanwhile."""
    asked_at = clock.now()
    session = await sessions.open(open_of(ANNA))
    assert good_for(session, asked_at) == session.ttl


async def test_a_renewal_counts_from_when_it_was_sent(
    sessions: Sessions, clock: FakeClock
) -> None:
    session = await sessions.open(open_of(ANNA))
    sent_at = clock.now()
    await sessions.renew(session)
    assert good_for(session, sent_at) == session.ttl


async def test_one_that_is_opened_again_counts_from_when_it_was_renewed_for_that(
    sessions: Sessions, clock: FakeClock
) -> None:
    await sessions.open(open_of(ANNA))
    session = await sessions.open(open_of(ANNA))
    assert good_for(session, clock.now()) == session.ttl - SLOW
