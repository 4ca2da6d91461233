"""A client that is made as the environment says, as the command line is."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.client.certificates import Authority

from seatkeeper.cli import connection
from seatkeeper.client import AsyncSeatClient, InvalidArgument, SeatClient, TlsConfig
from seatkeeper.client.config.from_environment import ClientArguments
from seatkeeper.core.environment import DEFAULT_NODES, VARIABLES
from seatkeeper.testing.service import InMemoryService

Make = Callable[..., Any]


def aio(**arguments: Any) -> AsyncSeatClient:
    return AsyncSeatClient.from_env(**arguments)


def sync(**arguments: Any) -> AsyncSeatClient:
    client = SeatClient.from_env(**arguments)
    client.close()
    return client._async


BOTH = pytest.mark.parametrize("make", [aio, sync])


@BOTH
def test_without_any_variable_it_is_the_command_lines_default(make: Make) -> None:
    client = make(env={})
    assert client._nodes.addresses == (DEFAULT_NODES,)
    assert client._session._tls is None


@BOTH
def test_the_variables_say_where_who_and_for_whom(make: Make) -> None:
    env = {
        "SEATKEEPER_NODES": "seats-1:7420, seats-2:7420",
        "SEATKEEPER_HOLDER": "ci",
        "SEATKEEPER_PROJECT": "cv",
    }
    client = make(env=env)
    assert sorted(client._nodes.addresses) == ["seats-1:7420", "seats-2:7420"]
    assert (client._session.account.holder, client._session.account.project) == ("ci", "cv")


@BOTH
def test_an_argument_wins_over_its_variable_which_is_not_even_looked_at(make: Make) -> None:
    env = {"SEATKEEPER_NODES": "nonsense", "SEATKEEPER_HOLDER": "", "SEATKEEPER_PROJECT": "x"}
    client = make(env=env, addresses="a:1", holder="me", project="y")
    assert client._nodes.addresses == ("a:1",)
    assert (client._session.account.holder, client._session.account.project) == ("me", "y")


@BOTH
def test_the_processs_own_environment_is_read_where_none_is_given(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEATKEEPER_NODES", "there:1")
    assert make()._nodes.addresses == ("there:1",)


def test_a_variable_that_is_set_to_nothing_is_not_set() -> None:
    given = ClientArguments.read(env=dict.fromkeys(VARIABLES, ""))
    assert (given.addresses, given.holder, given.project, given.tls) == (
        DEFAULT_NODES,
        None,
        "",
        None,
    )


@BOTH
@pytest.mark.parametrize(
    ("env", "variable"),
    [
        ({"SEATKEEPER_NODES": "seats-1"}, "SEATKEEPER_NODES"),
        ({"SEATKEEPER_NODES": "seats-1:99999"}, "SEATKEEPER_NODES"),
        ({"SEATKEEPER_NODES": "caf\udce9:1"}, "SEATKEEPER_NODES"),
        ({"SEATKEEPER_NODES": " , "}, "SEATKEEPER_NODES"),
        ({"SEATKEEPER_HOLDER": "h" * 300}, "SEATKEEPER_HOLDER"),
        ({"SEATKEEPER_HOLDER": "ren\udce9"}, "SEATKEEPER_HOLDER"),
        ({"SEATKEEPER_PROJECT": "caf\udce9"}, "SEATKEEPER_PROJECT"),
        ({"SEATKEEPER_TLS_CA": "/nowhere/ca.pem"}, "SEATKEEPER_TLS_CA"),
        ({"SEATKEEPER_TLS_CA": "/"}, "SEATKEEPER_TLS_CA"),
        ({"SEATKEEPER_TLS_CERT": "/nowhere/c.pem"}, "SEATKEEPER_TLS_KEY"),
        ({"SEATKEEPER_TLS_KEY": "/nowhere/k.pem"}, "SEATKEEPER_TLS_CERT"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(
    make: Make, env: Mapping[str, str], variable: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        make(env=env)
    assert refused.value.field == variable
    assert variable in str(refused.value)
    str(refused.value).encode()  # can be shown


@BOTH
def test_a_certificate_without_its_key_names_both(make: Make, tmp_path: Path) -> None:
    cert, _ = Authority(tmp_path).issue("ci")
    with pytest.raises(
        InvalidArgument, match=r"SEATKEEPER_TLS_CERT is set .*SEATKEEPER_TLS_KEY"
    ):
        make(env={"SEATKEEPER_TLS_CERT": str(cert)})


@BOTH
def test_tls_files_come_from_the_environment_or_from_the_argument(
    make: Make, tmp_path: Path
) -> None:
    ca = Authority(tmp_path).ca
    client = make(env={"SEATKEEPER_TLS_CA": str(ca)})
    assert client._session._tls == TlsConfig(ca=ca)
    mine = TlsConfig(ca=ca)
    assert make(env={"SEATKEEPER_TLS_CA": "/nowhere"}, tls=mine)._session._tls is mine


def test_an_argument_that_is_wrong_is_named_as_an_argument() -> None:
    with pytest.raises(InvalidArgument) as refused:
        AsyncSeatClient.from_env(env={"SEATKEEPER_NODES": "a:1"}, addresses="seats-1")
    assert refused.value.field == "address"


def test_the_commands_use_these_variables_and_no_others() -> None:
    used = {
        option.envvar
        for field in inspect.signature(connection.Claimant, eval_str=True).parameters.values()
        for option in field.annotation.__metadata__
        if option.envvar
    }
    # What a command says of the program that it runs: a library's caller is that program.
    assert used - {"SEATKEEPER_PROGRAM"} == VARIABLES.keys()


def test_it_takes_a_seat() -> None:
    with InMemoryService({"tensorrt": 1}) as service:
        env = {"SEATKEEPER_NODES": service.address, "SEATKEEPER_PROJECT": "cv"}
        with SeatClient.from_env(env=env) as client, client.seat("tensorrt", wait=20) as grant:
            assert grant.project == "cv"

        async def too() -> None:
            async with (
                AsyncSeatClient.from_env(env=env, holder="me") as client,
                client.seat("tensorrt", wait=20) as grant,
            ):
                assert (grant.holder, grant.project) == ("me", "cv")

        asyncio.run(too())
