"""What counts once, and who may borrow, at the command line: set, shown, kept, taken back."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tests.cli.conftest import Cluster

from seatkeeper.cli.exits import Exit
from seatkeeper.client import SeatClient

POOL = "shared"


@pytest.fixture
def pool(cluster: Cluster) -> Iterator[str]:
    yield POOL
    cluster.here("pool", "delete", POOL)


def test_grants_that_count_once_are_shown_with_what_they_have_in_common(
    cluster: Cluster, pool: str
) -> None:
    create = ("pool", "create", pool, "--seats", "1", "--count-once", "holder")
    made = cluster.here(*create, "--count-once", "label:display", "--json").check().json
    assert made["count_once"] == ["holder", "label:display"]
    said = cluster.here("pool", "show", pool).check().out
    assert re.search(r"count once +holder, label:display", said)
    labels = {"display": "ws1:0"}
    with (
        SeatClient(cluster.address, holder="ada") as client,
        client.seat(pool, labels=labels),
        client.seat(pool, labels=labels, wait=0) as second,
    ):
        shown = cluster.here("grant", "show", pool, second.grant_id).check().out
        assert re.search(r"counts once +with all .* holder ada, label:display ws1:0", shown)
        listed = cluster.here("grant", "list", pool, "--json").check().json["grants"]
        assert [each["counts_once"]["holder"] for each in listed] == ["ada", "ada"]
        assert cluster.here("pool", "show", pool, "--json").check().json["held"] == 1
    none = cluster.here("pool", "update", pool, "--count-once", "none", "--json").check().json
    assert "count_once" not in none
    wrong = cluster.here("pool", "update", pool, "--count-once", "user")
    assert wrong.code == Exit.USAGE
    assert "'user' is none of `holder`, `host` and `label:KEY`" in wrong.err


def test_who_may_borrow_is_kept_while_the_rest_of_the_rule_changes(
    cluster: Cluster, pool: str
) -> None:
    cluster.here("pool", "create", pool, "--seats", "2").check()
    early = cluster.here("pool", "update", pool, "--borrow-include", "holder:ada")
    assert early.code == Exit.USAGE
    assert "the pool lends no seats" in early.err
    rule = ("--borrow", "longest=1d,per_project=1", "--borrow-include", "holder:ada")
    cluster.here("pool", "update", pool, *rule, "--borrow-exclude", "host:kiosk").check()
    cluster.here("pool", "update", pool, "--borrow", "longest=2d,per_project=2").check()
    said = cluster.here("pool", "show", pool).check().out
    assert re.search(r"borrow include +holder:ada", said)
    assert re.search(r"borrow exclude +host:kiosk", said)
    shown = cluster.here("pool", "show", pool, "--json").check().json["borrow"]
    assert (shown["per_project"], shown["include"], shown["exclude"]) == (
        *(2, ["holder:ada"], ["host:kiosk"]),
    )
    cluster.here("pool", "update", pool, "--borrow-include", "none").check()
    assert cluster.here("pool", "show", pool, "--json").check().json["borrow"]["include"] == []
