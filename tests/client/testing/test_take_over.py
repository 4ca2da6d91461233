"""A holder takes its own live seats over in another program, of a service in memory."""

from __future__ import annotations

import asyncio

import pytest
from tests.processes import eventually, until

from seatkeeper.client import (
    ClientConfig,
    HoldingState,
    InvalidArgument,
    NotTakenOver,
    SeatLost,
    ServiceTooOld,
)
from seatkeeper.client.admin.stays import parse_stay
from seatkeeper.core.ids import new_id
from seatkeeper.server.wire.validate import check_acquire
from seatkeeper.testing import InMemoryService
from seatkeeper.v1 import seat_pb2


@pytest.mark.parametrize("keeper", ["process", "helper"])
async def test_it_has_them_at_once_and_the_other_has_lost_them(keeper: str) -> None:
    with InMemoryService({"a": 2}) as service:
        config = ClientConfig(keeper=keeper)  # type: ignore[arg-type]  # one of the two
        async with (
            service.async_client(holder="anna") as there,
            service.async_client(holder="anna", config=config) as here,
            service.async_client(holder="bert") as other,
        ):
            grant = await there.acquire("a", seats=2, priority=3, project="nlp")
            waits = asyncio.create_task(other.acquire("a", priority=9))
            await eventually(lambda: service.waiting("a") == 1)
            mine = await here.take_over("a", grant.grant_id, token=True)
            assert (mine.seats, mine.project, mine.fence) == (2, "nlp", grant.fence + 1)
            assert mine.token
            assert mine.grant_id != grant.grant_id
            await eventually(lambda: grant.state is HoldingState.LOST)
            with pytest.raises(SeatLost, match="taken the seats over"):
                grant.raise_if_lost()
            assert (service.held("a"), service.waiting("a")) == (2, 1)
            with pytest.raises(NotTakenOver, match="no live grant"):
                await there.take_over("a", grant.grant_id)
            back = await there.take_over("a", mine.grant_id)
            await eventually(lambda: mine.state is HoldingState.LOST)
            await back.release()
            await (await waits).release()


def test_what_is_another_holders_stays_there() -> None:
    with (
        InMemoryService({"a": 1}) as service,
        service.client(holder="anna") as anna,
        service.client(holder="bert") as bert,
    ):
        grant = anna.acquire("a")
        with pytest.raises(NotTakenOver, match="no live grant"):
            bert.take_over("a", grant.grant_id)
        with pytest.raises(NotTakenOver, match="already"):
            anna.take_over("a", grant.grant_id)
        with pytest.raises(NotTakenOver, match="no live grant"):
            anna.take_over("a", new_id())
        with pytest.raises(InvalidArgument, match="take_over"):
            anna.take_over("a", "the one from before")
        with pytest.raises(InvalidArgument, match="empty"):
            anna.take_over("a", "")
        grant.raise_if_lost()
        assert service.held("a") == 1


def test_it_survives_a_lost_stream_and_is_taken_again_as_it_is_kept() -> None:
    with (
        InMemoryService({"a": 1}) as service,
        service.client(holder="anna") as there,
        service.client(holder="anna") as here,
    ):
        here.pools.update("a", stay=parse_stay("resurrection=60"))
        grant = here.take_over("a", there.acquire("a").grant_id)
        service.go_away()
        service.come_back()
        assert grant.fetch_token(), "its session is there on the new stream"
        service.lose_sessions()
        until(lambda: grant.state is HoldingState.LOST)
        back = here.take_again(grant)
        assert back.fence == grant.fence + 1
        assert service.held("a") == 1


def test_a_node_that_does_not_know_it_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def as_before(request: seat_pb2.Acquire) -> None:
        """Check a request without what it says that is new."""
        known = seat_pb2.Acquire()
        known.CopyFrom(request)
        known.ClearField("take_over")
        check_acquire(known)

    with (
        InMemoryService({"a": 1}) as service,
        service.client(holder="anna") as there,
        service.client(holder="anna") as here,
    ):
        grant = there.acquire("a")
        monkeypatch.setattr("seatkeeper.server.pool.asked.check_acquire", as_before)
        with pytest.raises(ServiceTooOld, match="nothing has changed"):
            here.take_over("a", grant.grant_id)
        grant.raise_if_lost()
