"""Data of time zones change, and nodes have different ones: each day's window is written once.

What is written is not moved; what is not yet written follows the data of the node that writes it.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.unit.kit import KEYS, POOL, FakeClock
from tests.zone_data import data_in, write_zone

from seatkeeper.core.pool_rules import Who
from seatkeeper.core.reservations import (
    PoolWindows,
    Reservation,
    Schedule,
    Window,
    WindowState,
)
from seatkeeper.server.domain import PoolPolicy, PoolSpec
from seatkeeper.server.pool.windows import write_due
from seatkeeper.server.store import MemoryStore, Put, records

ZONE = "Europe/Berlin"
SUMMER, WINTER = "Europe/Berlin", "Africa/Lagos"
"""Berlin as it is, and as it would be without summer time: an hour behind that in July."""
HALF_HOUR = timedelta(minutes=30)
MORNING, ALL_DAY = (9 * 60, 9 * 60 + 30), (0, 24 * 60)


def millis(day: int, hour: int, minute: int = 0) -> int:
    """Return a moment of July 2027, in UTC."""
    moment = datetime(2027, 7, 1, hour, minute, tzinfo=UTC) + timedelta(days=day - 1)
    return int(moment.timestamp() * 1000)


class Site:
    """A pool with a reservation, and nodes that have the data of time zones of a folder each."""

    def __init__(self, tmp_path: Path, times: tuple[int, int]) -> None:
        self.clock = FakeClock(millis(1, 0))
        self.store = MemoryStore(now=self.clock.monotonic)
        self.folders = {
            like: write_zone(tmp_path / like, ZONE, like)
            for like in (SUMMER, WINTER, "Africa/Cairo", "America/Halifax", "Asia/Pyongyang")
        }
        when = Schedule("FREQ=DAILY", *times, ZONE)
        self._reservation = Reservation("ci", 2, Who(projects=("ci",)), when)

    async def begin(self, *windows: Window) -> None:
        policy = PoolPolicy(reservations=(self._reservation,))
        made = PoolSpec(POOL, 3, policy=policy, windows=PoolWindows(windows))
        await self.store.commit([Put(KEYS.pool(POOL), records.encode_spec(made))])

    async def at(self, now: int, like: str) -> Window:
        """Have a node with these data write what is due; return what is written then."""
        self.clock.advance(timedelta(milliseconds=now - self.clock.now()))
        with data_in(self.folders[like]):
            await write_due(self.store, KEYS, self.clock, POOL)
        entry = await self.store.get(KEYS.pool(POOL))
        assert entry is not None
        return records.decode_spec(entry.value).windows.by_name["ci"]


async def test_what_is_written_stays_and_the_next_one_follows_the_new_data(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, MORNING)
    await site.begin()
    planned = await site.at(millis(1, 0), SUMMER)
    assert (planned.begins, planned.ends) == (millis(1, 7), millis(1, 7, 30))
    assert await site.at(millis(1, 6), WINTER) == planned
    is_open = await site.at(millis(1, 7), WINTER)
    assert (is_open.begins, is_open.state) == (planned.begins, WindowState.OPEN)
    # By the new data it would be 09:00 on this day only now; it was, and is not opened again.
    following = await site.at(millis(1, 8), WINTER)
    assert (following.begins, following.state) == (millis(2, 8), WindowState.PLANNED)
    # And back: what is planned stays an hour late, and the day after is as before.
    assert await site.at(millis(2, 7), SUMMER) == following
    assert (await site.at(millis(2, 8), SUMMER)).state is WindowState.OPEN
    assert (await site.at(millis(2, 9), SUMMER)).begins == millis(3, 7)


async def test_a_window_that_new_data_have_begin_within_the_one_before_begins_at_its_end(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, ALL_DAY)
    await site.begin()
    first = await site.at(millis(2, 0), WINTER)
    assert (first.begins, first.ends) == (millis(1, 23), millis(2, 23))
    second = await site.at(millis(2, 23), SUMMER)
    assert (second.begins, second.ends) == (first.ends, millis(3, 22))
    assert second.state is WindowState.OPEN
    # The other way round an hour is left out: the day begins later by the new data.
    third = await site.at(millis(3, 22), WINTER)
    assert (third.begins, third.state) == (millis(3, 23), WindowState.PLANNED)


@pytest.mark.parametrize("times", [MORNING, (22 * 60, 30 * 60), ALL_DAY, (0, 30)])
@pytest.mark.parametrize("other", [WINTER, "Africa/Cairo", "America/Halifax", "Asia/Pyongyang"])
async def test_nodes_whose_data_differ_open_one_window_a_day(
    tmp_path: Path, times: tuple[int, int], other: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "seatkeeper.events")
    site = Site(tmp_path, times)
    await site.begin()
    start = millis(1, 0)
    days, last = 7, None
    for half_hour in range(days * 48):
        now = start + half_hour * int(HALF_HOUR.total_seconds() * 1000)
        like = (SUMMER, other)[half_hour // 7 % 2]
        window = await site.at(now, like)
        if last is not None and window.begins != last.begins:
            assert window.begins >= last.ends
        last = window
    opened = [each for each in caplog.records if each.getMessage() == "reservation_opened"]
    begins = [vars(each)["begins_at_millis"] for each in opened]
    assert len(set(begins)) == len(begins)
    assert days - 1 <= len(begins) <= days + 1
