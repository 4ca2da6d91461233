"""Callers that wait for a session: each gets its credentials, an error, or has waited too long."""

from __future__ import annotations

import pytest

from seatkeeper.client.session.openings import Openings
from seatkeeper.core.errors import ClientClosed, ServiceUnavailable
from seatkeeper.v1 import seat_service_pb2 as pb

SECONDS_MAX = 10.0
CREDENTIALS = pb.SessionCredentials(session_id="s", secret=b"x")


async def test_all_get_the_credentials_but_those_that_gave_up() -> None:
    openings = Openings(SECONDS_MAX)
    waiting = [openings.add(0.0) for _ in range(3)]
    waiting[1].cancel()
    openings.succeed(CREDENTIALS)
    assert [await waiting[0], await waiting[2]] == [CREDENTIALS] * 2
    assert not openings


async def test_a_closed_client_fails_them_all() -> None:
    openings = Openings(SECONDS_MAX)
    waiting = [openings.add(0.0), openings.add(1.0)]
    openings.fail(ClientClosed())
    for future in waiting:
        with pytest.raises(ClientClosed):
            await future
    assert not openings


async def test_only_those_that_have_waited_too_long_are_failed() -> None:
    openings = Openings(SECONDS_MAX)
    old, young = openings.add(0.0), openings.add(5.0)
    assert openings.sweep(SECONDS_MAX - 0.1, ServiceUnavailable)
    assert not old.done()
    assert openings.sweep(SECONDS_MAX, ServiceUnavailable)
    with pytest.raises(ServiceUnavailable):
        await old
    assert not young.done()
    assert len(openings) == 1
    openings.succeed(CREDENTIALS)
    assert not openings.sweep(99.0, ServiceUnavailable), "no caller waits any more"
    await young
