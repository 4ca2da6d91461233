"""Contracts on the command line, and ``seatkeeper burst``."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import Cluster
from tests.processes import until

from seatkeeper.cli.exits import Exit

ACME = "name=acme,seats=3,until=2099-12-31,price=1250.50 EUR/seat-year,owner=ml platform"


def test_a_contract_is_made_shown_changed_and_taken_out(
    cluster: Cluster, tmp_path: Path
) -> None:
    made = cluster.here("pool", "create", "leased", "--lot", ACME, "--json").check().json
    assert (made["seats"], made["seats_without_contract"]) == (3, 0)
    (lot,) = made["lots"]
    assert lot.pop("ends_in_seconds") > 0
    assert lot == {
        "name": "acme",
        "seats": 3,
        "kind": "base",
        "state": "in force",
        "from": None,
        "until": "2100-01-01T00:00:00.000Z",
        "announced_days": None,
        "price": "1250.50 EUR/seat-year",
        "owner": "ml platform",
        "overdraft": 0,
        "by_rule": False,
        "held": 0,
    }
    update = ("pool", "update", "leased", "--seats", "2", "--json")
    assert cluster.here(*update).check().json["seats"] == 5
    shown = cluster.here("pool", "show", "leased").check().out
    assert "2 without a contract, and 1 lot in force" in shown
    assert "2100-01-01 00:00 UTC" in shown
    listed = cluster.here("pool", "list", "--json").check().json["pools"]
    assert [pool["lots"][0]["name"] for pool in listed if pool["name"] == "leased"] == ["acme"]
    cluster.here("pool", "update", "leased", "--description", "both").check()
    demand = tmp_path / "demand.csv"
    demand.write_text("arrival,hold,project,seats\n0,60,cv,1\n")
    file = tmp_path / "pools.yaml"
    file.write_text(cluster.here("pool", "show", "leased", "--yaml").check().out)
    for of in (["--like", "leased"], ["-f", str(file)]):
        tried = (
            cluster.here("pool", "simulate", "--trace", str(demand), *of, "--json").check().json
        )
        assert [each["seats"] for each in tried["simulations"]] == [5]
    gone = (
        cluster.here("pool", "update", "leased", "--without-lot", "acme", "--json").check().json
    )
    assert (gone["seats"], "lots" in gone) == (2, False)
    cluster.here("pool", "delete", "leased").check()


def test_a_pool_is_tried_also_while_its_guarantees_are_more_than_is_in_force(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Nodes serve it then, too: its contract has not begun yet."""
    lot = ("--lot", "name=acme,seats=3,from=2099-01-01")
    cluster.here(
        "pool", "create", "ahead", "--seats", "1", *lot, "--project", "cv:guaranteed=4"
    ).check()
    demand = tmp_path / "demand.csv"
    demand.write_text("arrival,hold,project,seats\n0,60,cv,1\n0,60,cv,1\n")
    file, taken = tmp_path / "pools.yaml", tmp_path / "ahead.json"
    file.write_text(cluster.here("pool", "show", "ahead", "--yaml").check().out)
    taken.write_text(cluster.here("pool", "snapshot", "ahead").check().out)
    for of in (["--like", "ahead"], ["-f", str(file)], ["--from", str(taken)]):
        tried = ("pool", "simulate", "--trace", str(demand), *of, "--json")
        (found,) = cluster.here(*tried).check().json["simulations"]
        assert found["seats"] == 1
        assert cluster.here(*tried, "--seats", "2").check().json["simulations"][0]["seats"] == 2
    more = cluster.here(
        "pool", "simulate", "--trace", str(demand), "--like", "ahead", "--seats", "200000"
    )
    assert "200000 is not from 0" in more.refused(Exit.USAGE)
    cluster.here("pool", "delete", "ahead").check()


