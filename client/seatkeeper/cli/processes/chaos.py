"""``seatkeeper chaos``: try a test deployment with faults, and check what it did."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seatkeeper.cli.command import with_options
from seatkeeper.cli.connection import Json, TlsCa, TlsCert, TlsKey, tls_of
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.files import outputs_at
from seatkeeper.cli.processes.common import SERVER_NEEDS, installed
from seatkeeper.cli.render import show, table, words, write_json
from seatkeeper.core.amounts import count
from seatkeeper.core.environment import DEFAULT_NODES
from seatkeeper.core.extras import explain

if TYPE_CHECKING:
    from seatkeeper.chaos.result import Outcome
    from seatkeeper.chaos.scenario import Scenario
    from seatkeeper.chaos.target import TargetConfig
    from seatkeeper.client import TlsConfig
    from seatkeeper.client.builds.output import Output
    from seatkeeper.server.store.etcd import EtcdStore

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Try a test deployment with faults, and check what it did.",
)
REPORT = "report.md"
PICTURE = "report.svg"


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """Where a deployment and its etcd are: each field is an option."""

    target: Annotated[
        str,
        typer.Option(
            envvar="SEATKEEPER_NODES",
            metavar="HOST:PORT,...",
            help="Nodes of a test deployment. Each gets a relay of ours in front of it.",
        ),
    ] = DEFAULT_NODES
    tls_ca: TlsCa = None
    tls_cert: TlsCert = None
    tls_key: TlsKey = None
    tls_name: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Name in all nodes' certificates, since the relays have other addresses.",
        ),
    ] = ""
    etcd_endpoints: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT,...",
            help="The deployment's etcd, to check its whole history; it is only read. Without "
            "it, only what users observed and believed is checked.",
        ),
    ] = ""
    etcd_prefix: Annotated[
        str, typer.Option(help="Prefix of the deployment's keys in etcd.")
    ] = "seatkeeper"
    etcd_ca_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CA of etcd's certificates.")
    ] = None
    etcd_cert_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate for etcd.")
    ] = None
    etcd_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Key of that certificate.")
    ] = None
    etcd_username: Annotated[str, typer.Option(help="User name for etcd.")] = ""
    etcd_password_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with the password, in its first line."),
    ] = None
    json: Json = False

    @property
    def nodes(self) -> tuple[str, ...]:
        """Where the nodes are. An option that is wrong ends the command."""
        from seatkeeper.client.transport.nodes import parse_addresses
        from seatkeeper.core.errors import InvalidArgument

        try:
            return parse_addresses(self.target)
        except InvalidArgument as error:
            reported = str(error).removeprefix(error.field)
            fail(Exit.USAGE, f"--target or SEATKEEPER_NODES{reported}")

    def tls(self) -> TlsConfig | None:
        """Return how to speak to the nodes. An option that is wrong ends the command."""
        return tls_of(self.tls_ca, self.tls_cert, self.tls_key, server_name=self.tls_name)

    def store(self) -> EtcdStore | None:
        """Return the deployment's etcd, where given. An option that is wrong ends the command."""
        from seatkeeper.core.serving.settings import check_endpoints
        from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore

        if not self.etcd_endpoints:
            given = (self.etcd_ca_file, self.etcd_cert_file, self.etcd_key_file)
            if any(given) or self.etcd_username or self.etcd_password_file:
                fail(
                    Exit.USAGE,
                    "--etcd-endpoints: say where the etcd is that the others are for",
                )
            return None
        self._check_etcd_files()
        try:
            password = ""
            if self.etcd_password_file is not None:
                password = self.etcd_password_file.read_text().partition("\n")[0]
        except UnicodeDecodeError:
            fail(Exit.USAGE, f"--etcd-password-file {self.etcd_password_file}: it is no text")
        try:
            config = EtcdConfig(
                endpoints=tuple(check_endpoints(self.etcd_endpoints).split(",")),
                ca_file=self.etcd_ca_file,
                cert_file=self.etcd_cert_file,
                key_file=self.etcd_key_file,
                username=self.etcd_username,
                password=password,
            )
        except ValueError as error:
            reported = str(error).removeprefix("endpoints: ")
            flag = "" if reported.startswith(("ca_", "cert_")) else "endpoints: "
            fail(Exit.USAGE, f"--etcd-{flag}{reported}")
        return EtcdStore(config)

    def _check_etcd_files(self) -> None:
        if (self.etcd_cert_file is None) != (self.etcd_key_file is None):
            fail(
                Exit.USAGE,
                "--etcd-cert-file and --etcd-key-file go together: give both or neither",
            )
        for flag, file in (
            ("--etcd-ca-file", self.etcd_ca_file),
            ("--etcd-cert-file", self.etcd_cert_file),
            ("--etcd-key-file", self.etcd_key_file),
            ("--etcd-password-file", self.etcd_password_file),
        ):
            if file is not None and not (file.is_file() and os.access(file, os.R_OK)):
                fail(Exit.USAGE, f"{flag} must be a readable file: {file}")


@app.command(
    "list",
    epilog=examples("seatkeeper chaos list", "seatkeeper chaos list --json"),
)
def list_(json: Json = False) -> None:
    """List the scenarios that `run` knows, and the faults that one of your own can use."""
    _need_server()
    from seatkeeper.chaos.faults import Network, Users, described
    from seatkeeper.chaos.library import read_folder

    scenarios, faults = read_folder(), described(Network, Users)
    if json:
        reported = {name: scenario.sentence for name, scenario in scenarios.items()}
        write_json({"scenarios": reported, "faults": faults})
        return
    rows = [
        (name, f"{scenario.seconds:.0f} s", scenario.sentence)
        for name, scenario in scenarios.items()
    ]
    show(table(("scenario", "takes", "what happens"), rows), words(""))
    show(table(("fault", "what it does"), list(faults.items())))


