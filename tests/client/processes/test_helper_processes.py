"""Sessions that a helper keeps, with real processes that are held, forked, stopped and killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.client.programs import Program, is_gone, is_stopped, wait_until

from seatkeeper.testing.service import InMemoryService


@pytest.fixture(scope="module")
def service() -> Iterator[InMemoryService]:
    with InMemoryService({"tensorrt": 8}) as service:
        yield service
        service.create_pool("tensorrt", 8)


@pytest.fixture(autouse=True)
def nothing_is_held(service: InMemoryService) -> Iterator[None]:
    yield
    wait_until(lambda: service.held("tensorrt") == 0, "seats are still held")


HOLDS = """
with SeatClient(ADDRESS, config=ttl({ttl}{more})) as client:
    grant = client.acquire("tensorrt", on_state=lambda state: say("state", state.value))
    say(helper())
    {then}
"""


def holder(
    service: InMemoryService, then: str, *, ttl: float = 60, more: str = ""
) -> tuple[Program, int]:
    """Return a program that holds a seat and then does something, and its helper's pid."""
    indented = then.replace("\n", "\n    ")
    more = f", {more}" if more else ""
    program = Program(HOLDS.format(ttl=ttl, more=more, then=indented), service.address)
    try:
        return program, int(program.line())
    except BaseException:
        program.__exit__(None, None, None)
        raise


def test_native_code_that_holds_the_interpreter_keeps_its_seat(
    service: InMemoryService,
) -> None:
    then = (
        "LIBC.sleep(6)\nsay(settled(grant))\ngrant.raise_if_lost()\n"
        "say(len(grant.fetch_token()) > 9)"
    )
    program, _ = holder(service, then, ttl=2)
    with program:
        assert program.answer() == "safe"
        assert program.answer() == "True"
        assert program.ended() == 0


def test_a_blocked_event_loop_keeps_its_seat(service: InMemoryService) -> None:
    script = """
    async def main():
        async with AsyncSeatClient(ADDRESS, config=ttl(2)) as client:
            async with client.seat("tensorrt") as grant:
                time.sleep(6)
                say(settled(grant))
    asyncio.run(main())
    """
    with Program(script, service.address) as program:
        assert program.answer() == "safe"
        assert program.ended() == 0


SYNC = 'with SeatClient(ADDRESS) as mine, mine.seat("tensorrt", wait=30): pass'
CHILDREN = {
    "idle": "time.sleep(3); os._exit(0)",
    "exec": 'os.execvp("sleep", ["sleep", "3"])',
    "sync": f"{SYNC}\nos._exit(0)",
    "sync, ends by sys.exit": f"{SYNC}\nsys.exit(0)",
    "closes the parent's": "client.close(); grant.release(); os._exit(0)",
    "collects garbage": "del client, grant; import gc; gc.collect(); sys.exit(0)",
    "believes nothing": 'assert grant.state.value == "lost" == client.state.value; os._exit(0)',
    "grandchild": f"if os.fork() == 0:\n    {SYNC}\n    os._exit(0)\nos._exit(ends_well(-1))",
    "async": """
async def main():
    async with AsyncSeatClient(ADDRESS) as mine, mine.seat("tensorrt", wait=30):
        pass
asyncio.run(main())
os._exit(0)""",
    "in-process": (
        'try: AsyncSeatClient(ADDRESS, config=ClientConfig(keeper="process"))\n'
        "except ForkedProcess: os._exit(9)\n"
        "os._exit(0)"
    ),
}


@pytest.mark.parametrize("child", CHILDREN)
def test_a_parent_keeps_its_seat_whatever_its_children_do(
    service: InMemoryService, child: str
) -> None:
    body = CHILDREN[child].replace("\n", "\n    ")
    then = (
        f"child = os.fork()\nif child == 0:\n    {body}\n"
        "say(ends_well(child))\ntime.sleep(2.5)\nsay(settled(grant))\n"
        'client.acquire("tensorrt", wait=0).release()\nsay("works")'
    )
    program, _ = holder(service, then, ttl=2)
    with program:
        assert program.answer() == "0", program.errors
        assert program.answer() == "safe"
        assert program.answer() == "works"
        assert program.ended() == 0


