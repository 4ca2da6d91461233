"""``seatkeeper pool simulate``."""

from __future__ import annotations

import copy
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.cli.commands import Result, eventually, in_process, seatkeeper, started
from tests.cli.conftest import Cluster
from tests.cli.test_help import bare

from seatkeeper.cli.exits import Exit
from seatkeeper.cli.processes.simulate_picture import COLUMNS, drawn
from seatkeeper.cli.processes.trace import FAULTS_SHOWN, TraceError, millis_of, read_trace
from seatkeeper.server.domain import PoolSpec
from seatkeeper.server.replay.demand import ARRIVALS_MAX, PROJECTS_MAX, Arrival
from seatkeeper.server.replay.replay import replay

HEAD = "arrival,hold,project,seats"
ROWS = ("0,30m,speech,1", "0,1800,speech,1", "60,0h30m,speech,1", "300,20m,vision,1")
SHARES = ("--project", "vision:guaranteed=1", "--project", "speech:guaranteed=1")
NO_SERVICE = {"SEATKEEPER_NODES": "127.0.0.1:9"}


@pytest.fixture
def demand(tmp_path: Path) -> Path:
    """Three of speech at once, and vision while they hold their seats."""
    path = tmp_path / "demand.csv"
    path.write_text("\n".join((HEAD, *ROWS)))
    return path


def simulate(path: Path, *more: str) -> Result:
    return in_process("pool", "simulate", "--trace", str(path), *more, environ=NO_SERVICE)


def test_waits_and_who_waited_for_whom(demand: Path) -> None:
    shown = simulate(demand, "--seats", "3", *SHARES).check().out
    assert "3, at most 3 held at once" in shown
    assert re.search(r"vision +1 +1 +1 +25 min 0 s", shown)
    assert re.search(r"vision +speech +25 min 0 s", shown)

    found = simulate(demand, "--seats", "3", *SHARES, "--json").check().json
    (one,) = found["simulations"]
    projects = {each["project"]: each for each in one["projects"]}
    assert (found["requests"], one["seats"], one["pool"]) == (4, 3, "simulated")
    assert projects["vision"]["wait_p95_seconds"] == 1500
    assert projects["vision"]["waited_for_seat_seconds"] == {"speech": 1500}
    # Speech holds three: its own, one that is free for all, and vision's.
    assert one["lent_seat_seconds"] == 1740
    assert one["used_seat_seconds"] == 3 * 1800 + 1200


def test_several_numbers_of_seats_are_compared(demand: Path) -> None:
    shown = simulate(demand, "--seats", "2-3,5,3").check().out
    assert [line.split()[0] for line in shown.splitlines()] == ["SEATS", "2", "3", "5"]
    found = simulate(demand, "--seats", "2,4", "--json").check().json
    assert [each["wait_max_seconds"] for each in found["simulations"]] == [1740, 0]


def test_the_fewest_seats_are_found(demand: Path) -> None:
    found = simulate(demand, "--find-seats", "--p95-wait", "1h", "--json").check().json
    assert found["enough"] == {"seats": 2, "p95_wait_seconds": 3600}
    shown = simulate(demand, "--find-seats", "--p95-wait", "0").check().out
    assert shown.startswith("4 seats: the fewest that serve 95 %")
    kept = ("--project", "speech:limit=1")
    why = simulate(demand, "--find-seats", "--p95-wait", "0", *kept).refused(Exit.FAILED)
    assert "has reached its project's limit" in why


def test_a_picture_is_drawn(demand: Path, tmp_path: Path) -> None:
    picture = tmp_path / "picture.svg"
    simulate(demand, "--seats", "3,4", "--picture", str(picture)).check()
    text = picture.read_text()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert "simulated: 4 seats" in text
    simulate(demand, "--seats", "3,4", "--picture", str(picture)).check()
    assert picture.read_text() == text
    why = simulate(demand, "--seats", "3", "--picture", str(demand)).refused(Exit.USAGE)
    assert "--trace" in why
    assert demand.read_text().startswith(HEAD), "it is not written over"


