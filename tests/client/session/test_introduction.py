"""What a client sends to nodes about its program: its name, and no secrets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from seatkeeper.client import ClientConfig, SeatClient
from seatkeeper.client.session.introduction import client_info, introduced, shown
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.testing.service import InMemoryService

SAYS = """
from seatkeeper.client import ClientConfig
from seatkeeper.client.session.introduction import introduced
print(introduced(ClientConfig()).program)
"""


def test_host_process_and_program_are_sent() -> None:
    info = client_info(introduced(ClientConfig()))
    assert info is not None
    assert (info.host, info.pid) == (socket.gethostname(), os.getpid())
    assert info.command
    assert info.library.startswith("seatkeeper-python/")


def test_it_may_be_named_or_turned_off() -> None:
    named = client_info(introduced(ClientConfig(program="nightly\x1b build", program_pid=7)))
    assert named is not None
    assert (named.command, named.pid) == ("nightly? build", 7)
    assert client_info(introduced(ClientConfig(program=""))) is None
    with pytest.raises(InvalidArgument):
        ClientConfig(program_pid=-1)


def test_what_is_sent_fits_and_can_be_shown() -> None:
    assert shown("a\nb\u202ec\udc80" + "x" * 200, 100) == "a?b?c?" + "x" * 94


@pytest.mark.parametrize("how", ["script", "module", "-c", "stdin"])
def test_a_program_is_named_without_folders_and_arguments(how: str, tmp_path: Path) -> None:
    folder = tmp_path / "secret-folder"
    folder.mkdir()
    (folder / "train.py").write_text(SAYS)
    commands = {
        "script": ([str(folder / "train.py"), "--password=hunter2"], None, "train.py"),
        "module": (["-m", "train", "--password=hunter2"], None, "train"),
        "-c": (["-c", SAYS, "--password=hunter2"], None, Path(sys.executable).name),
        "stdin": (["-", "--password=hunter2"], SAYS, Path(sys.executable).name),
    }
    arguments, stdin, name = commands[how]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == name


@pytest.mark.parametrize("keeper", ["helper", "process"])
def test_nodes_show_it_with_either_keeper(keeper: str) -> None:
    config = ClientConfig(keeper=keeper)  # type: ignore[arg-type]  # one of two words
    with (
        InMemoryService({"tensorrt": 1}) as service,
        SeatClient(service.address, config=config) as client,
        client.seat("tensorrt"),
    ):
        [grant] = client.pools.get("tensorrt").grants
        assert (grant.client.pid, grant.client.host) == (os.getpid(), socket.gethostname())
