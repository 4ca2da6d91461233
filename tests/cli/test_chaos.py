"""``seatkeeper chaos``: what there is to do, how it is refused, and a short run that is real."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.cli.commands import Result, eventually, in_process, seatkeeper, started
from tests.cli.conftest import Cluster

from seatkeeper.chaos import trial
from seatkeeper.chaos.faults import Network, Users, described
from seatkeeper.chaos.library import read_folder
from seatkeeper.cli import chaos
from seatkeeper.cli.exits import Exit
from seatkeeper.client.sync import SeatClient
from seatkeeper.server.etcd_process import EtcdCluster
from tests.cli.commands import address_of, serving

FEW_USERS = ("--workers", "1", "--users", "3", "--rate-min", "0.5")
"""As many as a machine bears on which other tests run."""
TWO_FAULTS = """\
Connections break, and answers are late.

promises: I1 I5

Network.connections_break
calm for 0.5 s
Network.answers_stall for 0.2 s
"""

Write = Callable[[str, str], Path]


def pools_of_ours(client: SeatClient) -> list[str]:
    return [pool.spec.name for pool in client.pools.list() if pool.spec.name.startswith("chaos-")]


# What there is -----------------------------------------------------------------------------


def test_for_people_scenarios_and_faults_are_listed_with_what_they_do() -> None:
    out = in_process("chaos", "list").check().out
    scenarios, faults = out.split("\n\n")
    assert scenarios.splitlines()[0].split() == ["SCENARIO", "TAKES", "WHAT", "HAPPENS"]
    for name, scenario in read_folder().items():
        (line,) = [line for line in scenarios.splitlines() if line.startswith(f"{name} ")]
        assert f" {scenario.seconds:.0f} s " in line
        assert line.endswith(scenario.sentence)
    for name, sentence in described(Network, Users).items():
        (line,) = [line for line in faults.splitlines() if line.startswith(f"{name} ")]
        assert line.endswith(sentence)


def test_for_programs_the_list_is_one_object() -> None:
    told = in_process("chaos", "list", "--json").check().json
    assert told == {
        "scenarios": {name: each.sentence for name, each in read_folder().items()},
        "faults": described(Network, Users),
    }
