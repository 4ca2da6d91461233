"""The contract suite: ``python -m tests.conformance server|client ...``. See README.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc
from tests.conformance.client_runner import run_clients
from tests.conformance.script import SIDES, Result, scripts
from tests.conformance.server_runner import Target, run_scripts, unreachable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return the exit code: 0 passed, 1 a script failed, 2 it was called wrongly."""
    options = _parser().parse_args(arguments)
    chosen = list(scripts(options.side, options.script))
    if not chosen:
        print(f"no script has {options.script!r} in its name", file=sys.stderr)
        return 2
    if options.list:
        for script in chosen:
            print(f"{script.name}: {script.title}")
        return 0
    if options.side == "server":
        files = (options.tls_ca, options.tls_key, options.tls_cert)
        if any(files) and not files[0]:
            print("--tls-cert and --tls-key need --tls-ca", file=sys.stderr)
            return 2
        if bool(files[1]) != bool(files[2]):
            print("--tls-cert and --tls-key go together", file=sys.stderr)
            return 2
        target = Target(tuple(options.target.split(",")), credentials=_credentials(*files))
        for address in asyncio.run(unreachable(target)):
            print(f"{address} cannot be reached: is it running, and with TLS?", file=sys.stderr)
            return 2
        results = asyncio.run(run_scripts(target, chosen, at_once=options.at_once))
    else:
        command = shlex.split(options.driver)
        results = asyncio.run(run_clients(command, chosen, at_once=options.at_once))
    return _notify(results, options.json == "-")


def _credentials(*files: str | None) -> grpc.ChannelCredentials | None:
    """Return what to connect with, by the files of CA, key and certificate; None: plain text."""
    if not any(files):
        return None
    ca, key, cert = (Path(file).read_bytes() if file else None for file in files)
    return grpc.ssl_channel_credentials(ca, key, cert)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    sides = parser.add_subparsers(dest="side", required=True)
    for side in SIDES:
        sub = sides.add_parser(side, help=f"run the scripts for a {side}")
        sub.add_argument("--script", default="", help="those with this in their name")
        sub.add_argument("--list", action="store_true", help="list the scripts; run none")
        sub.add_argument("--json", choices=["-"], help="a JSON object for each script")
        sub.add_argument("--at-once", type=int, default=12 if side == "server" else 4)
        if side == "server":
            sub.add_argument("--target", default="127.0.0.1:7420", help="host:port[,host:port]")
            sub.add_argument("--tls-ca", help="file with the CA of the server's certificate")
            sub.add_argument("--tls-cert", help="file with a certificate of an administrator")
            sub.add_argument("--tls-key", help="file with that certificate's key")
        else:
            sub.add_argument(
                "--driver",
                default=f"{shlex.quote(sys.executable)} -m tests.conformance.python_driver",
                help="command that drives the client under test",
            )
    return parser


def _notify(results: Sequence[Result], as_json: bool) -> int:
    for result in results:
        print(json.dumps(result.record()) if as_json else result.line())
    skipped = sum(bool(result.skipped) for result in results)
    failed = sum(not result.ok for result in results)
    passed = len(results) - skipped - failed
    summary = {"scripts": len(results), "passed": passed, "failed": failed, "skipped": skipped}
    print(json.dumps(summary))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
