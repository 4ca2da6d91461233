"""What a scrape shows of lots: seats held by lot, what a burst has cost, and an overdraft."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from tests.unit.kit import POOL
from tests.unit.service.test_lots import with_lots
from tests.unit.service.test_pool_service import create
from tests.unit.telemetry.test_metrics import Samples, scraped, services

from seatkeeper.core.lots import Lot, LotKind, Price, PriceUnit
from seatkeeper.server.telemetry.metrics import MetricsObserver

HOURLY = Price("0.80", "EUR", PriceUnit.SEAT_HOUR)


def of_lots(found: Samples) -> dict[str, float]:
    return {
        f"{name.removeprefix('seatkeeper_')} {labels}": value
        for (name, labels), value in found.items()
        if any(part in name for part in ("lot_seats", "burst_cost", "overdraft"))
        and "_created" not in name
    }


async def test_seats_by_lot_the_cost_of_bursts_and_the_overdraft(tmp_path: Path) -> None:
    observer = MetricsObserver()
    async with services(tmp_path, observer) as running:
        now = running.clock.now()
        acme = Lot(name="acme", seats=1, overdraft=1, price=HOURLY)
        burst = Lot(name="rush", seats=1, ends=now + 10**8, kind=LotKind.BURST, price=HOURLY)
        await create(running, with_lots(0, acme, burst))
        who = await running.session(ttl=timedelta(hours=1))
        for number in (1, 2, 3):
            await running.acquire(who, number)
        running.clock.advance(timedelta(minutes=30))
        found = of_lots(scraped(observer))
        assert found.pop(f"burst_cost EUR,rush,{POOL}") == pytest.approx(0.4)
        assert found == {
            f"lot_seats_held base,acme,{POOL}": 1,
            f"lot_seats_held burst,rush,{POOL}": 1,
            f"pool_overdraft_held {POOL}": 1,
            f"overdraft_grants_total {POOL}": 1,
        }


async def test_a_pool_without_lots_has_none_of_these(tmp_path: Path) -> None:
    observer = MetricsObserver()
    async with services(tmp_path, observer) as running:
        await running.pool(1)
        await running.acquire(await running.session(), 1)
        assert of_lots(scraped(observer)) == {}