def test_a_child_that_an_extension_forked_has_no_part_in_the_parents_helper(
    service: InMemoryService,
) -> None:
    """As uWSGI forks by default: Python's own handlers are not called.

    No client is made there: Python's own locks may be held by threads that the child does not have.
    """
    then = (
        "child = LIBC.fork()\nif child == 0: os._exit(0 if links.running() is None else 9)\n"
        'say(ends_well(child))\nsay(settled(grant))\nclient.acquire("tensorrt").release()\n'
        'say("works")'
    )
    program, _ = holder(service, then, ttl=2)
    with program:
        assert program.answer() == "0", program.errors
        assert program.answer() == "safe"
        assert program.answer() == "works"
        assert program.ended() == 0


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_child_of_a_process_that_ran_grpc_is_refused_at_once_and_the_parent_is_safe(
    service: InMemoryService, kind: str, closed: bool
) -> None:
    make = {
        "sync": "SeatClient(ADDRESS, config=config)",
        "async": "AsyncSeatClient(ADDRESS, config=config)",
    }[kind]
    script = f"""
    config = ttl(2, keeper="process")
    client = SeatClient(ADDRESS, config=config)
    grant = client.acquire("tensorrt")
    if {closed}:
        client.close()
    child = os.fork()
    if child == 0:
        try:
            {make}
        except ForkedProcess:
            sys.exit(7)
        os._exit(1)
    say(ends_well(child))
    time.sleep(3)
    say({closed} or grant.state.value)
    client.close()
    """
    # With the fork handlers of gRPC a fifth of all children crash in threads of gRPC's own, also
    # those that do nothing but end: nothing of ours is there to prevent it.
    env = {"GRPC_ENABLE_FORK_SUPPORT": "0"}
    with Program(script, service.address, env=env) as program:
        assert program.line() == "7"
        assert program.line() == ("True" if closed else "safe")
        assert program.ended() == 0


def test_when_the_helper_is_killed_a_grant_is_doubted_then_lost_and_work_goes_on(
    service: InMemoryService,
) -> None:
    then = 'wait_input()\nsay(grant.state.value)\nclient.acquire("tensorrt").release()\nsay(helper())'
    program, helper = holder(service, then, ttl=3)
    with program:
        os.kill(helper, signal.SIGKILL)
        assert program.line() == "state jeopardy"
        assert program.line() == "state lost"
        program.notify()
        assert program.line() == "lost"
        assert int(program.line()) != helper
        assert program.ended() == 0


def test_when_the_helper_is_killed_waiting_calls_fail(service: InMemoryService) -> None:
    then = """
others = [client.acquire("tensorrt") for _ in range(7)]
def kill(_):
    os.kill(helper(), signal.SIGKILL)
try:
    client.acquire("tensorrt", on_queued=kill)
except HelperLost as error:
    say(error.retryable, error)"""
    program, _ = holder(service, then, ttl=2)
    with program:
        said = [program.line() for _ in range(2)]
        assert any(line.startswith("True the helper process ended") for line in said), said
        program.signal(signal.SIGKILL)


def test_when_the_helper_is_stopped_calls_end_and_what_is_lost_stays_lost(
    service: InMemoryService,
) -> None:
    then = """
wait_input()
try:
    client.acquire("tensorrt")
except HelperLost as error:
    say(error.retryable)
say(grant.state.value)
wait_input()
time.sleep(1)
say(grant.state.value)
client.acquire("tensorrt").release()
say("works")"""
    program, helper = holder(service, then, ttl=3)
    with program:
        try:
            os.kill(helper, signal.SIGSTOP)
            wait_until(lambda: is_stopped(helper), "the helper does not stop")
            program.notify()
            lines = [program.line() for _ in range(3)]
            if (
                "state jeopardy" in lines
            ):  # how long it doubts depends on how busy the machine is
                lines.append(program.line())
            assert lines[-3:] == ["state lost", "True", "lost"]
        finally:
            os.kill(helper, signal.SIGCONT)
        program.notify()
        assert program.line() == "lost"
        assert program.line() == "works"
        wait_until(lambda: is_gone(helper), "the helper that was left stays")
        assert program.ended() == 0


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_program_that_is_gone_frees_its_seats_at_once(
    service: InMemoryService, end: signal.Signals
) -> None:
    program, helper = holder(service, "wait_input()")
    with program:
        program.signal(end)
        program.ended()
        wait_until(lambda: service.held("tensorrt") == 0, "the seat stays held")
        wait_until(lambda: is_gone(helper), "the helper stays")


