"""``seatkeeper pool plan`` and ``apply``, and pools written as a file."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest
from tests.cli.commands import SCRIPT, address_of, environment, seatkeeper, serving
from tests.cli.conftest import Cluster

from seatkeeper.cli.exits import Exit
from seatkeeper.client.sync import SeatClient

HEAD = "version: 1\npools:\n"
Write = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A node for this file, so that all of its pools are ours."""
    with serving(tmp_path_factory.mktemp("node")) as node:
        address = address_of(node)
        with SeatClient(address) as client:
            yield Cluster(address, client)


@pytest.fixture
def own(shared: Cluster) -> Cluster:
    """A node without pools."""
    for pool in shared.client.pools.list():
        shared.client.pools.delete(pool.spec.name)
    return shared


def names(cluster: Cluster) -> list[str]:
    return [pool.spec.name for pool in cluster.client.pools.list()]


def test_a_file_is_planned_applied_and_written_back(own: Cluster, write: Write) -> None:
    file = write(
        "pools.yaml",
        HEAD
        + "  p: {seats: 4, description: for CI, projects: {no: {guaranteed: 1}}}\n"
        + "  q: {seats: 1}\n",
    )
    planned = own("pool", "plan", "-f", str(file)).check()
    assert planned.out.splitlines() == [
        "pool p is to be created",
        "  + seats: 4",
        '  + description: "for CI"',
        "  + projects.no: guaranteed 1",
        "pool q is to be created",
        "  + seats: 1",
        "2 to create, 0 to change, 0 to delete, 0 unchanged",
    ]
    assert names(own) == []
    own.here("pool", "plan", "-f", str(file), "--exit-code").check(Exit.DIFFERS)

    applied = own.here("pool", "apply", "-f", str(file), "--reason", "first").check()
    pools = own.client.pools.list()
    assert applied.out == planned.out + f"applied at revision {pools[0].revision}\n"

    back = own.here("pool", "list", "--yaml").check().out
    assert back == (
        'version: 1\npools:\n  p:\n    seats: 4\n    description: "for CI"\n'
        '    projects:\n      "no": {guaranteed: 1}\n  q:\n    seats: 1\n'
    )
    assert own.here("pool", "show", "q", "--yaml").check().out == HEAD + "  q:\n    seats: 1\n"
    for command in (["plan", "--exit-code"], ["apply"]):
        again = own.here("pool", *command, "-f", "-", stdin=back).check()
        assert again.out == "0 to create, 0 to change, 0 to delete, 2 unchanged\n"
    assert own.client.pools.list() == pools


def test_programs_read_the_plan(own: Cluster) -> None:
    made = own.client.pools.create("p", seats=4)
    own.client.pools.create("left", seats=1)
    text = HEAD + "  p: {seats: 5}\n"
    plan = own.here("pool", "plan", "-f", "-", "--json", stdin=text).check().json
    assert plan["changes_anything"] is True
    assert [(each["name"], each["action"]) for each in plan["pools"]] == [
        ("p", "change"),
        ("left", "left"),
    ]
    assert plan["pools"][0]["seen_revision"] == made.revision
    assert plan["pools"][0]["values"] == [{"field": "seats", "before": 4, "after": 5}]
    done = own.here("pool", "apply", "-f", "-", "--json", stdin=text).check().json
    assert done["revision"] == own.look("p").revision
    assert (
        own.here("pool", "apply", "-f", "-", "--json", stdin=text).check().json["revision"]
        is None
    )


def test_pools_that_are_not_in_the_file_go_only_if_that_is_said(own: Cluster) -> None:
    own.client.pools.create("old", seats=1)
    text = HEAD + "  p: {seats: 1}\n"
    done = own.here("pool", "apply", "-f", "-", stdin=text).check()
    assert "not in the file, and left as it is: old" in done.out
    assert names(own) == ["old", "p"]
    with own.client.seat("old", project="cv", wait=5):
        refused = own(
            "pool", "apply", "-f", "-", "--delete-missing", stdin=HEAD + "  q: {seats: 1}"
        )
        refused.check(Exit.FAILED)
        assert "pool old cannot be deleted: it is in use: 1 seat held" in refused.err
        assert names(own) == ["old", "p"]
    own.here("pool", "apply", "-f", "-", "--delete-missing", stdin=text).check()
    assert names(own) == ["p"]


def test_seats_below_what_is_held_are_said(own: Cluster) -> None:
    own.client.pools.create("p", seats=3)
    with own.client.seat("p", seats=3, project="cv", wait=5):
        done = own.here("pool", "apply", "-f", "-", stdin=HEAD + "  p: {seats: 1}\n").check()
        assert "  ! 3 seats held: none is revoked" in done.out
        assert own.look("p").held == 3


def test_a_file_with_faults_is_refused_with_each_place(own: Cluster, write: Write) -> None:
    file = write("pools.yaml", HEAD + "  good: {seats: 1}\n  p: {seats: 3.5, descriptoin: x}\n")
    for command in ("plan", "apply"):
        done = own("pool", command, "-f", str(file)).check(Exit.REFUSED)
        assert done.out == ""
        *faults, last = done.err.splitlines()
        assert [fault[:16] for fault in faults] == ["pools.yaml:4:14:", "pools.yaml:4:19:"]
        assert last == "seatkeeper: pools.yaml has 2 faults; nothing was changed"
    said = own.here("pool", "apply", "-f", str(file), "--json").check(Exit.REFUSED)
    events = [json.loads(line) for line in said.err.splitlines()]
    assert [event["event"] for event in events] == ["fault", "fault", "failed"]
    assert (events[0]["file"], events[0]["line"], events[0]["column"]) == ("pools.yaml", 4, 14)
    assert events[0]["path"] == "pools.p.seats"
    assert names(own) == []