def test_the_area_of_a_project_is_its_seat_time() -> None:
    rows = [f"{at},{37 * at % 500},{project},1" for at in range(0, 900, 7) for project in "ab"]
    arrivals = read_trace("x", "\n".join((HEAD, *rows)).encode())
    outcome = replay(PoolSpec("pool", 40), arrivals)
    areas = []
    for points in re.findall(r'points="([^"]+)"', drawn([outcome])):
        corners = [tuple(map(float, each.split(","))) for each in points.split()]
        pairs = zip(corners, corners[1:] + corners[:1], strict=True)
        areas.append(abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in pairs)) / 2)
    pixels = 800 * 170 / (outcome.seconds * 40)
    held = sorted(each.used * pixels for each in outcome.projects.values())
    assert sorted(areas[:2]) == pytest.approx(held, rel=0.01)
    assert COLUMNS == 400


def test_a_pool_of_the_service_is_tried_and_not_changed(cluster: Cluster, demand: Path) -> None:
    shares = ("--project", "vision:guaranteed=1", "--project", "speech:limit=2")
    cluster.here("pool", "create", "tried", "--seats", "3", *shares).check()
    before = cluster.look("tried")
    run = ("pool", "simulate", "--trace", str(demand), "--like", "tried", "--json")
    (one,) = cluster.here(*run).check().json["simulations"]
    projects = {each["project"]: each for each in one["projects"]}
    assert (one["pool"], one["seats"], projects["speech"]["limit"]) == ("tried", 3, 2)
    assert projects["vision"]["wait_max_seconds"] == 0
    assert projects["speech"]["held_back_seat_seconds"] == 1740
    changed = ("--without-project", "speech", "--project", "vision:weight=2", "--seats", "2")
    (one,) = cluster.here(*run, *changed).check().json["simulations"]
    assert [each["guaranteed"] for each in one["projects"]] == [0, 0]
    assert one["seats"] == 2
    assert cluster.look("tried") == before
    absent = cluster.here(*run[:-2], "absent").refused(Exit.NOT_FOUND)
    assert "absent" in absent
    cluster.here("pool", "delete", "tried").check()


def test_a_pool_as_it_stands_is_gone_on_from(cluster: Cluster, tmp_path: Path) -> None:
    cluster.here("pool", "create", "stands", "--seats", "1").check()
    file = tmp_path / "stands.json"
    folders = {name: tmp_path / name for name in ("anna", "bert", "cora")}
    with ExitStack() as running:
        for number, (name, project) in enumerate(
            (("anna", "cv"), ("bert", "nlp"), ("cora", "cv"))
        ):
            folders[name].mkdir()
            words = ("run", "--pool", "stands", "--holder", name, "--project", project, "--")
            command = started(
                *(*words, "sleep", "60"),
                folder=folders[name],
                SEATKEEPER_NODES=cluster.address,
            )
            running.enter_context(command)

            def is_there(count: int = number) -> bool:
                pool = cluster.look("stands")
                return (pool.held, pool.queued) == (1, count)

            eventually(is_there, f"{name} holds or waits")
        file.write_text(cluster.here("pool", "snapshot", "stands").check().out)
    before = ("pool", "simulate", "--from", str(file))
    (one,) = in_process(*before, "--mean-hold", "1h", "--json").check().json["simulations"]
    assert (one["pool"], one["seats"], one["held_max"]) == ("stands", 1, 1)
    assert [each["holder"] for each in one["queue"]] == ["bert", "cora"]
    after = [each["served_in_seconds"] for each in one["queue"]]
    assert after[0] == pytest.approx(3600, abs=60)
    assert after[1] - after[0] == pytest.approx(3600)
    shown = in_process(*before, "--mean-hold", "1h", "--project", "cv:guaranteed=1").check().out
    assert shown.index("cora") < shown.index("bert"), "as the other specification has it"
    eventually(lambda: cluster.look("stands").held == 0, "the killed commands' seats are free")
    cluster.here("pool", "delete", "stands").check()