def _deployed(command: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    return with_options(Deployment, command)


@app.command(
    epilog=examples(
        "seatkeeper chaos run --target seats-1:7420,seats-2:7420 --etcd-endpoints etcd-1:2379",
        "seatkeeper chaos run --scenario users-die --scenario my-own.txt --report out/",
    )
)
@_deployed
async def run(
    at: Deployment,
    *,
    scenario: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Scenario to run; may be repeated. [default: all of `chaos list`]",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help=f"Write {REPORT}, and {PICTURE}, into this folder."
        ),
    ] = None,
    seats: Annotated[int, typer.Option(min=1, help="Seats in each of the two test pools.")] = 4,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes of users.")] = 3,
    users: Annotated[int, typer.Option(min=1, max=1000, help="Users in each process.")] = 8,
    rate_min: Annotated[
        float,
        typer.Option(
            min=0.0, help="Answers a second before a fault, below which it proves nothing."
        ),
    ] = 10.0,
    seed: Annotated[
        int, typer.Option(help="Random seed of users and faults; times depend on the machine.")
    ] = 0,
) -> None:
    """Run scenarios against a test deployment, and check what it did.

    Test users work on test pools (`chaos-...`, deleted afterwards), through relays. Faults are injected
    into the relays and the users. Nothing else of the deployment is touched, but it bears the load: do
    not run this against a deployment in use.

    The exit code is 0 if every promise was kept, 1 if one was broken or a scenario was inconclusive,
    and 69 if the deployment or its etcd did not answer.
    """
    _need_server()
    from seatkeeper.chaos.target import TargetConfig

    chosen = _chosen(scenario)
    places = {} if report is None else _check_report(report, json=at.json)
    config = TargetConfig(
        nodes=at.nodes,
        tls=at.tls(),
        workers=workers,
        users=users,
        seats=seats,
        rate_min=rate_min,
        seed=seed,
    )
    outcome = await _tried(at, config, chosen)
    _conclude(outcome, places, json=at.json)


async def _tried(at: Deployment, config: TargetConfig, chosen: list[Scenario]) -> Outcome:
    from seatkeeper.chaos.target import trial_of
    from seatkeeper.chaos.worker_pool import WorkerPoolError
    from seatkeeper.core.errors import SeatError, UsageError
    from seatkeeper.server.store import StoreError, StoreRefused

    def notify(text: str) -> None:
        if not at.json:
            show(words(text))

    store = at.store()
    try:
        with tempfile.TemporaryDirectory(prefix="seatkeeper-chaos-") as folder:
            prefix = at.etcd_prefix
            async with trial_of(config, store, prefix, Path(folder), notify=notify) as trial:
                try:
                    await trial.run(chosen)
                    await trial.conclude()
                except asyncio.CancelledError:
                    notify(
                        "stopping: our pools are deleted once the seats of killed users are free"
                    )
                    raise
                return trial.outcome
    except UsageError as error:
        fail(Exit.USAGE, f"{at.target}: {error}")
    except SeatError as error:
        fail(Exit.UNAVAILABLE, f"{at.target}: {error}")
    except StoreRefused as error:
        fail(Exit.USAGE, f"etcd at {at.etcd_endpoints}: {error}")
    except StoreError as error:
        fail(Exit.UNAVAILABLE, f"etcd at {at.etcd_endpoints}: {error}")
    except WorkerPoolError as error:
        fail(Exit.FAILED, str(error))
    finally:
        if store is not None:
            await store.close()


def _conclude(outcome: Outcome, report: Mapping[str, Output], *, json: bool) -> None:
    from seatkeeper.chaos.report import summary

    if report:
        _write_report(report, outcome)
    reported = summary(outcome)
    if json:
        write_json(reported)
    else:
        show(
            words(
                f"{reported['acknowledged']} answers checked, {reported['faults']} faults, "
                f"{count(outcome.violations, 'violation')}; checked against {outcome.checked_by}"
            )
        )
    if outcome.violations or outcome.inconclusive:
        raise SystemExit(int(Exit.FAILED))


def _write_report(report: Mapping[str, Output], outcome: Outcome) -> None:
    from seatkeeper.chaos.report import ReportError, markdown, picture

    drawn = ""
    with suppress(ReportError):
        report[PICTURE].write(picture(outcome).encode())
        drawn = PICTURE
    report[REPORT].write(markdown(outcome, picture_file=drawn).encode())


def _check_report(folder: Path, *, json: bool) -> dict[str, Output]:
    """Find out before the run, not after it, that its report cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(Exit.USAGE, f"--report {folder}: {error.strerror}")
    files = {f"--report: {name}": folder / name for name in (REPORT, PICTURE)}
    found = outputs_at(files, inputs={}, as_json=False)
    if not json and not installed("matplotlib"):
        show(words(f"the report will have no picture: {explain('it', 'chaos')}"))
    return dict(zip((REPORT, PICTURE), found.values(), strict=True))


def _chosen(names: list[str] | None) -> list[Scenario]:
    from seatkeeper.chaos.faults import Network, Users, described
    from seatkeeper.chaos.library import find, read_folder
    from seatkeeper.chaos.scenario import ScenarioError
    from seatkeeper.chaos.trial import check_faults

    known: Mapping[str, Scenario] = read_folder()
    faults = described(Network, Users)
    try:
        chosen = [find(name, known) for name in names or known]
        for scenario in chosen:
            check_faults(scenario, faults)
    except ScenarioError as error:
        fail(Exit.USAGE, f"--scenario: {error}")
    return chosen


def _need_server() -> None:
    if not installed(*SERVER_NEEDS, "seatkeeper.chaos"):
        fail(Exit.CONFIG, explain("this command", "server"))