@pytest.mark.parametrize("fork", ["os.fork()", "LIBC.fork()"])
def test_children_that_hold_everything_open_do_not_keep_the_seats(
    service: InMemoryService, fork: str
) -> None:
    """A child of C code runs no hooks of Python's: it keeps the parent's descriptors."""
    then = f"child = {fork}\nif child == 0: LIBC.sleep(120)\nsay(child)\nwait_input()"
    program, helper = holder(service, then)
    with program:
        child = int(program.line())
        try:
            program.signal(signal.SIGKILL)
            program.process.wait()
            wait_until(lambda: service.held("tensorrt") == 0, "the seat stays held")
            wait_until(lambda: is_gone(helper), "the helper stays")
            assert not is_gone(child)
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_program_that_execs_another_frees_its_seats(service: InMemoryService) -> None:
    then = 'if os.fork() == 0: time.sleep(1); os._exit(0)\nos.execvp("sleep", ["sleep", "60"])'
    program, helper = holder(service, then)
    with program:
        wait_until(lambda: service.held("tensorrt") == 0, "the seat stays held")
        wait_until(lambda: is_gone(helper), "the helper stays")


def test_signals_of_the_terminal_and_of_services_do_not_end_the_helper(
    service: InMemoryService,
) -> None:
    program, helper = holder(service, "wait_input()\nsay(settled(grant))", ttl=2)
    with program:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            os.kill(helper, number)
        assert os.getpgid(helper) != os.getpgid(program.pid)
        program.notify()
        assert program.answer() == "safe"
        assert program.ended() == 0


def test_no_grant_is_believed_in_after_program_and_helper_were_stopped_beyond_the_lease(
    service: InMemoryService,
) -> None:
    program, helper = holder(service, "wait_input()\nsay(grant.state.value)", ttl=2)
    with program:
        try:
            for pid in (helper, program.pid):
                os.kill(pid, signal.SIGSTOP)
            wait_until(lambda: service.held("tensorrt") == 0, "the lease does not end")
            program.notify()
            program.signal(signal.SIGCONT)
            lines = {program.line(), program.line()}
            lines |= {program.line()} if "state jeopardy" in lines else set()
            assert lines - {"state jeopardy"} == {"lost", "state lost"}
        finally:
            os.kill(helper, signal.SIGCONT)
        assert program.ended() == 0


def test_a_program_that_is_stopped_keeps_its_seat_by_its_helper(
    service: InMemoryService,
) -> None:
    then = "wait_input()\nsay(settled(grant))\nsay(len(grant.fetch_token()) > 9)"
    program, _ = holder(service, then, ttl=2)
    with program:
        program.signal(signal.SIGSTOP)
        wait_until(lambda: is_stopped(program.pid), "the program does not stop")
        program.notify()
        over_at = time.monotonic() + 5
        while time.monotonic() < over_at:
            assert service.held("tensorrt") == 1
            time.sleep(0.2)
        program.signal(signal.SIGCONT)
        assert program.answer() == "safe"
        assert program.answer() == "True"
        assert program.ended() == 0


def test_on_loss_kill_ends_native_code_that_holds_the_interpreter(
    service: InMemoryService,
) -> None:
    program, _ = holder(service, 'say("holds it")\nLIBC.sleep(120)', more='on_loss="kill"')
    with program:
        assert program.line() == "holds it"
        service.lose_sessions()
        assert program.ended() == -signal.SIGKILL


