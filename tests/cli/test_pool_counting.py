"""Advisory pools and costs at the command line: set, shown, marked, counted, taken back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import Cluster

from seatkeeper.cli.exits import Exit
from seatkeeper.client import SeatClient, UnknownCostClass

POOL = "counted"


@pytest.fixture
def pool(cluster: Cluster) -> Iterator[str]:
    yield POOL
    cluster.here("pool", "delete", POOL)


def test_an_advisory_pool_says_what_would_have_become_of_each(
    cluster: Cluster, pool: str
) -> None:
    made = (
        cluster.here("pool", "create", pool, "--seats", "1", "--advisory", "--json")
        .check()
        .json
    )
    assert made["advisory"] is True
    with SeatClient(cluster.address) as client:
        with client.seat(pool), client.seat(pool), client.seat(pool, seats=3, wait=0) as third:
            listed = cluster.here("grant", "list", pool).check().out
            assert "WOULD" in listed
            assert "wait (seats)" in listed
            assert "be refused (capacity)" in listed
            grants = cluster.here("grant", "list", pool, "--json").check().json["grants"]
            assert grants[0]["advisory"] is None
            assert grants[1]["advisory"] == {
                "rule": "seats",
                "message": "it wants 1 seat, and 1 of 1 were held",
                "seats_beyond": 1,
                "would": "wait",
            }
            shown = cluster.here("grant", "show", pool, third.grant_id).check().out
            said = "would be refused: 3 seats asked of a pool of 1 (rule `capacity`); 3 seats beyond"
            assert said in re.sub(r"\s+", " ", shown)
        found = cluster.here("pool", "show", pool, "--json").check().json["counted"]
        assert (found["would_have_waited"], found["would_be_refused"]) == (1, 1)
        assert (found["seats_beyond_most"], found["until"]) == (4, None)
    text = cluster.here("pool", "show", pool).check().out
    assert re.search(r"seats +1, advisory", text)
    assert re.search(r"would have waited +1 request", text)
    assert "advisory: true" in cluster.here("pool", "show", pool, "--yaml").check().out
    bound = cluster.here("pool", "update", pool, "--binding", "--json").check().json
    assert "advisory" not in bound


def test_costs_are_set_shown_used_and_taken_back(cluster: Cluster, pool: str) -> None:
    made = cluster.here(
        "pool", "create", pool, "--seats", "9", "--cost", "a100=4,t4=1", "--json"
    )
    assert made.check().json["costs"] == {"a100": 4, "t4": 1}
    assert "costs: {a100: 4, t4: 1}" in cluster.here("pool", "show", pool, "--yaml").check().out
    with SeatClient(cluster.address) as client:
        with client.seat(pool, seats=2, cost_class="a100") as grant:
            assert grant.seats == 8
            shown = cluster.here("grant", "show", pool, grant.grant_id).check().out
            assert "8: 2 as a100, at 4 each" in shown
            (held,) = cluster.here("grant", "list", pool, "--json").check().json["grants"]
            assert (held["cost_class"], held["cost"], held["seats"]) == ("a100", 4, 8)
        with pytest.raises(UnknownCostClass, match="it has: a100, t4"):
            client.acquire(pool, cost_class="h100")
    ran = cluster(
        "run", "--pool", pool, "--as", "a100", "--", "sh", "-c", "echo $SEATKEEPER_SEATS"
    )
    assert ran.check().out == "4\n"
    cluster.here("pool", "update", pool, "--cost", "none").check()
    assert "costs" not in cluster.here("pool", "show", pool, "--json").check().json


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--cost", "a100"), "'a100' is not CLASS=N"),
        (("--cost", "a100=0"), "costs[0].seats: 0 is not from 1"),
        (("--cost", "A1=2"), "'A1' is not a name"),
    ],
)
def test_costs_that_cannot_be_are_refused(
    cluster: Cluster, options: tuple[str, ...], said: str
) -> None:
    failed = cluster.here("pool", "create", "never", "--seats", "1", *options)
    assert failed.code == Exit.USAGE
    assert said in failed.err


def test_simulating_an_advisory_pool_says_what_a_binding_one_would_do(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    cluster.here("pool", "create", pool, "--seats", "1", "--advisory").check()
    trace = tmp_path / "month.csv"
    trace.write_text("arrival,hold,project,seats\n0,60,cv,1\n10,60,cv,1\n")
    found = cluster.here(
        "pool", "simulate", "--like", pool, "--trace", str(trace), "--json"
    ).check()
    (one,) = found.json["simulations"]
    assert one["projects"][0]["wait_max_seconds"] == 0
    bound = cluster.here(
        "pool", "simulate", "--like", pool, "--trace", str(trace), "--json", "--binding"
    ).check()
    (one,) = bound.json["simulations"]
    assert one["projects"][0]["wait_max_seconds"] == 50
