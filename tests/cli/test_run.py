"""``seatkeeper run``: real programs, real signals, a real terminal, and nodes that die."""

from __future__ import annotations

import json
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.commands import (
    Running,
    address_of,
    eventually,
    in_process,
    is_running,
    seatkeeper,
    serving,
    started,
)
from tests.cli.conftest import Cluster
from tests.cli.terminal import Terminal
from tests.processes import PAUSE

from seatkeeper.cli.exits import Exit
from seatkeeper.core.ids import new_id

TTL_SECONDS = 4.0

# Says when it is ready, counts what it is sent, and ends on TERM.
LISTENER = (
    PAUSE
    + """
import sys
def report(number, frame):
    # Not print: the signal may come while the last line is being printed.
    os.write(1, b"got %s\\n" % signal.Signals(number).name.encode())
    if number == signal.SIGTERM:
        sys.exit(9)
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
    signal.signal(number, report)
print("ready", os.getpid(), flush=True)
while True:
    pause()
"""
)
# Does not end on TERM.
STUBBORN = (
    PAUSE
    + """
signal.signal(signal.SIGTERM, lambda *_: print("no", flush=True))
print("ready", os.getpid(), flush=True)
while True:
    pause()
"""
)


def pid_of(running: Running) -> int:
    """The pid that the program said."""
    running.says("ready ")
    eventually(lambda: running.out.partition("ready ")[2].partition("\n")[1], "a whole line")
    return int(running.out.partition("ready ")[2].split()[0])


def held(cluster: Cluster, pool: str) -> int:
    return cluster.look(pool).held


def test_the_program_finds_its_seat_in_its_environment(cluster: Cluster) -> None:
    pool = cluster.pool(seats=3)
    script = (
        'import json, os; t = open(os.environ["SEATKEEPER_TOKEN_FILE"]).read(); '
        "s = os.stat(os.environ['SEATKEEPER_TOKEN_FILE']); "
        "d = os.stat(os.path.dirname(os.environ['SEATKEEPER_TOKEN_FILE'])); "
        "e = {k: v for k, v in os.environ.items() if k.startswith('SEATKEEPER_')}; "
        "print(json.dumps([e, t, s.st_mode, d.st_mode]))"
    )
    command = ("run", "--pool", pool, "--seats", "2", "--", "python3", "-c", script)
    environ, token, file_mode, folder_mode = cluster(*command).check().json
    assert environ["SEATKEEPER_TOKEN"] == token
    assert (environ["SEATKEEPER_POOL"], environ["SEATKEEPER_SEATS"]) == (pool, "2")
    assert environ["SEATKEEPER_FENCE"] == str(cluster.look(pool).fence)
    assert environ["SEATKEEPER_GRANT_ID"].count("-") == 4
    assert (stat.S_IMODE(file_mode), stat.S_IMODE(folder_mode)) == (0o600, 0o700)
    assert not Path(environ["SEATKEEPER_TOKEN_FILE"]).exists()
    assert held(cluster, pool) == 0


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)],
)
def test_the_exit_code_is_the_programs_own(
    cluster: Cluster, pool: str, script: str, code: int
) -> None:
    assert cluster("run", "--pool", pool, "--", "sh", "-c", script).check(code).err == ""
    assert held(cluster, pool) == 0


def test_input_output_and_arguments_are_left_alone(cluster: Cluster, pool: str) -> None:
    script = 'cat; echo "$@"; echo oops >&2'
    command = ("run", "--pool", pool, "sh", "-c", script, "x", "--pool", "a b", "--help")
    result = cluster(*command, stdin="line\n").check()
    assert (result.out, result.err) == ("line\n--pool a b --help\n", "oops\n")


