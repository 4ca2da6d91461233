"""The table of contents of the command line.

A command's module is imported when the command is used: ``seatkeeper --help`` needs neither gRPC
nor the server, and a machine that has only the client can still list what there is.
"""

from __future__ import annotations

import errno
import importlib
import itertools
import signal
import sys
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup
from typer.main import get_command as as_command

from seatkeeper.cli import streams
from seatkeeper.cli.encoding import take_any_text
from seatkeeper.cli.exits import (
    EndedBySignal,
    Exit,
    die_of,
    exit_codes,
    fail,
    fail_in_json,
    say_failed,
)
from seatkeeper.core.version import seatkeeper_version


class Entry(NamedTuple):
    """Where a command is, and what it does, as the list of commands says it."""

    module: str
    """Below ``seatkeeper.cli``. Only those of ``processes`` need more than the client."""
    summary: str


COMMANDS = {
    "dev": Entry(
        "processes.dev", "Run a whole cluster here, to try it: etcd, nodes, build agent."
    ),
    "status": Entry("status", "Show nodes, agents and pools, or who holds and waits in one."),
    "doctor": Entry(
        "doctor", "Check a running service, and say what to do about each finding."
    ),
    "pool": Entry("pool", "Create, change, delete and list pools."),
    "pool simulate": Entry(
        "processes.simulate", "Try a pool on a demand: who would wait, and for whom."
    ),
    "import": Entry(
        "importing", "Translate licence files of FlexNet and RLM into a file of pools."
    ),
    "burst": Entry("burst", "Start, stop and list bursts: extra seats for a while."),
    "reservation": Entry(
        "reservation", "Keep seats for some in windows that come again, such as nights."
    ),
    "queue": Entry("queue", "Show who waits for a pool, and why; take a request out."),
    "grant": Entry("grant", "Show who holds seats; free the seats of a grant by force."),
    "borrow": Entry("borrow", "Take a seat along to a machine that will be offline."),
    "node": Entry("node", "List nodes, and take one out of service."),
    "run": Entry("run", "Run a program while holding a seat."),
    "build": Entry("build", "Compile a model to an engine, under a seat."),
    "build suggest-profiles": Entry(
        "suggest_profiles", "Suggest profiles from the sizes that were asked for."
    ),
    "trtexec": Entry("trtexec", "Build as a command line of trtexec says."),
    "engines": Entry("engines", "List, fetch, verify and keep published engines."),
    "token": Entry("token", "Verify and show tokens; fetch the keys to do so offline."),
    "chaos": Entry(
        "processes.chaos", "Try a test deployment with faults, and check what it did."
    ),
    "serve": Entry("processes.serve", "Run one node."),
    "agent": Entry("processes.agent", "Run one build agent."),
    "agent list": Entry("agent_list", "List build agents, and what they build."),
    "agent drain": Entry("agent_drain", "Have a build agent finish what it builds, and leave."),
    "ledger": Entry(
        "processes.ledger", "Write who used which seats into a database, for reports."
    ),
    "report": Entry("processes.report", "Show who used what, from the ledger's database."),
    "adopt": Entry(
        "processes.adopt", "After restoring etcd: make it safe to start nodes on it."
    ),
}

_FIRST_STEPS = """\b
First steps:
  seatkeeper dev
  seatkeeper status
  seatkeeper run --pool tensorrt -- env

\b
"""


class _Lazy(TyperGroup):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # typer's base class is click's, without types
        return list(COMMANDS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]  # noqa: ANN401  # typer's base class is click's, without types
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module = importlib.import_module(f"seatkeeper.cli.{entry.module}")
        command = as_command(module.app)
        command.name = cmd_name
        return command

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]  # noqa: ANN401  # typer's base class is click's, without types
        name = " ".join(args[:2])
        if name in COMMANDS:  # one of two words, beside a command that takes a file there
            return name, self.get_command(ctx, name), args[2:]
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]  # noqa: ANN401  # typer's base class is click's, without types
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


app = typer.Typer(
    name="seatkeeper",
    cls=_Lazy,
    help="Floating-licence seats that survive the loss of a node.",
    epilog=_FIRST_STEPS + exit_codes(),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"seatkeeper {seatkeeper_version()}")
        raise typer.Exit


@app.callback()
def _commands(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    """Floating-licence seats that survive the loss of a node."""


# The classes moved when typer took click in; their place in this family did not.
_CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]


def main() -> None:
    """Run the command line. A user's mistake ends in one line, never in a traceback."""
    try:
        _main()
    finally:
        # What this command was asked for is nothing for the next in this process.
        fail_in_json(False)


def _main() -> None:
    streams.set_up()
    take_any_text()
    ended_by: int | None = None
    try:
        code = _run()
    except EndedBySignal as ended:
        code, ended_by = int(Exit.FAILED), ended.number
    except KeyboardInterrupt:
        code, ended_by = int(Exit.FAILED), signal.SIGINT
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    try:
        sys.stdout.flush()
    except streams.OutputFailed as error:
        # Nothing of it may be tried again at exit.
        streams.give_up_output()
        code = code or _output_failed(error)
    streams.drain()
    if ended_by is not None:
        die_of(ended_by)
    raise SystemExit(code)


def _run() -> int:
    try:
        code = app(prog_name="seatkeeper", standalone_mode=False)
    except streams.OutputFailed as error:
        streams.give_up_output()
        return _output_failed(error)
    except _CommandLineError as error:
        # It may have ended the reading of options before this one was read.
        if "--json" in itertools.takewhile(lambda word: word != "--", sys.argv):
            fail_in_json(True)
        fail(Exit.USAGE, _command_line_advice(error))
    except typer.Abort:
        raise KeyboardInterrupt from None
    except BrokenPipeError:
        # The reader of our output has gone.
        return int(Exit.FAILED)
    except Exception as error:
        # Imported here, with gRPC behind it: help texts can do without.
        from seatkeeper.cli.failures import explain

        explained = explain(error)
        if explained is None:
            raise
        fail(*explained)
    if code == Exit.INTERRUPTED:
        # No command of ours returns that; typer makes it of Ctrl-C.
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _output_failed(error: streams.OutputFailed) -> int:
    # A closed reader of our output (`... | head`) needs no message.
    if error.errno != errno.EPIPE:
        say_failed(Exit.FAILED, f"standard output: {error.strerror}")
    return int(Exit.FAILED)


def _command_line_advice(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    if context is not None and type(error).__name__ == "NoArgsIsHelpError":
        print(context.get_help(), file=sys.stderr)
        raise SystemExit(int(Exit.USAGE))
    message = str(getattr(error, "format_message", error.__str__)()).strip().rstrip(".")
    message = " ".join(message.split())
    path = context.command_path if context is not None else "seatkeeper"
    return f"{message[:1].lower()}{message[1:]}; see `{path} --help`"