DATED_POOLS = """\
version: 1
pools:
  dated:
    seats: 0
    lots:
      acme: {seats: 1, until: 2026-03-02, overdraft: 1}
      next: {seats: 2, from: 2026-03-03, until: 2026-12-31}
    burst:
      when: {p95_wait: 1m, for: 8m}
      seats: 1
      length: 10m
      hours_per_month: 5
      price: 6 EUR/seat-hour
    hold: {longest: 2h, idle: 1h, warning: 1m}
    costs: {large: 2}
  nightly:
    seats: 2
    reservations:
      ci: {seats: 1, for: {projects: [ci]}, when: daily, at: 22:00-06:00, zone: Europe/Berlin}
  counted:
    seats: 1
    advisory: true
"""


@pytest.fixture
def dated_pools(tmp_path: Path) -> Path:
    """Pools with contracts, windows, costs, holds, and one that only counts."""
    path = tmp_path / "pools.yaml"
    path.write_text(DATED_POOLS)
    return path


def tried(trace: Path, file: Path, name: str, *more: str) -> dict[str, Any]:
    words = ("--file", str(file), "--like", name, *more, "--json")
    (one,) = simulate(trace, *words).check().json["simulations"]
    return one  # type: ignore[no-any-return]  # JSON


def test_contracts_and_bursts_are_played_by_their_dates(
    tmp_path: Path, demand: Path, dated_pools: Path
) -> None:
    trace = tmp_path / "dated.csv"
    trace.write_text(
        f"{HEAD},class\n2026-03-02T23:00:00Z,3h,a,1,\n2026-03-02T23:10:00Z,30m,b,1,\n"
        "2026-03-02T23:20:00Z,30m,c,1,\n2026-03-03T08:00:00Z,10m,d,1,large\n"
    )
    one = tried(trace, dated_pools, "dated")
    assert (one["seats"], one["seats_least"], one["seats_most"]) == (1, 1, 2)
    assert one["overdraft_seat_seconds"] == 1800
    assert one["called_back"] == {"longest_hold": 1}
    assert [each["by_rule"] for each in one["bursts"]] == [True]
    assert one["bursts"][0]["until"] is not None
    assert set(one["lots"]) == {"acme", "next", "rule-1"}
    assert one["costs"] == {"large": 2}
    (d,) = (each for each in one["projects"] if each["project"] == "d")
    assert d["used_seat_seconds"] == 1200
    shown = simulate(trace, "--file", str(dated_pools), "--like", "dated").check().out
    for words in ("2 contracts", "overdraft of 1", "1 by the rule, 1.00 EUR", "costs large=2"):
        assert words in shown, words
    assert "idle harvest: a trace does not say" in shown
    fixed = tried(trace, dated_pools, "dated", "--seats", "4")
    assert (fixed["seats_least"], fixed["seats_most"], fixed["lots"]) == (4, 4, {})
    assert not any("contract" in each or "burst" in each for each in fixed["played"])
    moved = tried(demand, dated_pools, "dated", "--begin", "2026-06-01T00:00:00Z")
    assert (moved["seats_least"], set(moved["lots"])) == (2, {"next", "rule-1"})


def test_windows_are_played_and_the_trace_may_be_moved_into_them(
    demand: Path, dated_pools: Path
) -> None:
    by_day = tried(demand, dated_pools, "nightly", "--begin", "2026-07-01T10:00:00Z")
    assert (by_day["windows"], by_day["kept_seat_seconds"]) == ([], 0)
    by_night = tried(demand, dated_pools, "nightly", "--begin", "2026-07-01T19:55:00Z")
    (window,) = by_night["windows"]
    assert (window["name"], window["from"]) == ("ci", "2026-07-01T20:00:00Z")
    assert by_night["kept_seat_seconds"] > 0
    assert by_night["wait_max_seconds"] > by_day["wait_max_seconds"]
    words = ("--file", str(dated_pools), "--like", "nightly", "--begin", "2026-07-01T19:55:00Z")
    assert "ci 1 time opened" in simulate(demand, *words).check().out