def test_on_loss_kill_is_done_by_the_program_where_the_helper_cannot(
    service: InMemoryService,
) -> None:
    program, helper = holder(service, "time.sleep(120)", ttl=2, more='on_loss="kill"')
    with program:
        try:
            os.kill(helper, signal.SIGSTOP)
            assert program.ended() == -signal.SIGKILL
        finally:
            os.kill(helper, signal.SIGCONT)


def test_releasing_and_closing_kill_no_process(service: InMemoryService) -> None:
    then = "grant.release()\nclient.close()\nsay('lives')\ntime.sleep(0.5)"
    program, _ = holder(service, then, more='on_loss="kill"')
    with program:
        while program.line() != "lives":
            pass
        assert program.ended() == 0


USES = """
with SeatClient(ADDRESS) as client, client.seat("tensorrt") as grant:
    {say}
"""


ODD = {
    "streams closed": "os.closerange(0, 3)",
    "few descriptors": "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))",
    "children ignored": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "signals blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    "umask": "os.umask(0o777)",
}


@pytest.mark.parametrize("before", ODD)
def test_a_helper_starts_in_odd_programs(
    service: InMemoryService, before: str, tmp_path: Path
) -> None:
    done = tmp_path / "done"
    script = USES.format(say=f"open({str(done)!r}, 'w').close()")
    with Program(script, service.address, before=ODD[before]) as program:
        assert program.ended() == 0, program.errors
    assert done.exists()