@pytest.mark.parametrize(
    ("lot", "why"),
    [
        ("acme", "is none of name="),
        ("seats=3", "has no name"),
        ("name=acme", "is no number from 1 on"),
        ("name=acme,seats=-3", "is no number from 1 on"),
        ("name=acme,seats=0", "0 is not from 1"),
        ("name=acme,seats=3,seats=4", "given twice"),
        ("name=acme,seats=3,until=2026-12-31T18:00", "has no offset"),
        ("name=acme,seats=3,until=soon", "is no date"),
        ("name=acme,seats=3,until=9999-12-31", "leave it out where there is none"),
        ("name=acme,seats=3,from=2026-02-01,until=2026-01-01", "is not after"),
        ("name=acme,seats=3,price=12", "is no price"),
        ("name=acme,seats=3,price=-12 EUR/seat-year", "is not a decimal number"),
        ("name=Acme,seats=3", "is not a name"),
    ],
)
def test_a_lot_that_is_refused(cluster: Cluster, lot: str, why: str) -> None:
    refused = cluster.here("pool", "create", "never", "--seats", "1", "--lot", lot)
    assert why in refused.refused(Exit.USAGE)


def test_a_pool_needs_seats_or_a_lot_and_a_lot_to_take_out_must_be_there(
    cluster: Cluster,
) -> None:
    assert "--lot" in cluster.here("pool", "create", "never").refused(Exit.USAGE)
    name = cluster.pool(seats=1)
    update = cluster.here("pool", "update", name, "--without-lot", "acme")
    assert "has no lot acme" in update.refused(Exit.USAGE)


def test_a_burst_is_started_listed_and_stopped(cluster: Cluster) -> None:
    name = cluster.pool(seats=2)
    start = ("burst", "start", name, "--seats", "3", "--for", "1h30m", "--reason", "late")
    begun = cluster.here(*start, "--price", "0.80 EUR/seat-hour", "--json").check().json
    assert (begun["pool"], begun["seats"], begun["name"]) == (name, 3, "burst-1")
    assert begun["state"] == "in force"
    assert 5_000 < begun["ends_in_seconds"] <= 5_400
    second = cluster.here(*start, "--name", "more").check().out
    assert f"burst more of pool {name}: 3 seats until" in second
    assert "8 seats in force" in second
    assert "has a lot more already" in cluster.here(*start, "--name", "more").refused(
        Exit.USAGE
    )
    listed = cluster.here("burst", "list", name, "--json").check().json["bursts"]
    assert [burst["name"] for burst in listed] == ["burst-1", "more"]
    stop = ("burst", "stop", name, "--reason", "out")
    assert "name one of burst-1, more" in cluster.here(*stop).refused(Exit.USAGE)
    stopped = cluster.here(*stop, "more").check().out
    assert f"burst more of pool {name} stopped: 5 seats in force" in stopped
    assert cluster.here(*stop, "--json").check().json["seats"] == 2
    assert "has no burst now" in cluster.here(*stop).refused(Exit.NOT_FOUND)
    assert "there is no burst" in cluster.here("burst", "list", name).check().out


@pytest.mark.parametrize(
    ("length", "why"),
    [("soon", "no length of time"), ("0s", "is not from 1s"), ("91d", "is not from 1s")],
)
def test_a_burst_of_no_length(cluster: Cluster, length: str, why: str) -> None:
    name = cluster.pool(seats=1)
    start = cluster.here(
        "burst", "start", name, "--seats", "1", "--for", length, "--reason", "x"
    )
    assert why in start.refused(Exit.USAGE)


def test_a_burst_ends_by_itself_and_is_forgotten_when_the_next_begins(cluster: Cluster) -> None:
    name = cluster.pool(seats=1)
    start = ("burst", "start", name, "--seats", "1", "--reason", "late", "--json", "--for")
    cluster.here(*start, "1s").check()
    pool = cluster.client.pools
    until(lambda: pool.get(name).spec.seats == 1)
    (burst,) = cluster.here("burst", "list", name, "--json").check().json["bursts"]
    assert burst["state"] == "ended"
    assert cluster.here(*start, "1h").check().json["name"] == "burst-1"
    (burst,) = cluster.here("burst", "list", name, "--json").check().json["bursts"]
    assert burst["state"] == "in force"