def test_what_cannot_be_run_costs_no_seat(
    cluster: Cluster, pool: str, write: Callable[[str, str], Path]
) -> None:
    plain = write("plain.txt", "no program\n")
    nonsense = write("nonsense", "no program\0 either\n")
    nonsense.chmod(0o755)
    run = ("run", "--pool", pool, "--")
    assert "not found" in cluster(*run, "no-such-program").refused(Exit.NO_COMMAND)
    assert "not executable" in cluster(*run, str(plain)).refused(Exit.NOT_EXECUTABLE)
    assert cluster.look(pool).fence == 0
    assert "format" in cluster(*run, str(nonsense)).refused(Exit.NOT_EXECUTABLE)
    broken = write("broken", "#!/no/such/interpreter\n")
    broken.chmod(0o755)
    assert "interpreter" in cluster(*run, str(broken)).refused(Exit.NOT_EXECUTABLE)
    assert "empty" in cluster(*run, "").refused(Exit.NO_COMMAND)
    assert cluster.look(pool).fence == 0


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--pool", "absent"], Exit.NOT_FOUND),
        (["--pool", "{pool}", "--seats", "2"], Exit.USAGE),
        (["--pool", "Not A Name"], Exit.USAGE),
        (["--pool", "{pool}", "--project", "Not A Name"], Exit.USAGE),
    ],
    ids=("no pool", "too many", "bad pool", "bad project"),
)
def test_a_request_that_cannot_be_met_runs_nothing(
    cluster: Cluster, pool: str, options: list[str], code: Exit
) -> None:
    given = [option.format(pool=pool) for option in options]
    cluster("run", *given, "--", "echo", "ran").refused(code)


def test_who_waits_too_long_gives_up_and_leaves_the_queue(cluster: Cluster, pool: str) -> None:
    with cluster.client.seat(pool):
        said = cluster("run", "--pool", pool, "--wait", "0", "--", "echo", "ran")
        assert "--wait" in said.refused(Exit.NO_SEAT)
        waited = cluster("run", "--pool", pool, "--wait", "2", "--", "echo", "ran")
        assert f"waiting for a seat of {pool}: place 1" in waited.err
        waited.refused(Exit.NO_SEAT)
        assert cluster.look(pool).queued == 0


