"""What the commands that call a node share: their options, and the client that these make."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from seatkeeper.cli.exits import Exit, fail, fail_in_json
from seatkeeper.cli.limits import check_descriptors
from seatkeeper.core import environment as variables

if TYPE_CHECKING:
    from seatkeeper.client import AsyncSeatClient, TlsConfig
    from seatkeeper.client.session.grants import PlainTerms
    from seatkeeper.core.errors import InvalidArgument, ServiceUnavailable

TIME_LIMIT_SECONDS = 10.0
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
        help="CA of the nodes' certificates, PEM; turns TLS on.",
    ),
]
TlsCert = Annotated[
    Path | None,
    typer.Option(
        envvar=variables.TLS_CERT,
        metavar="FILE",
        help="Client certificate, PEM, for mutual TLS.",
    ),
]
TlsKey = Annotated[
    Path | None,
    typer.Option(envvar=variables.TLS_KEY, metavar="FILE", help="Key of our certificate, PEM."),
]


Wait = Annotated[
    float | None,
    typer.Option(
        "--wait",
        metavar="SECONDS",
        min=0,
        max=7 * 24 * 3600,
        help="Longest wait for a seat, at most 7 days; 0: do not wait. [default: no limit]",
    ),
]

Priority = Annotated[
    int,
    typer.Option(
        "--priority",
        metavar="N",
        min=-1000,
        max=1000,
        help="From -1000 to 1000; higher is served earlier. Within one priority, first come "
        "first served.",
    ),
]


def _check_labels(labels: list[str] | None) -> list[str] | None:
    keys = [text.partition("=")[0] for text in labels or ()]
    for key, text in zip(keys, labels or (), strict=True):
        if "=" not in text or keys.count(key) > 1:
            raise typer.BadParameter(f"{text!r}: write KEY=VALUE, each key once")
    return labels


Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="KEY=VALUE",
        callback=_check_labels,
        help="Shown with the seat in `status`, tokens and logs; may be repeated, at most 16.",
    ),
]


CostClass = Annotated[
    str,
    typer.Option(
        "--as",
        metavar="CLASS",
        help="Class of the pool's costs, as `pool show` lists them: a seat counts as that many. "
        "[default: that of requests without one]",
        show_default=False,
    ),
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
            help="Seconds to wait for a silent service; at most a day. [default: 10, "
            "and 1 if it refuses the connection]",
            show_default=False,
        ),
    ] = None
    json: Json = False

    @property
    def time_limit(self) -> float:
        """How many seconds a silent service is waited for."""
        return TIME_LIMIT_SECONDS if self.timeout is None else self.timeout

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
        timeout = timedelta(seconds=self.time_limit)
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
                # A command is a process of its own, and runs no code of users.
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
            envvar=variables.PROJECT, metavar="NAME", help="What the seat is charged to."
        ),
    ] = field(default="default")
    holder: Annotated[
        str,
        typer.Option(
            envvar=variables.HOLDER,
            metavar="NAME",
            help="Name of the holder. [default: user@host]",
        ),
    ] = ""
    program: Annotated[
        str | None,
        typer.Option(
            envvar="SEATKEEPER_PROGRAM",
            metavar="NAME",
            help="Program name in `status`, beside host and process id; `-`: send none of the "
            "three. [default: the command's name, without arguments]",
            show_default=False,
        ),
    ] = None
    wait: Wait = None
    priority: Priority = 0
    label: Labels = None
    as_: CostClass = ""

    def terms(self) -> PlainTerms:
        """Return what the options say of the request for a seat, for the library."""
        labels = dict(text.split("=", 1) for text in self.label or ())
        said: PlainTerms = {"wait": self.wait, "priority": self.priority, "labels": labels}
        return {**said, "cost_class": self.as_} if self.as_ else said

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
            # The name alone: arguments and folders stay private.
            program = os.path.basename(command.rstrip("/"))
        return self.client(
            project=self.project,
            holder=self.holder or None,
            ttl=ttl,
            safety_margin=safety_margin,
            program=program,
        )
