"""What the commands that call a node share: their options, and how they run and end."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, NoReturn, ParamSpec

import typer

from seatkeeper.cli.exits import EndedBySignal, Exit, fail, fail_in_json, say_interrupted
from seatkeeper.cli.limits import check_descriptors
from seatkeeper.core import environment as variables
from seatkeeper.hold.signals import PERSON, caught

if TYPE_CHECKING:
    from seatkeeper.client import AsyncSeatClient, TlsConfig
    from seatkeeper.core.errors import InvalidArgument, ServiceUnavailable

P = ParamSpec("P")

GRPC_VERBOSITY = "GRPC_VERBOSITY"
PATIENCE_SECONDS = 10.0
"""How long a silent service is waited for, unless the user says."""
FLAG_OF = {
    "address": "--nodes or SEATKEEPER_NODES",
    "holder": "--holder or SEATKEEPER_HOLDER",
    "project": "--project or SEATKEEPER_PROJECT",
    "tls.ca": "--tls-ca or SEATKEEPER_TLS_CA",
    "tls.cert": "--tls-cert or SEATKEEPER_TLS_CERT",
    "tls.key": "--tls-key or SEATKEEPER_TLS_KEY",
}
"""What people give, by what the library calls it."""


def _note_json(wanted: bool) -> bool:
    fail_in_json(wanted)
    return wanted


Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Write JSON on standard output, and nothing else. An error is JSON, too, on "
        "standard error.",
        # Before the other options: what is wrong with one of them is an error as well.
        is_eager=True,
        callback=_note_json,
    ),
]
TlsCa = Annotated[
    Path | None,
    typer.Option(
        envvar=variables.TLS_CA,
        metavar="FILE",
        help="CA of the nodes' certificates, PEM; given: use TLS.",
    ),
]
TlsCert = Annotated[
    Path | None,
    typer.Option(
        envvar=variables.TLS_CERT,
        metavar="FILE",
        help="Our own certificate, PEM, for mutual TLS.",
    ),
]
TlsKey = Annotated[
    Path | None,
    typer.Option(envvar=variables.TLS_KEY, metavar="FILE", help="Key of our certificate, PEM."),
]


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How to reach the service, and who we are to it: each field is an option."""

    nodes: Annotated[
        str,
        typer.Option(
            envvar=variables.NODES,
            metavar="HOST:PORT,...",
            help="Nodes, or a load balancer in front of them.",
        ),
    ] = variables.DEFAULT_NODES
    tls_ca: TlsCa = None
    tls_cert: TlsCert = None
    tls_key: TlsKey = None
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.1,
            max=86_400,
            help="Time after which a silent service is given up; at most a day. [default: 10, "
            "and 1 for one that refuses the connection]",
            show_default=False,
        ),
    ] = None
    json: Json = False

    @property
    def patience(self) -> float:
        """How many seconds a silent service is waited for."""
        return PATIENCE_SECONDS if self.timeout is None else self.timeout

    def client(
        self,
        *,
        project: str = "",
        holder: str | None = None,
        ttl: timedelta | None = None,
        safety_margin: timedelta = timedelta(seconds=1),
        program: str | None = None,
        is_there: bool = True,
    ) -> AsyncSeatClient:
        """Return a client. An option that is wrong ends the command, and is named.

        ``is_there``: raise `ServiceUnavailable` now where all nodes refuse to be connected to, unless
        the user said how long to try.
        """
        from seatkeeper.client.transport.nodes import parse_addresses
        from seatkeeper.client.transport.reach import check_reachable
        from seatkeeper.core.errors import InvalidArgument

        check_descriptors()
        tls = tls_of(self.tls_ca, self.tls_cert, self.tls_key)
        try:
            client = self._client(project, holder, ttl, safety_margin, tls, program)
            if is_there and self.timeout is None:
                check_reachable(parse_addresses(self.nodes))
        except InvalidArgument as error:
            _fail_by_its_flag(error)
        return client

    def explained(self, error: ServiceUnavailable) -> ServiceUnavailable:
        """Return the error with what is wrong about TLS, where that is why no node answered."""
        from seatkeeper.client.transport.nodes import parse_addresses
        from seatkeeper.client.transport.reach import TlsNames, trouble_with
        from seatkeeper.core.errors import Overloaded, ServiceUnavailable

        if isinstance(error, Overloaded) or not str(error).startswith("no node answered"):
            return error
        why = trouble_with(
            parse_addresses(self.nodes),
            tls_of(self.tls_ca, self.tls_cert, self.tls_key),
            names=TlsNames("--tls-ca", "--tls-cert", "--tls-key"),
        )
        return ServiceUnavailable(f"no node answered; {why}") if why else error

    def _client(
        self,
        project: str,
        holder: str | None,
        ttl: timedelta | None,
        safety_margin: timedelta,
        tls: TlsConfig | None,
        program: str | None,
    ) -> AsyncSeatClient:
        from seatkeeper.client import AsyncSeatClient, ClientConfig

        # Commands say what went wrong in their own words, once.
        logging.getLogger("seatkeeper").addHandler(logging.NullHandler())
        timeout = timedelta(seconds=self.patience)
        return AsyncSeatClient(
            self.nodes,
            project=project,
            holder=holder,
            tls=tls,
            config=ClientConfig(
                connect_timeout=timeout,
                call_timeout=timeout,
                ttl=ttl,
                safety_margin=safety_margin,
                program=program,
                # A command is a process of its own, and runs nobody's code.
                keeper="process",
            ),
        )