def test_an_advisory_pool_is_played_as_it_is_or_as_if_it_bound(
    demand: Path, dated_pools: Path
) -> None:
    one = tried(demand, dated_pools, "counted")
    assert (one["advisory"], one["wait_max_seconds"], one["held_max"]) == (True, 0, 4)
    assert sum(each["requests"] for each in one["marked"]) == 3
    words = ("--file", str(dated_pools), "--like", "counted")
    assert "would have 3 waited by" in simulate(demand, *words).check().out
    binding = tried(demand, dated_pools, "counted", "--binding")
    assert (binding["advisory"], binding["held_max"], binding["marked"]) == (False, 1, [])
    find = (*words, "--find-seats", "--p95-wait", "1h")
    assert "--binding" in simulate(demand, *find).refused(Exit.USAGE)
    assert simulate(demand, *find, "--binding", "--json").check().json["enough"]["seats"] == 2


def test_costs_may_be_tried(demand: Path, tmp_path: Path) -> None:
    trace = tmp_path / "classes.csv"
    trace.write_text(f"{HEAD},class\n0,1h,a,1,a100\n1,1h,b,1,\n")
    shown = simulate(trace, "--seats", "4", "--cost", "a100=4", "--json").check().json
    (one,) = shown["simulations"]
    assert one["wait_max_seconds"] == 3599
    shown = simulate(trace, "--seats", "4", "--cost", "t4=1", "--json").check().json
    assert shown["simulations"][0]["refused"][0]["reason"] == "UNKNOWN_COST_CLASS"


def test_when_a_trace_begins_can_be_said_in_one_way(demand: Path, tmp_path: Path) -> None:
    assert "--begin" in simulate(demand, "--seats", "1", "--begin", "soon").refused(Exit.USAGE)
    file = tmp_path / "taken.json"
    file.write_text(json.dumps(TAKEN))
    both = ("--from", str(file), "--begin", "2026-07-01T10:00:00Z")
    assert "--begin and --from" in simulate(demand, *both).refused(Exit.USAGE)


def test_marks_extensions_and_usage_are_gone_on_from(tmp_path: Path) -> None:
    """Of a burst that goes on one seat is held; a has used much, and b little."""
    taken = copy.deepcopy(TAKEN)
    pool: dict[str, Any] = taken["pool"]  # type: ignore[assignment]  # as it is above
    began = "2026-03-02T08:30:00Z"
    lot = {"name": "burst-1", "seats": 1, "endsAt": "2026-03-02T09:20:00Z", "beganAt": began}
    lot |= {"kind": "LOT_KIND_BURST", "state": "LOT_STATE_IN_FORCE"}
    shares = [{"project": "a"}, {"project": "b"}]
    pool["spec"] |= {"lots": {"lots": [lot], "seats": 1}}
    pool["spec"] |= {"policy": {"projects": shares, "usageHalfLife": "3600s"}}
    pool["grants"][0] |= {"lots": [{"lot": "burst-1", "seats": 1, "beganAt": began}]}
    pool["usageAt"] = "2026-03-02T09:00:00Z"
    pool["projects"] = [{"project": "a", "usedSeatMillis": "7200000"}, {"project": "b"}]
    pool["tickets"] = [
        {"project": name, "holder": name, "seats": 1, "queuedAt": "2026-03-02T08:59:00Z"}
        for name in ("a", "b")
    ]
    pool["queued"] = 2
    file = tmp_path / "taken.json"
    file.write_text(json.dumps(taken))
    words = ("pool", "simulate", "--from", str(file), "--mean-hold", "2h", "--json")
    (one,) = in_process(*words).check().json["simulations"]
    assert one["lots"] == {"burst-1": 6600}
    assert [each["holder"] for each in one["queue"]] == ["a", "b"], "as the snapshot has it"
    first, second = (each["served_in_seconds"] for each in one["queue"])
    assert second < first, "b has used less"


