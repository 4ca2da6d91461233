"""A node and an agent as their operator meets them: signals, settings read again, logs, health."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tests import processes
from tests.cli.commands import (
    Result,
    Running,
    address_of,
    eventually,
    in_process,
    seatkeeper,
    serving,
)
from tests.client.certificates import Authority

from seatkeeper.client import SeatClient
from seatkeeper.core.ids import new_id
from seatkeeper.core.serving.signals import DRAIN
from seatkeeper.v1 import seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb


def events(running: Running) -> list[dict[str, Any]]:
    """The lines of the log so far, each of which must be an object."""
    *lines, _ = running.err.split("\n")
    return [json.loads(line) for line in lines]


def named(running: Running, event: str) -> list[dict[str, Any]]:
    return [each for each in events(running) if each["event"] == event]


free_port = processes.free_port


def works(running: Running, *options: str, **more: str) -> Result:
    """Ask the node something."""
    environ = {"SEATKEEPER_NODES": address_of(running)} | more
    return in_process("pool", "list", *options, environ=environ)


def test_hup_reads_settings_again(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text('log_level = "info"\n')
    with serving(tmp_path, "--config", str(config)) as node:
        config.write_text('log_level = "debug"\nqueue_max = 7\n')
        node.send(signal.SIGHUP)
        node.says('"reloaded"')
        assert named(node, "reloaded")[-1]["changed"] == ["log_level"]
        assert named(node, "reload_needs_restart")[-1]["settings"] == ["queue_max"]
        works(node).check()
        for wrong in ('log_level = "loud"\n', "no toml", 'no_such = "setting"\n'):
            config.write_text(wrong)
            before = len(named(node, "reload_failed"))
            node.send(signal.SIGHUP)
            node.says('"reload_failed"', times=before + 1)
        config.unlink()
        node.send(signal.SIGHUP)
        node.says('"reload_failed"', times=4)
        assert all(str(config) in e["error"] for e in named(node, "reload_failed")[1::2])
        works(node).check()
        node.send(signal.SIGTERM)
        node.ends().check()


def test_who_may_administer_is_read_again(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("node")
    client_cert, client_key = authority.issue("ops")
    config = tmp_path / "node.toml"
    config.write_text("")
    tls = ("--tls-cert-file", str(cert), "--tls-key-file", str(key))
    flags = (*tls, "--tls-client-ca-file", str(authority.ca), "--config", str(config))
    mine = {
        "SEATKEEPER_TLS_CA": str(authority.ca),
        "SEATKEEPER_TLS_CERT": str(client_cert),
        "SEATKEEPER_TLS_KEY": str(client_key),
    }
    with serving(tmp_path, *flags) as node:
        environ = {"SEATKEEPER_NODES": address_of(node)} | mine
        create = ("pool", "create", "p", "--seats", "1")
        assert seatkeeper(*create, environ=environ).code != 0
        config.write_text('administrators = "ops"\n')
        node.send(signal.SIGHUP)
        node.says('"reloaded"')
        seatkeeper(*create, environ=environ).check()


def test_hup_reads_certificates_again_and_keeps_the_old_ones_when_the_new_are_bad(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("node")
    flags = ("--tls-cert-file", str(cert), "--tls-key-file", str(key))
    with serving(tmp_path, *flags) as node:
        first = served(node)
        fresh, fresh_key = authority.issue("renewed")
        cert.write_bytes(fresh.read_bytes())
        node.send(signal.SIGHUP)  # the key is that of the old one still
        node.says('"reload_failed"')
        assert str(key) in named(node, "reload_failed")[-1]["error"]
        assert served(node) == first
        key.write_bytes(fresh_key.read_bytes())
        node.send(signal.SIGHUP)
        node.says('"reloaded"')
        eventually(lambda: served(node) != first, "the new certificate")
        works(node, SEATKEEPER_TLS_CA=str(authority.ca)).check()


def served(node: Running) -> str:
    """The certificate that the node shows to a new connection."""
    host, _, port = address_of(node).rpartition(":")
    return ssl.get_server_certificate((host, int(port)), timeout=20)


HARMLESS = (
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF),
    *(signal.SIGIO, signal.SIGPWR, signal.SIGSTKFLT, signal.SIGPIPE, signal.SIGXFSZ),
    *(signal.SIGRTMIN, signal.SIGRTMIN + 3, signal.SIGRTMAX),
)


def test_no_other_signal_ends_a_node(tmp_path: Path) -> None:
    with serving(tmp_path) as node:
        for number in HARMLESS:
            os.kill(node.process.pid, number)
        node.says('"signal_ignored"', times=len(HARMLESS) - 2)
        works(node).check()
        node.send(signal.SIGTERM)
        node.ends().check()


@pytest.mark.parametrize("number", sorted(DRAIN), ids=lambda number: number.name)
def test_what_ends_a_node_drains_it(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path) as node:
        node.send(number)
        node.ends().check()
        assert [e["signal"] for e in named(node, "signal_received")] == [number.name]
        assert named(node, "drain_started")
        assert named(node, "drain_finished")


HUP_WHILE_IMPORTING = """
import os, signal, sys

