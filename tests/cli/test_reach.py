"""A service that cannot be reached: reported at once where that is certain, with the reason."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.cli.commands import address_of, in_process, seatkeeper, serving, started
from tests.client.certificates import Authority
from tests.ports import HeldPort, closed_address

from seatkeeper.cli.connection import Connection
from seatkeeper.cli.exits import Exit
from seatkeeper.client.transport import reach
from seatkeeper.core.errors import ServiceUnavailable


def test_commands_say_so_and_nothing_is_taken() -> None:
    address = closed_address()
    for command in (["status"], ["pool", "list"], ["run", "--", "true"]):
        said = seatkeeper(*command, environ={"SEATKEEPER_NODES": address})
        assert f"connection refused at {address}" in said.refused(Exit.UNAVAILABLE)


def test_commands_name_their_own_options(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("node")
    ca = authority.ca
    flags = ("--tls-cert-file", str(cert), "--tls-key-file", str(key))
    asking = ("--tls-client-ca-file", str(ca))
    with (
        serving(tmp_path / "tls", *flags) as tls,
        serving(tmp_path / "mutual", *flags, *asking) as mutual,
    ):
        of_tls, of_mutual = map(address_of, (tls, mutual))
        status = ("status", "--timeout", "2")
        said = seatkeeper(*status, "--tls-ca", str(ca), environ={"SEATKEEPER_NODES": of_mutual})
        assert "--tls-cert and --tls-key" in said.refused(Exit.UNAVAILABLE)
        run = ("run", "--timeout", "2", "--", "true")
        said = seatkeeper(*run, environ={"SEATKEEPER_NODES": of_tls})
        refused = said.refused(Exit.UNAVAILABLE)
        assert "--tls-ca" in refused
        assert "seatkeeper dev" not in refused


def test_a_timeout_that_the_user_gave_is_for_nodes_that_refuse_as_well(tmp_path: Path) -> None:
    held = HeldPort()
    address = held.address
    with pytest.raises(ServiceUnavailable):
        Connection(nodes=address).client()
    waiting = ("pool", "list", "--timeout", "120")
    with started(*waiting, folder=tmp_path, SEATKEEPER_NODES=address) as one:
        time.sleep(4 * reach.REFUSED_SECONDS)
        held.let_go()
        with serving(tmp_path / "node", "--listen", address):
            one.ends(within=120.0).check()  # it may pause for half a minute between two tries


def test_grpc_adds_nothing_to_what_is_said_and_is_hushed_for_us_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    authority = Authority(tmp_path)
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    cert, key = authority.issue("node")
    flags = ("--tls-cert-file", str(cert), "--tls-key-file", str(key))
    with serving(tmp_path / "tls", *flags) as tls:
        at = {"SEATKEEPER_NODES": address_of(tls)}
        asked = ("status", "--timeout", "3", "--tls-ca", str(other.ca))
        said = seatkeeper(*asked, environ=at).refused(Exit.UNAVAILABLE)
        assert "is not the one in --tls-ca" in said
    with serving(tmp_path / "plain") as plain:
        at = {"SEATKEEPER_NODES": address_of(plain)}
        in_process("pool", "create", "p", "--seats", "1", environ=at).check()
        shown = seatkeeper("run", "--pool", "p", "--", "env", environ=at).check()
        assert "GRPC_VERBOSITY" not in shown.out