def test_a_helper_starts_where_the_folder_shadows_modules_and_then_is_gone(
    service: InMemoryService, tmp_path: Path
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    script = f"""
    import pathlib, shutil
    for name in ("json", "asyncio", "grpc", "socket", "typing", "mmap"):
        pathlib.Path(name + ".py").write_text("raise SystemExit('shadowed')")
    if sys.argv[2] == "gone":
        shutil.rmtree({str(folder)!r})
    {USES.format(say='say("works")').replace(chr(10), chr(10) + "    ")}
    """
    for what in ("there", "gone"):
        folder.mkdir(exist_ok=True)
        env = {"PYTHONPATH": ":.", "PYTHONSTARTUP": "/nowhere", "PYTHONWARNINGS": "error"}
        for name in folder.iterdir():
            name.unlink()
        with Program(
            script, service.address, what, cwd=folder, env=env, flags=("-O",)
        ) as program:
            assert program.line() == "works", program.errors
            assert program.ended() == 0


def test_where_no_helper_can_be_had_the_process_itself_keeps_the_session(
    service: InMemoryService,
) -> None:
    script = f"""
    sys.executable = "/usr/sbin/httpd"
    {USES.format(say="say(links.running() is None)").replace(chr(10), chr(10) + "    ")}
    """
    with Program(script, service.address) as program:
        assert program.line() == "True"
        assert program.ended() == 0
        wait_until(lambda: bool(program.errors), "no warning")
    assert "no Python interpreter" in "".join(program.errors)


def test_a_helper_that_cannot_start_is_reported(service: InMemoryService) -> None:
    script = """
    sys.executable = "/nowhere/python3"
    try:
        with SeatClient(ADDRESS) as client:
            client.acquire("tensorrt")
    except HelperLost as error:
        say(error)
    """
    with Program(script, service.address) as program:
        assert "No such file" in program.line()
        assert program.ended() == 0


def test_a_program_waits_for_its_own_children_only(service: InMemoryService) -> None:
    then = (
        "if os.fork() == 0: os._exit(0)\nos.wait()\n"
        "try: os.wait()\nexcept ChildProcessError: say('none')"
    )
    program, _ = holder(service, then)
    with program:
        assert program.line() == "none"
        assert program.ended() == 0


def test_a_helper_that_would_read_another_clock_is_not_used(service: InMemoryService) -> None:
    """Children of a process may live in a time namespace that it is not in itself."""
    script = """
    NEW_TIME = 0x80
    if LIBC.unshare(NEW_TIME):
        say("cannot")
        sys.exit()
    with open("/proc/self/timens_offsets", "w") as offsets:
        offsets.write("boottime 100000 0")
    try:
        with SeatClient(ADDRESS) as client:
            client.acquire("tensorrt")
    except HelperLost as error:
        say(error)
    """
    with Program(script, service.address) as program:
        said = program.line()
        if said == "cannot":
            pytest.skip("time namespaces need rights that this user has not")
        assert "reads another clock" in said
        assert program.ended() == 0


def test_a_stopped_helper_does_not_keep_a_client_from_closing(service: InMemoryService) -> None:
    then = "wait_input()\nclient.close()\nsay('closed')\nsay(grant.state.value)"
    program, helper = holder(service, then)
    with program:
        try:
            os.kill(helper, signal.SIGSTOP)
            wait_until(lambda: is_stopped(helper), "the helper does not stop")
            program.notify()
            lines = {program.line() for _ in range(3)}
            lines |= {program.line()} if "state jeopardy" in lines else set()
            assert lines - {"state jeopardy"} == {"state lost", "closed", "lost"}
            assert program.ended() == 0
        finally:
            os.kill(helper, signal.SIGCONT)
            service.lose_sessions()  # no one closed it: its lease has most of a minute left


def test_holders_see_jeopardy_also_while_the_helper_is_stopped(
    service: InMemoryService,
) -> None:
    program, helper = holder(service, "wait_input()", ttl=8)
    with program:
        try:
            os.kill(helper, signal.SIGSTOP)
            assert program.line() == "state jeopardy"
        finally:
            os.kill(helper, signal.SIGCONT)
        assert program.line() == "state safe"
        program.notify()
        assert program.ended() == 0


def test_many_grants_change_hands_through_few_slots(service: InMemoryService) -> None:
    work = (
        "for _ in range(300):\n"
        "    with client.seat('tensorrt', wait=30) as other: assert other.state.value == 'safe'\n"
        "say(settled(grant))"
    )
    program, _ = holder(service, work)
    with program:
        assert program.answer() == "safe"
        assert program.ended() == 0


def test_a_program_with_a_helper_runs_no_grpc(service: InMemoryService) -> None:
    """Not even a thread of it: that is what makes forks safe."""
    then = (
        "client.pools.list()\nclient.cluster.version()\n"
        "from seatkeeper.core import channels\n"
        "tasks = len(os.listdir('/proc/self/task'))\n"
        "say(channels._first, tasks - threading.active_count())"
    )
    program, _ = holder(service, then)
    with program:
        assert program.line() == "[] 0"
        assert program.ended() == 0


def test_on_loss_kill_works_without_a_helper_where_the_interpreter_is_free(
    service: InMemoryService,
) -> None:
    program, _ = in_process_holder(service, "time.sleep(120)")
    with program:
        service.lose_sessions()
        assert program.ended() == -signal.SIGKILL
    program, _ = in_process_holder(service, "grant.release()\nclient.acquire('tensorrt')")
    with program:
        assert program.ended() == 0


def in_process_holder(service: InMemoryService, then: str) -> tuple[Program, int]:
    """Return a program that holds a seat without a helper."""
    indented = then.replace("\n", "\n    ")
    more = ', keeper="process", on_loss="kill"'
    script = HOLDS.format(ttl=60, more=more, then=indented).replace("say(helper())", "say(0)")
    program = Program(script, service.address)
    return program, int(program.line())


def test_a_forked_child_leaves_a_block_in_silence(service: InMemoryService) -> None:
    """It holds nothing, so it has lost nothing; its parent says what there is to say."""
    script = """
    with SeatClient(ADDRESS) as client:
        with client.seat("tensorrt") as grant:
            child = os.fork()
            if child == 0:
                try:
                    grant.raise_if_lost()
                except SeatLost as error:
                    assert "forked" in str(error), error
                else:
                    os._exit(1)
            else:
                say(ends_well(child), grant.state.value)
        if child == 0:
            os._exit(0)
    """
    with Program(script, service.address) as program:
        assert program.line() == "0 safe"
        assert program.ended() == 0