class Hangup:
    def find_spec(self, name, path=None, target=None):
        if name == "seatkeeper.cli.app":
            os.kill(os.getpid(), signal.SIGHUP)

sys.meta_path.insert(0, Hangup())
import seatkeeper.cli
seatkeeper.cli.main()
"""
HUP_BEFORE_ANYBODY_LISTENS = """
import asyncio, os, signal
from seatkeeper.core.serving.signals import Signals, shield

async def main():
    Signals().ready(lambda: print("reloaded"))

shield()
os.kill(os.getpid(), signal.SIGHUP)
asyncio.run(main())
"""


DRAINED = """
import asyncio, os, signal
from seatkeeper.core.serving.signals import DRAIN, RELOAD, Signals

async def main():
    Signals().done()

asyncio.run(main())
for number in (*DRAIN, RELOAD, signal.SIGUSR1, signal.SIGALRM):
    os.kill(os.getpid(), number)
"""


def test_no_signal_ends_a_server_that_has_drained_and_is_about_to_exit() -> None:
    assert subprocess.run([sys.executable, "-c", DRAINED]).returncode == 0


@pytest.mark.parametrize("command", ["serve", "agent"])
def test_hup_does_not_end_a_server_that_is_being_imported(command: str) -> None:
    program = [sys.executable, "-c", HUP_WHILE_IMPORTING, command, "--help"]
    assert subprocess.run(program, capture_output=True).returncode == 0


def test_hup_between_reading_settings_and_serving_is_not_forgotten() -> None:
    program = [sys.executable, "-c", HUP_BEFORE_ANYBODY_LISTENS]
    assert subprocess.run(program, capture_output=True, check=True).stdout == b"reloaded\n"


def test_a_node_under_nohup_survives_its_terminal_and_reloads(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with serving(tmp_path) as node:
            node.send(signal.SIGHUP)
            node.says('"reloaded"')
            works(node).check()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_every_line_of_a_log_is_an_object_from_every_caller(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("node")
    flags = ("--tls-cert-file", str(cert), "--tls-key-file", str(key), "--log-level", "debug")
    with serving(tmp_path, *flags) as node:
        host, _, port = address_of(node).rpartition(":")
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\n\n{}\n"):
            with socket.create_connection((host, int(port))) as stranger:
                stranger.sendall(garbage)
                stranger.settimeout(20)
                try:
                    while stranger.recv(1024):
                        pass
                except OSError:
                    pass
        assert works(node).code != 0  # plain text to a port of TLS
        works(node, SEATKEEPER_TLS_CA=str(authority.ca)).check()
        node.says('"grpc_core"')
        node.send(signal.SIGTERM)
        node.ends().check()
        assert {"event", "level", "timestamp"} <= events(node)[-1].keys()


def test_a_start_that_fails_is_reported_in_the_form_of_the_log(tmp_path: Path) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{taken.getsockname()[1]}"
    command = ("serve", "--store", "memory", "--listen", "127.0.0.1:0")
    refused = seatkeeper(*command, "--metrics-listen", address).check(78)
    failed = json.loads(refused.err.splitlines()[-1])
    assert (failed["event"], failed["exit_code"], failed["level"]) == ("failed", 78, "error")
    assert address in failed["error"]
    text = seatkeeper(*command, "--metrics-listen", address, "--log-format", "text").check(78)
    assert text.err.splitlines()[-1].startswith("seatkeeper: cannot serve metrics")
    taken.close()


def test_what_happens_to_seats_is_in_the_log(tmp_path: Path) -> None:
    with serving(tmp_path, "--log-level", "debug", "--session-ttl", "2") as node:
        environ = {"SEATKEEPER_NODES": address_of(node)}

        def run(*command: str) -> Result:
            return seatkeeper(*command, environ=environ)

        run("pool", "create", "p", "--seats", "1").check()
        holder = ("--holder", 'eve\\n{"event": "fake"}', "--project", "cv")
        run("run", "--pool", "p", *holder, "--", "true").check()
        run("run", "--pool", "nowhere", "--", "true")
        run("run", "--pool", "p", "--seats", "2", "--", "true")
        with SeatClient(address_of(node)) as client, client.seat("p"):
            run("run", "--pool", "p", "--wait", "0.2", "--", "true").check(75)
        run("pool", "update", "p", "--seats", "2").check()
        take_forever(node)
        node.says('"expired"')
        run("pool", "delete", "p").check()
        granted, *_ = named(node, "granted")
        released, *_ = named(node, "released")
        for seen in (granted, released):
            assert (seen["pool"], seen["project"], seen["fence"]) == ("p", "cv", 1)
            assert seen["request_id"] == granted["grant_id"]
            assert seen["holder"] == holder[1]
            assert seen["peer"].startswith("ipv4:127.0.0.1:")
        reasons = [event["reason"] for event in named(node, "denied")]
        assert reasons == ["POOL_NOT_FOUND", "TOO_MANY_SEATS"]
        (gave_up,) = named(node, "gave_up")
        assert gave_up["pool"] == "p"
        for event in ("pool_created", "pool_updated", "pool_deleted"):
            (act,) = named(node, event)
            assert act["request_id"]
            assert act["peer"]
        (expired,) = named(node, "expired")
        assert (expired["holder"], expired["fence"]) == ("gone", 3)
        assert {"session_opened", "session_closed"} <= {e["event"] for e in events(node)}


def take_forever(node: Running) -> None:
    """Take the seat for a client that never returns."""
    credentials = pb.SessionCredentials(session_id=new_id(), secret=b"s" * 16)
    with SeatClient(address_of(node)) as client:
        client.seats.open_session(credentials, holder="gone")
        client.seats.acquire(
            credentials, seat_pb2.Acquire(pool="p", grant_id=new_id(), seats=1)
        )


def test_at_the_usual_level_single_seats_are_not_logged(tmp_path: Path) -> None:
    with serving(tmp_path) as node:
        environ = {"SEATKEEPER_NODES": address_of(node)}
        in_process("pool", "create", "p", "--seats", "1", environ=environ).check()
        seatkeeper("run", "--pool", "p", "--", "true", environ=environ).check()
        node.send(signal.SIGTERM)
        node.ends().check()
        assert not named(node, "granted")
        assert named(node, "pool_created")


def test_a_draining_node_is_healthy_and_not_ready(tmp_path: Path) -> None:
    port = free_port()
    flags = ("--metrics-listen", f"127.0.0.1:{port}", "--drain-delay", "5")

    def status(path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    with serving(tmp_path, *flags) as node:
        assert [status(path) for path in ("/healthz", "/readyz", "/nope")] == [200, 200, 404]
        node.send(signal.SIGTERM)
        node.says('"drain_started"')
        eventually(lambda: status("/readyz") == 503, "not ready")
        assert status("/healthz") == 200
        assert status("/metrics") == 200