def tls_of(
    ca: Path | None, cert: Path | None, key: Path | None, *, server_name: str = ""
) -> TlsConfig | None:
    """Return what the options for TLS say; None: none is given. A wrong one ends the command."""
    from seatkeeper.client import TlsConfig
    from seatkeeper.core.errors import InvalidArgument

    if (cert is None) != (key is None):
        fail(Exit.USAGE, "--tls-cert and --tls-key go together: give both or neither")
    if not (ca or cert):
        return None
    try:
        return TlsConfig(ca=ca, cert=cert, key=key, server_name=server_name or None)
    except InvalidArgument as error:
        _fail_by_its_flag(error)


def _fail_by_its_flag(error: InvalidArgument) -> NoReturn:
    """End the command: name the option where the library names an argument."""
    if (flag := FLAG_OF.get(error.field)) is None:
        raise error
    fail(Exit.USAGE, f"{flag}{str(error).removeprefix(error.field)}")


@dataclass(frozen=True, kw_only=True)
class Claimant(Connection):
    """The same for commands that take seats: also who holds, and who is charged."""

    project: Annotated[
        str,
        typer.Option(
            envvar=variables.PROJECT, metavar="NAME", help="Who is charged for the seat."
        ),
    ] = field(default="default")
    holder: Annotated[
        str,
        typer.Option(
            envvar=variables.HOLDER,
            metavar="NAME",
            help="Who holds it. [default: user@host]",
        ),
    ] = ""
    program: Annotated[
        str | None,
        typer.Option(
            envvar="SEATKEEPER_PROGRAM",
            metavar="NAME",
            help="What `status` shows as the program, beside host and process; `-`: nothing of "
            "the three is told. [default: the command's name, without arguments]",
            show_default=False,
        ),
    ] = None

    def claiming_client(
        self,
        command: str = "",
        *,
        ttl: timedelta | None = None,
        safety_margin: timedelta = timedelta(seconds=1),
    ) -> AsyncSeatClient:
        """Return a client that holds and is charged as the options say.

        ``command`` is what the seat is for, if it is another program than this one.
        """
        program = "" if self.program == "-" else self.program
        if program is None and command:
            # The name alone: arguments and folders are nobody else's business.
            program = os.path.basename(command.rstrip("/"))
        return self.client(
            project=self.project,
            holder=self.holder or None,
            ttl=ttl,
            safety_margin=safety_margin,
            program=program,
        )


def connected(
    command: Callable[Concatenate[Connection, P], Coroutine[Any, Any, None] | None],
) -> Callable[..., None]:
    """Make ``command`` one of the command line, with the options of `Connection` after its own."""
    return with_options(Connection, command)


def claiming(
    command: Callable[Concatenate[Claimant, P], Coroutine[Any, Any, None] | None],
) -> Callable[..., None]:
    """Make ``command`` one of the command line, with the options of `Claimant` after its own."""
    return with_options(Claimant, command)


def with_options(options: type[Any], command: Callable[..., Any]) -> Callable[..., None]:
    """Make ``command`` one of the command line: it gets ``options``, each field of which is one."""
    shared = inspect.signature(options, eval_str=True).parameters
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    @functools.wraps(command)
    def parsed(**arguments: Any) -> None:  # noqa: ANN401
        given = options(**{name: arguments.pop(name) for name in shared})
        if isinstance(given, Connection):
            _hush_grpc()
        try:
            result = command(given, **arguments)
            if inspect.iscoroutine(result):
                run_to_end(result, holds=issubclass(options, Claimant))
        except Exception as error:
            if (explained := _explained(given, error)) is error:
                raise
            raise explained from error

    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in (*own, *shared.values())
    ]
    parsed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    parsed.__annotations__ = {each.name: each.annotation for each in parameters}
    return parsed


def _hush_grpc() -> None:
    """Have gRPC's C core write nothing, unless the user asked it to: we say what went wrong, once.

    It looks at its variable when it is loaded, and then no more. It is taken away again, since what
    `run` starts must not inherit it.
    """
    if GRPC_VERBOSITY in os.environ or "grpc" in sys.modules:
        return
    os.environ[GRPC_VERBOSITY] = "NONE"
    try:
        import grpc  # noqa: F401
    finally:
        del os.environ[GRPC_VERBOSITY]


def _explained(given: object, error: Exception) -> Exception:
    from seatkeeper.core.errors import ServiceUnavailable

    if isinstance(given, Connection) and isinstance(error, ServiceUnavailable):
        return given.explained(error)
    return error


def run_to_end(main: Coroutine[Any, Any, None], *, holds: bool = False) -> None:
    """Run ``main``. A signal that is to end us cancels it, so that it gives back what it holds.

    Then we die of that signal; where ``main`` ``holds`` something, we say what became of that. A
    second signal does not wait. One that was ignored when we were started (``nohup``, background
    jobs of ``sh``) stays ignored.
    """
    ended_by: list[int] = []
    before: dict[int, Any] = {}

    async def guarded() -> None:
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        assert task is not None

        def end(number: int, _frame: object) -> None:
            ended_by.append(number)
            if len(ended_by) > 1 or loop.is_closed():
                # Also where the loop does not come to its tasks.
                raise EndedBySignal(number)
            loop.call_soon_threadsafe(task.cancel)

        for number in caught(*PERSON):
            before[number] = signal.signal(number, end)
        await main

    try:
        asyncio.run(guarded())
    except (asyncio.CancelledError, Exception):
        if not ended_by:
            raise
    finally:
        for number, handler in before.items():
            # asyncio has one for Ctrl-C, and would have put back Python's.
            was = signal.default_int_handler if number == signal.SIGINT else handler
            signal.signal(number, was)
    if ended_by:
        if holds:
            say_interrupted(ended_by[0], "what was held or asked for is given back")
        raise EndedBySignal(ended_by[0])