TAKEN = {
    "taken_at": "2026-03-02T09:00:00Z",
    "pool": {
        "spec": {"name": "p", "seats": 2},
        "held": 2,
        "queued": 1,
        "grants": [
            {"project": "a", "holder": "x", "seats": 1, "grantedAt": "2026-03-02T08:50:00Z"},
            {"project": "b", "holder": "y", "seats": 1, "grantedAt": "2026-03-02T08:00:00Z"},
        ],
        "tickets": [
            {"project": "b", "holder": "z", "seats": 2, "queuedAt": "2026-03-02T08:59:00Z"}
        ],
    },
}


def test_holds_are_expected_as_in_the_trace(tmp_path: Path) -> None:
    """x has held for 10 min, and longer holds of a are of 40; none of b is as long as y's."""
    file, trace = tmp_path / "taken.json", tmp_path / "demand.csv"
    file.write_text(json.dumps(TAKEN))
    rows = [f"2026-03-01T09:00:00Z,{hold},1" for hold in ("5m,a", "40m,a", "30m,b")]
    rows.append("2026-03-02T09:10:00Z,20m,b,1")
    trace.write_text("\n".join((HEAD, *rows)))
    words = ("--from", str(file), "--json")
    found = simulate(trace, *words).check().json
    (one,) = found["simulations"]
    assert one["queue"][0]["served_in_seconds"] == 1800
    assert one["queue"][0]["waited_seconds"] == 60
    assert found["requests"] == 2, "that which waited, and the one row after the snapshot"
    trace.write_text(f"{HEAD}\n600,40m,a,1\n")
    found = simulate(trace, *words).check().json
    assert found["requests"] == 2, "seconds are counted from the snapshot"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda taken: taken.pop("pool"), "not what `seatkeeper pool snapshot` writes"),
        (lambda taken: taken.update(taken_at="soon"), "not what"),
        (lambda taken: taken.update(taken_at=7), "not what"),
        (lambda taken: taken.update(taken_at="2026-03-02T09:00:00"), "no time zone"),
        (lambda taken: taken.update(pool=[]), "not what"),
        (lambda taken: taken["pool"].update(held=5), "holders of 2 of 5 seats"),
        (lambda taken: taken["pool"].update(queued=2000), "1 of 2000 waiting"),
        (lambda taken: taken["pool"]["grants"][0].update(seats=0), "seats: 0 is not from 1"),
        (lambda taken: taken["pool"]["spec"].update(format=99), "record format 99"),
    ],
)
def test_a_bad_snapshot_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], why: str
) -> None:
    taken = copy.deepcopy(TAKEN)
    change(taken)
    file = tmp_path / "taken.json"
    file.write_text(json.dumps(taken))
    done = in_process("pool", "simulate", "--from", str(file), "--mean-hold", "1m")
    assert done.code in {Exit.REFUSED, Exit.FAILED}
    assert why in done.refused(done.code)


