"""``seatkeeper dev``: a whole cluster on this machine, to try it."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seatkeeper.cli.connection import Json
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.processes.common import AGENT_NEEDS, SERVER_NEEDS, installed
from seatkeeper.core.extras import explain
from seatkeeper.hold.signals import caught, wait_for_child

if TYPE_CHECKING:
    from seatkeeper.devcluster.cluster import Cluster

PORT_DEFAULT = 7420
AGENT_OFFSET = 20
ETCD_OFFSET = 30
"""As `seatkeeper.devcluster.plan` has them, which only those who start a cluster load."""
NODES_MAX = 20
ETCD_MEMBERS_MAX = 5
ONE_SIGNAL_SECONDS = 1.0
"""Signals that come within this time are one: a wrapper may signal both process and group."""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def _odd(members: int | None) -> int | None:
    """Refuse an even number: it outlives no more losses than the odd number below it."""
    if members is not None and members % 2 == 0:
        raise typer.BadParameter(
            f"{members} members outlive no more losses than {members - 1}, since more than half "
            f"must live: give {members - 1} or {members + 1}"
        )
    return members


@app.command(
    epilog=examples(
        "seatkeeper dev",
        "seatkeeper dev --nodes 1 --seats 4 --no-agent --state /tmp/seats --port 17420",
    )
)
def dev(
    nodes: Annotated[
        int, typer.Option("--nodes", metavar="N", min=1, max=NODES_MAX, help="Nodes to run.")
    ] = 3,
    etcd_members: Annotated[
        int | None,
        typer.Option(
            "--etcd-members",
            metavar="N",
            min=1,
            max=ETCD_MEMBERS_MAX,
            callback=_odd,
            help="Members of etcd: 1, 3 or 5. [default: as the state has it, else 1]",
        ),
    ] = None,
    state: Annotated[
        Path,
        typer.Option(
            "--state", metavar="FOLDER", help="Where data, engines and logs are kept."
        ),
    ] = Path(".seatkeeper/dev"),
    seats: Annotated[
        int,
        typer.Option(
            "--seats", metavar="N", min=1, help="Seats of the pool `tensorrt`, when it is made."
        ),
    ] = 2,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            metavar="BASE",
            min=1024,
            max=65_000,
            help=f"First of the ports used: nodes from here on, the agent at +{AGENT_OFFSET}, "
            f"etcd from +{ETCD_OFFSET}. [default: as the state has it, else {PORT_DEFAULT}]",
        ),
    ] = None,
    etcd: Annotated[
        Path | None,
        typer.Option(
            "--etcd",
            envvar="SEATKEEPER_ETCD",
            metavar="FILE",
            help="The etcd program. [default: found]",
        ),
    ] = None,
    no_agent: Annotated[bool, typer.Option("--no-agent", help="Run no build agent.")] = False,
    as_json: Json = False,
) -> None:
    """Run a whole cluster here until Ctrl-C: etcd, nodes, and a build agent.

    Everything listens on 127.0.0.1 only. State is kept in the state folder, and the next start
    continues from it. Not for production: one machine is a single point of failure.
    """
    if not installed(*SERVER_NEEDS, "seatkeeper.devcluster"):
        fail(Exit.CONFIG, explain("this command", "server"))
    from seatkeeper.cli.processes.dev_report import explain as explain_failure
    from seatkeeper.cli.processes.dev_report import report
    from seatkeeper.devcluster.cluster import Cluster
    from seatkeeper.devcluster.plan import ClusterFailed, Plan
    from seatkeeper.devcluster.state import StateFolder

    _leave_the_terminal()
    try:
        with StateFolder(state) as folder:
            kept = folder.read()
            plan = Plan.of(kept, nodes=nodes, members=etcd_members, seats=seats, port=port)
            cluster = Cluster(
                folder,
                plan,
                etcd=etcd,
                with_agent=not no_agent,
                agent_trouble=_missing_for_agent(),
                notify=functools.partial(report, state=state, as_json=as_json),
            )
            asyncio.run(_run_until_stopped(cluster))
    except ClusterFailed as error:
        fail(Exit.CONFIG if error.is_fixable else Exit.FAILED, explain_failure(error, state))


def _missing_for_agent() -> str | None:
    needed = ("onnx", "numpy", "seatkeeper.agent.main")
    return None if installed(*needed) else explain("an agent", *AGENT_NEEDS)


async def _run_until_stopped(cluster: Cluster) -> None:
    """Run the cluster until a signal ends it; a second one, later, does not wait for anything."""
    loop = asyncio.get_running_loop()
    terminal = Terminal()
    first_at: list[float] = []

    def end() -> None:
        is_late = bool(first_at) and loop.time() >= first_at[0] + ONE_SIGNAL_SECONDS
        first_at.append(loop.time())
        cluster.stop(at_once=is_late)

    def end_or_reload() -> None:
        if terminal.is_gone:
            end()
        else:
            cluster.reload()

    for number in caught(signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    for number in caught(signal.SIGHUP):
        loop.add_signal_handler(number, end_or_reload)
    await cluster.run()


def _leave_the_terminal() -> None:
    """Go on as a child in a process group of its own, and come back only to end.

    Ctrl-C at a terminal reaches every process of the group, so etcd would stop at the same time as
    the nodes that still need it. Here it reaches this process alone, which signals its child.
    Forking is safe: there are no other threads yet.
    """
    sys.stdout.flush()
    terminal = Terminal()
    numbers = caught(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # Ignored, it would leave us without exit codes.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*numbers, signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.setpgid(0, 0)
        die_with_parent(os.getppid())
        return

    def forward(number: int) -> None:
        is_reload = number == signal.SIGHUP and not terminal.is_gone
        os.kill(child, signal.SIGHUP if is_reload else signal.SIGTERM)

    code = os.waitstatus_to_exitcode(wait_for_child(child, forward, numbers))
    # Nothing but the exit code: what was to be said and flushed, the child did.
    os._exit(code if code >= 0 else 128 - code)


class Terminal:
    """The terminal that we were started from, if there was one.

    HUP means two things: read settings again, when somebody sends it; and that the terminal is gone.
    Then a cluster for trying things out ends, as it would by Ctrl-C.
    """

    def __init__(self) -> None:
        self._was_there = _has_terminal()

    @property
    def is_gone(self) -> bool:
        """Whether there was one, and is none any more."""
        return self._was_there and not _has_terminal()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def die_with_parent(parent: int) -> None:
    """Ask the kernel to end this process, cleanly, when ``parent`` is gone."""
    if sys.platform == "linux":
        from seatkeeper.hold.linux import die_with_parent as ask_kernel

        ask_kernel(signal.SIGTERM)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