@pytest.mark.parametrize(
    ("file", "code", "why"),
    [
        ("/nonexistent/pools.yaml", Exit.NOT_FOUND, "No such file"),
        ("/", Exit.FAILED, "Is a directory"),
        ("/dev/zero", Exit.REFUSED, "has more than 1048576 bytes"),
        ("/dev/null", Exit.REFUSED, "the file is empty"),
    ],
)
def test_what_is_no_file_of_pools(file: str, code: Exit, why: str, own: Cluster) -> None:
    done = own.here("pool", "apply", "-f", file).check(code)
    assert why in done.err


def test_one_form_of_output_at_a_time(own: Cluster) -> None:
    done = own.here("pool", "list", "--yaml", "--json").check(Exit.USAGE)
    assert "--yaml and --json: give one of them" in done.err
    assert own.here("pool", "list", "--yaml").check().out == "version: 1\npools: {}\n"


def test_a_reason_that_is_too_long_is_refused(own: Cluster) -> None:
    text = HEAD + "  p: {seats: 1}\n"
    done = own.here("pool", "apply", "-f", "-", "--reason", "x" * 501, stdin=text).check(
        Exit.USAGE
    )
    assert "reason: has over 500 characters" in done.err
    assert names(own) == []


def test_what_somebody_else_changed_meanwhile_is_shown(own: Cluster, tmp_path: Path) -> None:
    """The plan is made by a list of pools that is old by the time it is applied."""
    from seatkeeper.cli import pool_plan

    own.client.pools.create("p", seats=1)
    file = tmp_path / "pools.yaml"
    file.write_text(HEAD + "  p: {seats: 3}\n  q: {seats: 1}\n")
    show = pool_plan.show_plan

    def show_late(planned: object) -> None:
        show(planned)  # type: ignore[arg-type]  # whatever it is
        thread = Thread(
            target=lambda: own.client.pools.update("p", seats=2, description="mine")
        )
        thread.start()
        thread.join()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool_plan, "show_plan", show_late)
        done = own.here("pool", "apply", "-f", str(file)).check(Exit.FAILED)
    *shown, last = done.err.splitlines()
    assert shown == ["pool p was changed", "  ~ seats: 1 -> 2", '  + description: "mine"']
    assert "pools changed since they were read, and nothing was applied: p is at" in last
    assert names(own) == ["p"]


def test_a_closed_standard_input_is_no_file_of_pools() -> None:
    command = f"exec {SCRIPT} pool plan -f - <&-"
    done = subprocess.run(
        ["sh", "-c", command], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode in (Exit.USAGE, Exit.REFUSED)
    assert "standard input" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_a_terminal_cannot_show_is_escaped_and_read_back(own: Cluster) -> None:
    made = own.client.pools.create("p", seats=1, description='größer "x" \\ 🎉')
    back = own("pool", "list", "--yaml", LC_ALL="C", PYTHONUTF8="0").check().out
    assert back.isascii()
    own.here("pool", "plan", "-f", "-", "--exit-code", stdin=back).check()
    assert own.look("p").spec == made.spec


def test_a_file_needs_no_node_to_be_refused() -> None:
    done = seatkeeper("pool", "plan", "-f", "-", stdin="x: 1\n").check(Exit.REFUSED)
    assert "the file has no key 'x'" in done.err


def test_what_an_open_window_keeps_is_not_taken_away_unless_forced(
    own: Cluster, write: Write, tmp_path: Path
) -> None:
    always = "ci: {seats: 1, for: {projects: [ci]}, when: daily, at: 00:00-00:00}"
    kept = write("kept.yaml", f"{HEAD}  p: {{seats: 2, reservations: {{{always}}}}}\n")
    own.here("pool", "apply", "-f", str(kept)).check()
    gone = str(write("gone.yaml", f"{HEAD}  p: {{seats: 2}}\n"))
    planned = own.here("pool", "plan", "-f", gone).check()
    assert "! breaks a promise: reservation ci: its window is open until" in planned.out
    refused = own.here("pool", "apply", "-f", gone).check(Exit.FAILED)
    assert "nothing was applied; wait, or give --force" in refused.err
    listed = own.here("pool", "plan", "-f", gone, "--json").check().json
    assert len(listed["pools"][0]["breaks"]) == 1
    (pool,) = own.client.pools.list()
    assert len(pool.spec.policy.reservations) == 1
    edit = ("pool", "edit", "p", "--yes")
    editor = {"EDITOR": f"cp {gone}"}
    assert "--force" in own.here(*edit, **editor).check(Exit.FAILED).err
    own.here(*edit, "--force", **editor).check()
    (pool,) = own.client.pools.list()
    assert not pool.spec.policy.reservations
    own.here("pool", "apply", "-f", str(kept)).check()
    own.here("pool", "apply", "-f", gone, "--force", "--reason", "they agreed").check()
