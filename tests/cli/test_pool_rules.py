"""``seatkeeper pool`` with rules: who may use a pool, and how much each, from the command line."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.cli.conftest import Cluster
from tests.processes import until

from seatkeeper.cli.exits import Exit
from seatkeeper.client import NotAllowed, SeatClient, TooManySeats, TooManyTickets

RULES = (
    *("--group", "bad:mal*,eve", "--exclude", "group:bad", "--include", "project:cv"),
    *("--include", "holder:*@lab", "--per-holder", "seats=1,tickets=1"),
)


def test_rules_are_set_shown_changed_and_taken_back(cluster: Cluster, pool: str) -> None:
    cluster.here("pool", "update", pool, *RULES).check()
    assert cluster.here("pool", "show", pool, "--json").check().json["rules"] == {
        "groups": {"bad": ["mal*", "eve"]},
        "include": {"projects": ["cv"], "holders": ["*@lab"], "groups": [], "hosts": []},
        "exclude": {"projects": [], "holders": [], "groups": ["bad"], "hosts": []},
        "per_holder": {"seats": 1, "tickets": 1},
        "per_host": {"seats": None, "tickets": None},
        "per_project": {"seats": None, "tickets": None},
    }
    shown = cluster.here("pool", "show", pool).check().out
    for name, text in (
        ("group bad", "mal*, eve"),
        ("include", "project:cv, holder:*@lab"),
        ("exclude", "group:bad"),
        ("per holder", "seats=1,tickets=1"),
    ):
        assert any(name in line and text in line for line in shown.splitlines()), shown
    hosts = ("--per-host", "seats=2", "--exclude", "host:kiosk-*", "--exclude", "group:bad")
    cluster.here("pool", "update", pool, *hosts).check()
    rules = cluster.here("pool", "show", pool, "--json").check().json["rules"]
    assert (rules["per_host"]["seats"], rules["exclude"]["hosts"]) == (2, ["kiosk-*"])
    shown = cluster.here("pool", "show", pool).check().out
    assert "host:kiosk-*" in shown
    cluster.here("pool", "update", pool, "--per-host", "none").check()
    # What is given changes, and nothing else does.
    cluster.here("pool", "update", pool, "--per-holder", "seats=2", "--seats", "3").check()
    rules = cluster.here("pool", "show", pool, "--json").check().json["rules"]
    assert rules["per_holder"] == {"seats": 2, "tickets": None}
    assert rules["include"]["projects"] == ["cv"]
    failed = cluster.here("pool", "update", pool, "--group", "bad:")
    assert (failed.code, "there is no group bad" in failed.err) == (Exit.USAGE, True)
    off = ("--include", "none", "--exclude", "none", "--per-holder", "none", "--group", "bad:")
    cluster.here("pool", "update", pool, *off).check()
    assert "rules" not in cluster.here("pool", "show", pool, "--json").check().json


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--include", "alice"), "'alice' is none of project:NAME, holder:NAME, group:NAME"),
        (("--exclude", "holder:a", "--exclude", "none"), "'none' is none of"),
        (("--exclude", "holder:a*b*"), "exclude.holders[0]: 'a*b*' has more than one `*`"),
        (("--group", "students"), "'students' is no group"),
        (("--per-holder", "seats=1,seats=2"), "seats is given twice"),
        (("--per-holder", "3"), "'3' is neither seats=N nor tickets=N"),
        (("--per-project", "seats=x"), "seats=x is no whole number"),
        (("--per-project", "seats=0"), "per_project.seats: 0 is not from 1"),
        (("--group", "none:"), "the pool has no group none"),
    ],
)
def test_what_cannot_be_is_refused(
    cluster: Cluster, pool: str, options: tuple[str, ...], said: str
) -> None:
    failed = cluster.here("pool", "update", pool, *options)
    assert failed.code == Exit.USAGE
    assert said in failed.err
    assert "rules" not in cluster.here("pool", "show", pool, "--json").check().json


def test_a_program_learns_by_which_rule_it_is_refused(cluster: Cluster, pool: str) -> None:
    cluster.here("pool", "update", pool, *RULES, "--seats", "3").check()
    run = ("run", "--pool", pool, "--project", "cv", "--holder", "eve", "--", "true")
    failed = cluster(*run)
    assert failed.code == Exit.FAILED
    assert "group bad, holder eve is excluded (rule `exclude`)" in failed.err
    with (
        SeatClient(cluster.address, holder="anna", project="cv") as anna,
        SeatClient(cluster.address, holder="bert", project="nlp") as bert,
        SeatClient(cluster.address, holder="carl@lab", project="nlp") as carl,
        ThreadPoolExecutor(1) as threads,
    ):
        with pytest.raises(NotAllowed, match="rule `include`"):
            bert.acquire(pool, wait=5)
        with pytest.raises(TooManySeats, match="rule `per_holder`"):
            anna.acquire(pool, seats=2, wait=5)
        held = anna.acquire(pool, wait=5)
        asked = threads.submit(anna.acquire, pool, wait=60)
        until(lambda: cluster.look(pool).queued, "anna waits for another")
        with pytest.raises(TooManyTickets, match="rule `per_holder`"):
            anna.acquire(pool, wait=5)
        why = cluster.here("queue", "why", pool, cluster.look(pool).tickets[0].grant_id).check()
        assert (
            "holder anna has 1 of the 1 seats that each may hold (rule `per_holder`)" in why.out
        )
        # Two seats are free: another is not kept waiting.
        carl.acquire(pool, wait=5).release()
        held.release()
        asked.result(timeout=20).release()
        # And what waits ends with a rule that does not let it in.
        held = anna.acquire(pool, wait=5)
        asked = threads.submit(anna.acquire, pool, wait=60)
        until(lambda: cluster.look(pool).queued, "anna waits for another")
        cluster.here("pool", "update", pool, "--exclude", "holder:anna").check()
        with pytest.raises(NotAllowed, match="rule `exclude`"):
            asked.result(timeout=20)
        held.raise_if_lost()
        held.release()


def test_a_simulation_goes_by_them(cluster: Cluster, pool: str, tmp_path: Path) -> None:
    cluster.here("pool", "update", pool, "--per-holder", "seats=1", "--seats", "2").check()
    demand = tmp_path / "demand.csv"
    demand.write_text(
        "arrival,hold,project,seats,holder\n0,60,cv,1,a\n1,60,cv,1,a\n2,60,nlp,1,b\n3,9,nlp,1,mal\n"
    )
    command = ("pool", "simulate", "--trace", str(demand), "--like", pool)
    done = cluster.here(*command, "--exclude", "holder:mal", "--json").check().json
    (simulated,) = done["simulations"]
    projects = {each["project"]: each for each in simulated["projects"]}
    assert projects["cv"]["wait_max_seconds"] == 59
    assert projects["nlp"]["wait_max_seconds"] == 0
    assert projects["nlp"]["refused"] == {"NOT_ALLOWED": 1}


def test_pools_from_a_file_have_rules(cluster: Cluster, pool: str, tmp_path: Path) -> None:
    cluster.here("pool", "update", pool, *RULES).check()
    text = cluster.here("pool", "show", pool, "--yaml").check().out
    file = tmp_path / "pools.yaml"
    file.write_text(text)
    planned = cluster.here("pool", "plan", "-f", str(file)).check().out
    assert "0 to create, 0 to change, 0 to delete, 1 unchanged" in planned
    file.write_text(text.replace("seats: 1, tickets: 1", "seats: 2"))
    planned = cluster.here("pool", "plan", "-f", str(file)).check().out
    assert "per_holder.seats: 1 -> 2" in planned
    cluster.here("pool", "apply", "-f", str(file)).check()
    rules = json.loads(cluster.here("pool", "show", pool, "--json").check().out)["rules"]
    assert rules["per_holder"] == {"seats": 2, "tickets": None}
