"""Seats that a window lacks are called back over a socket, so that they are free when it begins."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.unit.kit import NOW, POOL, eventually, uuid7
from tests.unit.service.test_held_grants import holder, is_running
from tests.unit.service.test_pool_service import create, spec
from tests.unit.service.test_reclaims import event, pass_time, renewed
from tests.unit.services import STORE_KEYS, TTL, Services, Who, running_services

from seatkeeper.core.pool_rules import Who as For
from seatkeeper.core.reservation_messages import decode_windows, encode_reservation
from seatkeeper.core.reservations import HEEDED_MILLIS, Reservation, Schedule, WindowState
from seatkeeper.server.pool import lots as pool_lots
from seatkeeper.v1 import pool_service_pb2 as pb

NOTICE = timedelta(seconds=20)
BEGINS = (NOW // 60_000 + 4) % 1440
"""The minute of the day in which it begins, in 220 s: it opens in 140."""
CI = Reservation(
    "ci",
    2,
    For(projects=("ci",)),
    Schedule("FREQ=DAILY", opens=BEGINS, closes=BEGINS + 5),
    notice=NOTICE // timedelta(milliseconds=1),
)


def keeping(*reservations: Reservation) -> pb.PoolSpec:
    wanted = spec(seats=2)
    wanted.policy.reservations.extend(map(encode_reservation, reservations))
    return wanted


@pytest.fixture
async def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Services]:
    monkeypatch.setattr(pool_lots, "LOOK_MAX", 0.02)
    monkeypatch.setattr(pool_lots, "RETRY_SECONDS", 0.02)
    async with running_services(tmp_path) as services:
        services.clock.unix_millis += (NOW - services.clock.unix_millis) % 86_400_000
        yield services


async def is_open(services: Services) -> bool:
    window = decode_windows((await services.look()).spec.windows).by_name["ci"]
    return window.state is WindowState.OPEN


async def live(services: Services, who: Who, seconds: int) -> int:
    """Renew a session for so long; return how many grants it has."""
    held = 0
    for _ in range(0, seconds, 4):
        await pass_time(services, timedelta(seconds=4))
        held = len((await renewed(services, who, 1)).held)
    return held


async def test_seats_are_called_back_with_notice_and_are_free_when_it_begins(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "seatkeeper.events")
    await create(services, keeping(CI))
    entry = await services.store.get(STORE_KEYS.pool(POOL))
    assert entry is not None
    assert pb.PoolSpec.FromString(entry.value).format == 5, "an older node would withdraw it"
    who, stream = await holder(services)
    begins = decode_windows((await services.look()).spec.windows).by_name["ci"].begins
    assert await live(services, who, 132) == 1
    assert not await is_running(services), "not before it opens"
    await live(services, who, 8)
    await eventually(lambda: is_open(services))
    notified = (await event(stream, "reclaiming")).reclaiming
    assert "kept for project ci (reservation ci)" in notified.message
    assert notified.rule == "reservation"
    assert notified.within.ToTimedelta() == NOTICE + TTL
    assert begins - services.clock.now() >= HEEDED_MILLIS + CI.notice - 5_000
    assert await live(services, who, 24) == 1, "within its notice"
    await live(services, who, 12)
    await eventually(lambda: _is_free(services))
    assert services.clock.now() <= begins
    lost = (await event(stream, "lost")).lost
    assert "kept for project ci" in lost.message


async def _is_free(services: Services) -> bool:
    return (await services.look()).held == 0


async def test_without_a_notice_none_is_called_back(services: Services) -> None:
    await create(services, keeping(replace(CI, notice=0)))
    who, _stream = await holder(services)
    assert await live(services, who, 232) == 1
    await eventually(lambda: is_open(services))
    assert not await is_running(services)
    assert (await services.look()).grants[0].grant_id == uuid7(1)
