"""A company's day, small and short, on real nodes of which one dies in each quarter."""

from __future__ import annotations

import argparse
from collections import Counter

import pytest
from bench.company import costs_of, result_of
from bench.company_clients import Beliefs, DayRecord
from bench.company_day import deaths, ideal, working_day
from bench.company_real import Cpu, RealDay, real_day, seats_held
from bench.company_simulated import SimulatedDay
from tests.unit.kit import a_grant

from seatkeeper.oracle.stored import PREFIX
from seatkeeper.server.store import Entry, records
from seatkeeper.server.store.keys import Keys

SPEEDUP = 240.0
UNCONFIRMED = "release: no node has confirmed it"
KEYS = Keys(PREFIX)


async def test_a_small_day_is_served_whole_although_nodes_die(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its sessions outlive what other tests do to the machine meanwhile."""
    monkeypatch.setattr("bench.company_clients.TTL_SECONDS_MIN", 120.0)
    day = working_day(3, transactions=300, hours=1).compressed(SPEEDUP)
    window = 0.3 * day.seconds, 0.6 * day.seconds
    dying = deaths(1, 2, day.seconds, 1.0)
    real = await real_day(day, SPEEDUP, 2, dying, window)
    record = real.record
    late = record.failures.pop(UNCONFIRMED, 0)  # given back, and confirmed after `call_timeout`
    assert not record.failures
    assert (record.done + late, len(record.waits), real.killed) == (300, 300, 4)
    assert (record.beliefs.over, real.over_at_looks, real.over_in_history) == (0, 0, 0)
    assert not real.other_faults
    assert real.looks > 0
    assert real.late_max > 0
    assert real.elsewhere >= 0
    assert record.beliefs.held_max > ideal(day).held_max / 2
    assert record.took >= day.seconds
    counts = [each.transactions for each in real.cpu]
    assert counts == sorted(counts)
    assert [each.nodes for each in real.cpu] == sorted(each.nodes for each in real.cpu)


def test_seats_held_are_those_of_grants() -> None:
    entries = [
        Entry(KEYS.guard("p"), b"", 1),
        *(
            Entry(KEYS.grant(pool, grant.grant_id), records.encode_grant(grant), 1)
            for pool, grant in (("p", a_grant(1)), ("p", a_grant(2)), ("q", a_grant(3)))
        ),
    ]
    assert seats_held(entries) == Counter(p=2, q=1)


def a_real_day(*, waits: list[float], cpu: list[Cpu], over: tuple[int, int, int]) -> RealDay:
    record = DayRecord(Beliefs({"p": 1}), waits, took=90.0)
    record.beliefs.over = over[0]
    return RealDay(record, over_at_looks=over[1], over_in_history=over[2], cpu=cpu)


def test_every_way_to_see_an_over_grant_counts() -> None:
    arguments = argparse.Namespace(nodes=12, hours=1.0, speedup=40.0)
    real = a_real_day(waits=[1.5], cpu=[], over=(1, 2, 4))
    result = result_of(arguments, working_day(1, transactions=200), real, None)
    assert (result["over_grants"], result["speedup"]) == (7, 40.0)
    assert (result["wait_p50"], result["wait_p99"]) == (1500.0, 1500.0)
    assert "wait_p95_over_simulated" not in result


def test_waits_are_compared_with_those_of_the_simulation() -> None:
    arguments = argparse.Namespace(nodes=12, hours=1.0, speedup=40.0)
    real = a_real_day(waits=[1.1], cpu=[], over=(0, 0, 0))
    simulated = SimulatedDay(DayRecord(Beliefs({}), [1.0]), (), 1.0)
    result = result_of(arguments, working_day(1, transactions=200), real, simulated)
    assert result["wait_p95_over_simulated"] == pytest.approx(1.1)
    assert result["simulated_wait_p95"] == 1000.0


def test_the_cost_of_a_transaction_is_that_of_the_window() -> None:
    cpu = [Cpu(0.0, 0.0, 0), Cpu(5.0, 1.0, 100), Cpu(7.0, 2.0, 1100), Cpu(99.0, 99.0, 1101)]
    assert costs_of({3: a_real_day(waits=[], cpu=cpu, over=(0, 0, 0))}) == {
        "cpu_us_per_transaction_3": 2000.0,
        "etcd_cpu_us_per_transaction_3": 1000.0,
    }
