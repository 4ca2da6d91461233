"""`seatkeeper borrow`: a seat that leaves with a machine, as a user has it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from tests.cli.commands import Result
from tests.cli.conftest import Cluster

from seatkeeper.client.admin.borrows import parse_borrow


@pytest.fixture
def pool(cluster: Cluster) -> str:
    """A pool of two seats, of which one may be borrowed."""
    name = cluster.pool(seats=2)
    cluster.client.pools.update(name, borrow=parse_borrow("longest=30d,seats=1"))
    return name


class Machine:
    """A machine with a folder of its own."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        self.folder = folder

    def __call__(self, *arguments: str) -> Result:
        return self._cluster("borrow", *arguments, SEATKEEPER_BORROW_FOLDER=str(self.folder))

    def offline(self, *arguments: str) -> Result:
        """Run a command where no node is."""
        where = {"SEATKEEPER_NODES": "127.0.0.1:1"}
        return self._cluster("borrow", *arguments, "--folder", str(self.folder), **where)


@pytest.fixture
def machine(cluster: Cluster, tmp_path: Path) -> Machine:
    return Machine(cluster, tmp_path / "machine")


def test_a_seat_is_taken_along_verified_offline_and_given_back(
    cluster: Cluster, pool: str, machine: Machine
) -> None:
    taken = machine("take", pool, "--days", "3", "--json").check().json
    assert (taken["pool"], taken["state"], taken["seats"]) == (pool, "borrowed", 1)
    (grant,) = cluster.look(pool).grants
    assert grant.borrowed.until.ToDatetime() - grant.borrowed.borrowed_at.ToDatetime() <= (
        timedelta(days=3)
    )
    assert grant.session_id == ""

    proved = machine.offline("verify", pool, "--json", "--challenge", "x").check().json
    assert proved["valid"]
    assert proved["proof"]
    assert pool in machine.offline("status").check().out

    shown = cluster.here("grant", "show", pool, grant.grant_id).check().out
    assert grant.borrowed.machine in shown
    listed = cluster.here("grant", "list", pool, "--json").check().json["grants"]
    assert listed[0]["borrowed"]["machine"] == grant.borrowed.machine
    assert cluster.here("pool", "show", pool, "--json").check().json["borrowed"] == 1
    assert "borrowed until" in cluster.here("pool", "show", pool).check().out.lower()

    assert "given back" in machine("return", pool).check().out
    assert cluster.look(pool).held == 0
    assert "borrowed here" in machine.offline("verify", pool).refused(66)


def test_what_the_pool_does_not_allow_is_refused_before_a_seat_is_asked_for(
    cluster: Cluster, pool: str, machine: Machine, tmp_path: Path
) -> None:
    fence = cluster.look(pool).fence
    assert "borrow.longest" in machine("take", pool, "--days", "31").refused(75)
    assert "borrow.off" in machine("take", cluster.pool(), "--days", "1").refused(75)
    assert cluster.look(pool).fence == fence, "nothing was granted"
    machine("take", pool, "--for", "12h").check()
    other = Machine(cluster, tmp_path / "other")
    assert "borrow.seats" in other("take", pool, "--days", "1").refused(75)
    assert not (tmp_path / "other").exists()
    assert "gives it back" in machine("take", pool, "--days", "1").refused(2)


def test_a_return_is_written_offline_and_brought_by_another(
    cluster: Cluster, pool: str, machine: Machine, tmp_path: Path
) -> None:
    machine("take", pool, "--days", "3").check()
    back = tmp_path / "back.json"
    machine.offline("return", pool, "--write", str(back)).check()
    assert "returning" in machine.offline("verify", pool).refused(65)
    assert cluster.look(pool).borrowed == 1
    cluster.here("borrow", "return", "--from", str(back)).check()
    assert cluster.look(pool).borrowed == 0
    assert "free already" in cluster.here("borrow", "return", "--from", str(back)).check().out
    assert "free already" in machine("return", pool).check().out
    assert "nothing" in machine.offline("status").check().out


def test_a_return_that_was_changed_is_refused(
    cluster: Cluster, pool: str, machine: Machine, tmp_path: Path
) -> None:
    machine("take", pool, "--days", "3").check()
    back = tmp_path / "back.json"
    machine("return", pool, "--write", str(back)).check()
    said = json.loads(back.read_text())
    back.write_text(json.dumps(said | {"statement": said["statement"][:-4] + "AAAA"}))
    assert "not signed" in cluster.here("borrow", "return", "--from", str(back)).refused(1)
    back.write_text("[]")
    cluster.here("borrow", "return", "--from", str(back)).refused(65)
    assert cluster.look(pool).borrowed == 1


def test_a_folder_that_was_copied_without_its_key_proves_nothing(
    pool: str, machine: Machine
) -> None:
    machine("take", pool, "--days", "3").check()
    (machine.folder / "machine.key").unlink()
    machine.offline("verify", pool).refused(66)
    other = pool + "-other"
    machine("take", other, "--days", "1").refused(66)  # makes no key before there is a seat
    assert not (machine.folder / "machine.key").exists()


def test_an_administrator_who_frees_it_is_warned(
    cluster: Cluster, pool: str, machine: Machine
) -> None:
    machine("take", pool, "--days", "3").check()
    (grant,) = cluster.look(pool).grants
    freed = cluster.here("grant", "release", pool, grant.grant_id, "--now", "--reason", "lost")
    assert "goes on until its day" in freed.check().err
    assert cluster.look(pool).held == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["take", "p"],
        ["take", "p", "--days", "1", "--for", "2h"],
        ["take", "p", "--for", "soon"],
        ["return"],
        ["return", "p", "--from", "x"],
    ],
)
def test_what_cannot_be_meant_is_refused(cluster: Cluster, arguments: list[str]) -> None:
    cluster.here("borrow", *arguments).refused(2)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("longest=30d,longest=3d", "each once"),
        ("seats=3", "no longest"),
        ("longest=30d,seats=x", "no number"),
        ("longest=soon", "no length"),
        ("longest=400d", "2 s to 366 days"),
    ],
)
def test_a_rule_that_cannot_be(cluster: Cluster, pool: str, rule: str, why: str) -> None:
    assert why in cluster.here("pool", "update", pool, "--borrow", rule).refused(2)


def test_a_pool_stops_lending(cluster: Cluster, pool: str, machine: Machine) -> None:
    machine("take", pool, "--days", "3").check()
    cluster.here("pool", "update", pool, "--borrow", "none").check()
    found = cluster.look(pool)
    assert not found.spec.policy.HasField("borrow")
    assert found.borrowed == 1, "what is borrowed stays"
    machine("return", pool).check()