def test_a_waiting_request_is_served_and_programs_get_events(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    grant = cluster.client.acquire(pool)
    command = ("run", "--json", "--pool", pool, "--", "echo", "ran")
    with started(*command, folder=tmp_path, SEATKEEPER_NODES=cluster.address) as run:
        run.says('"queued"')
        grant.release()
        result = run.ends().check()
    assert result.out == "ran\n"
    events = [json.loads(line) for line in result.err.splitlines()]
    assert [event["event"] for event in events] == ["queued", "granted", "ended"]
    assert events[0]["position"] == 1
    assert events[1].keys() == {"event", "pool", "grant_id", "fence", "seats"}
    assert events[2]["exit_code"] == 0


def test_a_higher_priority_is_ahead_in_the_queue(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    early, late = (tmp_path / name for name in ("early", "late"))
    for folder in (early, late):
        folder.mkdir()
    command = ("run", "--pool", pool, "--holder")
    with (
        cluster.client.seat(pool),
        started(
            *command, "early", "--", "true", folder=early, SEATKEEPER_NODES=cluster.address
        ) as first,
    ):
        first.says("place 1")
        urgent = ("late", "--priority", "7", "--", "true")
        with started(
            *command, *urgent, folder=late, SEATKEEPER_NODES=cluster.address
        ) as second:
            second.says("place 1")
            tickets = cluster.look(pool).tickets
    assert [(t.holder, t.priority) for t in tickets] == [("late", 7), ("early", 0)]


def test_another_pool_will_do_where_it_is_said(cluster: Cluster, pool: str) -> None:
    other, third = cluster.pool(), cluster.pool()
    program = ("--", "sh", "-c", "echo $SEATKEEPER_POOL")
    options = ("run", "--pool", pool, "--or", other, "--or", f"{third}:3600")
    assert cluster(*options, *program).check().out == f"{pool}\n"
    with cluster.client.seat(pool):
        result = cluster("run", "--json", *options[1:], *program).check()
        assert result.out == f"{other}\n"
        events = [json.loads(line) for line in result.err.splitlines()]
        granted, ended = [each for each in events if each["event"] != "queued"]
        assert (granted["event"], granted["pool"], ended["event"]) == (
            "granted",
            other,
            "ended",
        )
        with cluster.client.seat(other):
            cluster(*options[:-2], "--wait", "1", *program).refused(Exit.NO_SEAT)
            cluster(*options, "--wait", "1", *program).refused(Exit.NO_SEAT)
    assert [cluster.look(each).queued for each in (pool, other, third)] == [0, 0, 0]
    assert "wait over 0 s" in cluster(*options, "--wait", "0", *program).refused(Exit.USAGE)


def test_seats_of_several_pools_are_held_together(cluster: Cluster, pool: str) -> None:
    other = cluster.client.pools.create(f"{pool}-2", seats=3).spec.name
    script = 'cd "$SEATKEEPER_TOKEN_FOLDER"; ls; cmp token "token-$SEATKEEPER_POOL"'
    command = ("run", "--json", "--pool", pool, "--with", f"{other}:2", "--wait", "30", "--")
    result = cluster(*command, "sh", "-c", script).check()
    assert result.out.split() == ["token", f"token-{pool}", f"token-{other}"]
    granted = [json.loads(line) for line in result.err.splitlines()][:2]
    assert [(each["pool"], each["seats"]) for each in granted] == [(pool, 1), (other, 2)]
    assert [cluster.look(each).held for each in (pool, other)] == [0, 0]
    with cluster.client.seat(other, seats=2):
        waits = ("run", "--pool", pool, "--with", f"{other}:2", "--wait", "1", "--", "true")
        said = cluster(*waits)
        assert f"waiting for a seat of {other}: place 1" in said.err
        assert f"in time, of {pool}, {other}" in said.refused(Exit.NO_SEAT)
        assert cluster.look(pool).held == 0


@pytest.mark.parametrize(
    "options",
    [
        *(["--with", "tensorrt"], ["--with", "b", "--with", "b"], ["--with", "b:0"]),
        *(
            ["--with", "b:some"],
            ["--with", "b:"],
            ["--with", ":2"],
            ["--with", "b", "--or", "c"],
        ),
        [option for n in range(8) for option in ("--with", f"b{n}")],
    ],
    ids=str,
)
def test_pools_of_a_gang_that_are_not_well_said_are_refused(options: list[str]) -> None:
    refused = seatkeeper("run", *options, "--", "true").check(Exit.USAGE)
    assert "--with" in refused.err


@pytest.mark.parametrize(
    "others",
    [
        *(["tensorrt"], ["b", "b"], ["b:soon"], ["b:-1"], ["b:90000"], [":3"], ["b:"], [""]),
        *(["b:5", "c:4"], ["b", "c", "d", "e"]),
    ],
    ids=str,
)
def test_other_pools_that_are_not_well_said_are_refused(others: list[str]) -> None:
    options = [option for each in others for option in ("--or", each)]
    refused = seatkeeper("run", *options, "--", "true").check(Exit.USAGE)
    assert "--or" in refused.err


def test_a_seat_is_taken_over_by_another_command(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    holder = ("--holder", "ana")
    program = ("--", "sh", "-c", "echo ready; exec sleep 60")
    there = ("run", "--pool", pool, *holder, "--label", "run=7", *program)
    with started(*there, folder=tmp_path, SEATKEEPER_NODES=cluster.address) as desk:
        desk.says("ready")
        (grant,) = cluster.look(pool).grants
        lab = ("run", "--pool", pool, "--take-over", grant.grant_id)
        program = ("--", "sh", "-c", "echo $SEATKEEPER_FENCE")
        refused = cluster(*lab, "--holder", "bert", *program).refused(Exit.FAILED)
        assert "no live grant" in refused
        taken = cluster(*lab, *holder, *program).check()
        assert taken.out == f"{grant.fence + 1}\n"
        assert desk.ends().code == Exit.SEAT_LOST
    assert "no live grant" in cluster(*lab, *holder, *program).refused(Exit.FAILED)
    assert cluster.look(pool).held == 0


@pytest.mark.parametrize(
    "option",
    [
        ("--seats", "2"),
        ("--priority", "3"),
        ("--label", "a=b"),
        ("--or", "b"),
        ("--as", "gpu"),
        ("--wait", "0"),
        ("--project", "cv"),
    ],
)
def test_what_a_grant_has_already_is_not_said_beside_it(option: tuple[str, str]) -> None:
    refused = seatkeeper("run", "--take-over", new_id(), *option, "--", "true").check(
        Exit.USAGE
    )
    assert f"--take-over and {option[0]}" in refused.err


def test_no_grant_to_take_over_is_not_a_request_for_a_seat(cluster: Cluster, pool: str) -> None:
    """As where a file that should name it is empty."""
    ran = cluster("run", "--pool", pool, "--take-over", "", "--", "echo", "ran")
    assert "grant_id" in ran.refused(Exit.USAGE)
    assert "ran" not in ran.out


@pytest.mark.parametrize("seats", ["", "0", "-1", "x", "9" * 5000])
def test_seats_of_other_pools_that_are_none_are_refused(seats: str) -> None:
    refused = seatkeeper("run", "--with", f"b:{seats}", "--", "true").check(Exit.USAGE)
    assert "NAME or NAME:SEATS" in refused.err


@pytest.mark.parametrize("priority", ["1001", "-1001", "high"])
@pytest.mark.parametrize("command", [("run", "true"), ("build", "model.onnx")], ids=str)
def test_a_priority_out_of_range_is_refused(command: tuple[str, ...], priority: str) -> None:
    name, *rest = command
    refused = seatkeeper(name, "--priority", priority, *rest).check(Exit.USAGE)
    assert "--priority" in refused.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_waiting_leaves_the_queue(
    cluster: Cluster, pool: str, tmp_path: Path, number: signal.Signals
) -> None:
    command = ("run", "--pool", pool, "--", "echo", "ran")
    with (
        cluster.client.seat(pool),
        started(*command, folder=tmp_path, SEATKEEPER_NODES=cluster.address) as run,
    ):
        run.says("place 1")
        run.send(number)
        assert run.ends().check(128 + number).out == ""
        assert cluster.look(pool).queued == 0


def test_signals_are_forwarded_and_the_seat_is_given_back(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    command = ("run", "--pool", pool, "--", "python3", "-c", LISTENER)
    with started(*command, folder=tmp_path, SEATKEEPER_NODES=cluster.address) as run:
        pid_of(run)
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT):
            run.send(number)
            run.says(f"got {number.name}")
        assert held(cluster, pool) == 1
        run.send(signal.SIGTERM)
        result = run.ends().check(9)
    assert result.out.count("got") == 5
    assert held(cluster, pool) == 0


def test_a_shell_that_is_ended_takes_its_command_along(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    script = 'python3 -c "$0"; echo not reached'
    command = ("run", "--pool", pool, "--", "sh", "-c", script, LISTENER)
    with started(*command, folder=tmp_path, SEATKEEPER_NODES=cluster.address) as run:
        inner = pid_of(run)
        run.send(signal.SIGTERM)
        result = run.ends().check(128 + signal.SIGTERM)
    assert "got SIGTERM" in result.out
    assert not is_running(inner)


def test_the_program_dies_with_us(cluster: Cluster, pool: str, tmp_path: Path) -> None:
    command = ("run", "--pool", pool, "--", "python3", "-c", STUBBORN)
    with started(*command, folder=tmp_path, SEATKEEPER_NODES=cluster.address) as run:
        program = pid_of(run)
        run.send(signal.SIGKILL)
        eventually(lambda: not is_running(program), "the program's death")


def test_an_ignored_signal_stays_ignored(cluster: Cluster, pool: str, tmp_path: Path) -> None:
    ask = "import signal; print(signal.getsignal(signal.SIGHUP).name, flush=True)"
    script = "trap '' HUP; exec seatkeeper run --pool $0 -- python3 -c \"$1\""
    with Terminal("-c", script, pool, ask, program="sh", SEATKEEPER_NODES=cluster.address) as t:
        t.shows("SIG_IGN")
        assert t.ends() == 0


def test_the_token_in_the_file_is_renewed(tmp_path: Path) -> None:
    script = 'sleep 0.05; while cmp -s "$0" "$SEATKEEPER_TOKEN_FILE"; do sleep 0.05; done'
    first = tmp_path / "first"
    wrapped = f"printf %s \"$SEATKEEPER_TOKEN\" > {first}; sh -c '{script}' {first}"
    with serving(tmp_path / "node", "--session-ttl", str(TTL_SECONDS)) as node:
        address = address_of(node)
        in_process("pool", "create", "p", "--seats", "1", "--nodes", address).check()
        run = ("run", "--pool", "p", "--nodes", address, "--", "sh", "-c", wrapped)
        seatkeeper(*run).check()


def test_when_the_seat_is_lost_the_program_has_ended_before_another_may_have_it(
    tmp_path: Path,
) -> None:
    """The lease ends no earlier than ttl after its last renewal, which came before the kill."""
    with serving(tmp_path / "node", "--session-ttl", str(TTL_SECONDS)) as node:
        address = address_of(node)
        in_process("pool", "create", "p", "--seats", "1", "--nodes", address).check()
        command = ("run", "--pool", "p", "--nodes", address, "--", "python3", "-c", LISTENER)
        with started(*command, folder=tmp_path) as run:
            program = pid_of(run)
            node.send(signal.SIGKILL)
            killed_at = time.monotonic()
            eventually(lambda: not is_running(program), "the program's end")
            took = time.monotonic() - killed_at
            result = run.ends().check(Exit.SEAT_LOST)
    assert took < TTL_SECONDS
    assert "got SIGTERM" in result.out
    doubt, lost = result.err.splitlines()
    assert "in doubt" in doubt
    assert "lost" in lost


def test_a_command_that_ignores_sigterm_is_killed_with_all_it_started(tmp_path: Path) -> None:
    script = 'setsid python3 -c "$0" & python3 -c "$0"'
    with serving(tmp_path / "node", "--session-ttl", str(TTL_SECONDS)) as node:
        address = address_of(node)
        in_process("pool", "create", "p", "--seats", "1", "--nodes", address).check()
        options = ("--pool", "p", "--nodes", address, "--grace", "0.3", "--json")
        command = ("run", *options, "--", "sh", "-c", script, STUBBORN)
        with started(*command, folder=tmp_path) as run:
            run.says("ready ", times=2)
            programs = [int(line.split()[1]) for line in run.out.splitlines()]
            node.send(signal.SIGKILL)
            result = run.ends().check(Exit.SEAT_LOST)
    assert result.out.count("no") >= 2
    assert not any(is_running(program) for program in programs)
    events = [json.loads(line)["event"] for line in result.err.splitlines()]
    assert events == ["granted", "jeopardy", "lost"]


def test_ctrl_c_reaches_the_program_once(cluster: Cluster, pool: str) -> None:
    command = ("run", "--pool", pool, "--", "python3", "-c", LISTENER)
    with Terminal(*command, SEATKEEPER_NODES=cluster.address) as terminal:
        terminal.shows("ready")
        terminal.type("\x03")
        terminal.shows("got SIGINT")
        # Whatever came with it came before what is sent after it.
        terminal.send(signal.SIGUSR1)
        terminal.shows("got SIGUSR1")
        terminal.send(signal.SIGTERM)
        assert terminal.ends() == 9
        assert terminal.seen.count("got SIGINT") == 1
    assert held(cluster, pool) == 0


def test_job_control_works_as_without_us(cluster: Cluster, pool: str) -> None:
    count = (
        "import time\nfor i in range(10**6):\n print('tick', i, flush=True); time.sleep(0.02)"
    )
    prompt = {"PS1": "$ ", "ENV": "", "SEATKEEPER_NODES": cluster.address}
    with Terminal("-i", program="sh", **prompt) as shell:
        shell.shows("$ ")
        shell.type(f'seatkeeper run --pool {pool} -- python3 -c "{count!s}" | cat\n')
        shell.shows("tick 5")
        shell.type("\x1a")
        shell.shows("Stopped")
        assert held(cluster, pool) == 1
        shell.type("fg\n")
        ticks = shell.seen.count("tick")
        shell.shows("tick", times=ticks + 5)
        shell.type("\x03")
        eventually(lambda: held(cluster, pool) == 0, "the seat is given back")
        shell.type("echo still $((40 + 2))\n")
        shell.shows("still 42")
        shell.type("exit\n")
        shell.ends()


def test_a_terminal_shows_one_line_for_the_queue(cluster: Cluster, pool: str) -> None:
    grant = cluster.client.acquire(pool)
    command = ("run", "--pool", pool, "--", "sh", "-c", "tty; echo ran")
    with Terminal(*command, SEATKEEPER_NODES=cluster.address) as terminal:
        terminal.shows("place 1")
        grant.release()
        terminal.shows("ran")
        assert terminal.ends() == 0
        assert "/dev/pts" in terminal.seen
        line = terminal.seen.partition("/dev/pts")[0]
        assert "\n" not in line
        assert line.endswith("\r")


def test_a_person_may_wait_forever_without_a_file_left_behind(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    here = {"SEATKEEPER_NODES": cluster.address, "TMPDIR": str(tmp_path)}
    before = os.listdir(tmp_path)
    cluster("run", "--pool", pool, "--", "true", **here).check()
    assert os.listdir(tmp_path) == before


def test_the_holder_is_known_to_the_service(cluster: Cluster, pool: str) -> None:
    options = ("--pool", pool, "--holder", "ci-42", "--project", "nlp")
    script = f"seatkeeper pool show {pool} --json"
    (grant,) = cluster("run", *options, "--", "sh", "-c", script).check().json["grants"]
    assert (grant["holder"], grant["project"]) == ("ci-42", "nlp")