def test_what_goes_with_a_snapshot(tmp_path: Path, demand: Path) -> None:
    file = tmp_path / "taken.json"
    file.write_text(json.dumps(TAKEN))
    start = ("pool", "simulate", "--from", str(file))
    assert "--mean-hold" in in_process(*start).refused(Exit.USAGE)
    both = (*start, "--like", "p", "--mean-hold", "1m")
    assert "give one of them" in in_process(*both).refused(Exit.USAGE)
    assert "goes with --from" in simulate(demand, "--seats", "1", "--mean-hold", "1m").refused(
        Exit.USAGE
    )
    file.write_bytes(b"\xff[")
    assert "not what" in in_process(*start, "--mean-hold", "1m").refused(Exit.REFUSED)
    file.write_text("[" * 100_000)
    assert "not what" in in_process(*start, "--mean-hold", "1m").refused(Exit.REFUSED)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "--seats"),
        (["--seats", "0x4"], "write numbers such as 8,10,12 or 8-12"),
        (["--seats", "5-3"], "write numbers"),
        (["--seats", ""], "write numbers"),
        (["--seats", "1-1000"], "at most 50 numbers"),
        (["--seats", "900000"], "900000 is not from 0"),
        (["--seats", "2", "--find-seats", "--p95-wait", "1m"], "give one of them"),
        (["--seats", "2", "--p95-wait", "1m"], "go together"),
        (["--find-seats"], "go together"),
        (["--find-seats", "--p95-wait", "soon"], "is no length of time"),
        (["--find-seats", "--p95-wait", "-5"], "is under 0"),
        (["--seats", "1", *SHARES], "guarantees sum to 2, more than the pool has seats: 1"),
        (["--seats", "1", "--project", "a:most=1"], "is none of guaranteed="),
        (["--seats", "1", "--project", "A B:weight=1"], "is not a name"),
        (["--seats", "1", "--usage-half-life", "60"], "lists no projects"),
        (["--seats", "1", "--without-project", "cv"], "lists no project cv"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_option_is_named(demand: Path, words: list[str], why: str) -> None:
    assert why in simulate(demand, *words).refused(Exit.USAGE)


def test_without_the_server_it_says_what_to_install(demand: Path) -> None:
    done = bare("pool", "simulate", "--trace", str(demand), "--seats", "2")
    assert "pip install '.[server]'" in done.refused(Exit.CONFIG)


def test_a_trace_can_be_piped(demand: Path) -> None:
    words = ("pool", "simulate", "--trace", "-", "--seats", "4")
    found = seatkeeper(*words, "--json", stdin=demand.read_text()).check().json
    assert found["requests"] == 4
    assert "standard input:1: no column" in seatkeeper(*words, stdin="a,b\n").refused(65)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty; its first line is arrival,hold,project,seats"),
        ("\n\n", "empty"),
        (HEAD, "no row below its head"),
        ("arrival,hold,project\n1,1,a\n", ":1: no column seats"),
        ("arrival;hold;project;seats\n1;1;a;1\n", ":1: columns are separated by semicolons"),
        ("arrival\thold\tproject\tseats\n", ":1: columns are separated by tabs"),
        (f"{HEAD},prority\n1,1,a,1,2\n", ":1: column 'prority' is none of"),
        (f"{HEAD},hold\n1,1,a,1,2\n", ":1: column hold is there twice"),
        (f"{HEAD}\n1,1,a\n", ":2: 3 cells, and the head has 4"),
        (f"{HEAD}\n1,1,a,1,\n", ":2: 5 cells"),
        (f"{HEAD}\n\n\n-1,1,a,1\n", ":4: arrival: -1 is under 0"),
        (f"{HEAD}\nnan,1,a,1\n", ":2: arrival: 'nan' is neither seconds nor a time"),
        (f"{HEAD}\n1e300,1,a,1\n", ":2: arrival: 1e300 s is over 3660 days"),
        (
            f"{HEAD}\n2026-03-02T09:00:00,1,a,1\n",
            ":2: arrival: 2026-03-02T09:00:00 has no time zone",
        ),
        (f"{HEAD}\n2026-13-02T09:00:00Z,1,a,1\n", ":2: arrival: "),
        (f"{HEAD}\n0001-01-01T00:00:00+12:00,1,a,1\n", ":2: arrival: "),
        (f"{HEAD}\n1,1,a,1\n2026-03-02T09:00:00Z,1,a,1\n", ":3: arrival: seconds and dates"),
        (f"{HEAD}\n1,-3,a,1\n", ":2: hold: -3 is under 0"),
        (f"{HEAD}\n1,inf,a,1\n", ":2: hold: 'inf' is no length of time"),
        (f"{HEAD}\n1,,a,1\n", ":2: hold: '' is no length of time"),
        (f"{HEAD}\n1,367d,a,1\n", ":2: hold: 367d is over 366 days"),
        (f"{HEAD}\n1,1,Big Models,1\n", ":2: project: 'Big Models' is not a name"),
        (f"{HEAD}\n1,1,,1\n", ":2: project: '' is not a name"),
        (f"{HEAD}\n1,1,a,0\n", ":2: seats: 0 is not from 1 to 100000"),
        (f"{HEAD}\n1,1,a,1.5\n", ":2: seats: '1.5' is no whole number"),
        (f"{HEAD}\n1,1,a,٣\n", ":2: seats: '٣' is no whole number"),
        (f"{HEAD},priority\n1,1,a,1,5000\n", ":2: priority: 5000 is not from -1000 to 1000"),
        (f"{HEAD},wait\n1,1,a,1,-1\n", ":2: wait: -1 is under 0"),
        (f"{HEAD},work\n1,1,a,1,no blanks\n", ":2: work: 'no blanks' is not at most 128"),
        (
            f"{HEAD},holder\n1,1,a,1,\x1b[2J\n",
            ":2: holder: has characters that cannot be shown",
        ),
        (f'{HEAD}\n1,1,"a,1\n', ":2: not CSV: "),
        (f"{HEAD}\n0,1,a,1\n2026-03-02T09:00:00Z,1,a,1\n", ":3: arrival: seconds and dates"),
        (
            f"{HEAD}\n1990-01-01T00:00:00Z,1,a,1\n2026-03-02T09:00:00Z,1,a,1\n",
            "days apart; at most 3660",
        ),
    ],
)
def test_a_bad_trace_is_refused_with_its_line(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    line = simulate(path, "--seats", "4").refused(Exit.REFUSED)
    assert f"{path}{why}" in line or (why in line and f"{path}:" in line)


def test_what_is_no_text_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes(f"{HEAD}\n1,1,caf".encode() + b"\xe9,1\n")
    assert f"{path}:2: not UTF-8" in simulate(path, "--seats", "4").refused(Exit.REFUSED)
    path.write_bytes(f"{HEAD}\n".encode("utf-16"))
    assert "not UTF-8" in simulate(path, "--seats", "4").refused(Exit.REFUSED)
    assert "no such file" in simulate(tmp_path / "absent", "--seats", "4").refused(66)
    assert "directory" in simulate(tmp_path, "--seats", "4").refused(Exit.USAGE)


def test_all_that_is_wrong_is_listed_up_to_a_number(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("\n".join((HEAD, *["1,1,a,x"] * (FAULTS_SHOWN + 5))))
    done = simulate(path, "--seats", "4").check(Exit.REFUSED)
    assert len(done.err.splitlines()) == FAULTS_SHOWN + 1
    assert done.err.splitlines()[-1] == "and 5 more faults"
    failed = json.loads(simulate(path, "--seats", "4", "--json").check(Exit.REFUSED).err)
    assert failed["exit_name"] == "REFUSED"


def test_what_spreadsheets_write_is_read() -> None:
    lines = (
        "Seats, Hold ,project,ARRIVAL,#cost,wait,priority,holder,work",
        "2,1.5,a,7,x,,3,anna,w",
        "",
    )
    text = "\ufeff" + "\r\n".join((*lines, '1,"2m",b,2,,0,,,'))
    first, second = read_trace("x", text.encode())
    assert (first.project, first.hold_millis, first.wait_millis) == ("b", 120_000, 0)
    assert second == Arrival(
        at=second.at,
        project="a",
        hold_millis=1500,
        seats=2,
        priority=3,
        holder="anna",
        work_key="w",
    )
    assert second.at - first.at == 5000, "sorted by time"


def test_times_of_any_zone_are_one_time() -> None:
    rows = ("2026-03-02T09:00:00Z,1,a,1", "2026-03-02T10:00:00+01:00,1,b,1")
    first, second = read_trace("x", "\n".join((HEAD, *rows)).encode())
    assert first.at == second.at == 1_772_442_000_000
    assert (first.project, second.project) == ("a", "b"), "those of one time as in the file"


@pytest.mark.parametrize(
    ("text", "millis"),
    [
        ("0", 0),
        ("90", 90_000),
        (".5", 500),
        ("1e2", 100_000),
        ("90s", 90_000),
        ("2d", 172_800_000),
        ("1h30m", 5_400_000),
        ("1d2h3m4s", 93_784_000),
    ],
)
def test_lengths_of_time(text: str, millis: int) -> None:
    assert millis_of(text) == millis


@pytest.mark.parametrize(
    "text", ["", "m", "1h30", "30m1h", "1 h", "1H", "+", "1_000", "1e9999", "9" * 400]
)
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no length of time|is over 366 days"):
        millis_of(text)


def test_the_bounds_of_a_trace() -> None:
    rows = ["1,1,a,1"] * (ARRIVALS_MAX + 1)
    with pytest.raises(TraceError, match=f":{ARRIVALS_MAX + 2}: more than {ARRIVALS_MAX} rows"):
        read_trace("x", "\n".join((HEAD, *rows)).encode())
    rows = [f"1,1,p{n},1" for n in range(PROJECTS_MAX + 1)]
    with pytest.raises(TraceError, match="501 projects; at most 500"):
        read_trace("x", "\n".join((HEAD, *rows)).encode())
    with pytest.raises(TraceError, match="more than 64 MiB"):
        read_trace("x", bytes((64 << 20) + 1))


POOLS = """\
version: 1
pools:
  small: {seats: 2, overtaking: {seats: 3, within: 60}}
  large: {seats: 4}
"""


def test_a_pool_of_a_file_is_tried(demand: Path, tmp_path: Path) -> None:
    file = tmp_path / "pools.yaml"
    file.write_text(POOLS)
    from_file = ("-f", str(file), "--json")
    (found,) = simulate(demand, *from_file, "--like", "small").check().json["simulations"]
    assert (found["pool"], found["seats"]) == ("small", 2)
    assert found["overtaking"] == "seats=3,within=60"
    changed = simulate(
        demand, *from_file, "--like", "small", "--overtaking", "none", "--seats", "9"
    )
    (found,) = changed.check().json["simulations"]
    assert (found["seats"], found["overtaking"]) == (9, None)
    assert "say with --like which" in simulate(demand, "-f", str(file)).refused(Exit.USAGE)
    other = simulate(demand, "-f", str(file), "--like", "other").refused(Exit.NOT_FOUND)
    assert "no pool other in the file" in other
    file.write_text(POOLS.replace("seats: 4", "seats: four"))
    wrong = simulate(demand, "-f", str(file)).check(Exit.REFUSED).err
    assert "pools.yaml:4:18: pools.large.seats: 'four' is not a whole number" in wrong
    both = simulate(demand, "-f", str(file), "--from", str(file)).refused(Exit.USAGE)
    assert "--file and --from" in both


def test_no_input_is_written_over(demand: Path, tmp_path: Path) -> None:
    file = tmp_path / "pools.yaml"
    file.write_text(POOLS)
    over = simulate(demand, "-f", str(file), "--like", "small", "--picture", str(file))
    assert "--file" in over.refused(Exit.USAGE)
    assert file.read_text() == POOLS
    piped = in_process("pool", "simulate", "--trace", "-", "-f", "-", environ=NO_SERVICE)
    assert "not both" in piped.refused(Exit.USAGE)
    soon = simulate(demand, "--seats", "3", "--usage-half-life", "1e-7", *SHARES)
    assert "--usage-half-life 1e-07: from 1 s on" in soon.refused(Exit.USAGE)
