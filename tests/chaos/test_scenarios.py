"""The fault matrix and its scenarios belong together."""

from __future__ import annotations

import pytest
from tests.chaos.__main__ import OURS, SOAK, SUBSET, not_tried, scenarios
from tests.chaos.faults import ON_LOOPBACK, WITH_PLACES
from tests.chaos.policy_faults import GROUPS
from tests.chaos.service import AGENT

from seatkeeper.chaos.faults import Network, Users, described
from seatkeeper.chaos.library import find, read_folder
from seatkeeper.chaos.result import Outcome
from seatkeeper.chaos.scenario import PROMISES, Scenario
from seatkeeper.oracle.record import Attack, Published, Record

MATRIX = (
    "kill -9 service node (owner) mid batch",
    "pause node SIGSTOP > ttl then CONT",
    "kill/pause etcd leader; follower; all restart",
    "partition node<->etcd, etcd majority/ring, one-way, 50 % loss, 75 ms delay",
    "response cut after commit",
    "watch: clean EOF, cancel, compaction, token expiry, silent half-open",
    "leader transfer during expiry",
    "clock jump +-60 s, skew rate",
    "mass client death 5k, then reconnect storm",
    "NOSPACE, auth revoked, cert rotation, rolling restart, ring change",
    "duplicate/reordered client requests, late cancel",
    "kill -9 in the middle of a policy's work",
    "soak",
)
"""Its rows; the one that is missing here, deterministic simulation, is `tests/simulation`."""

ALL = {**scenarios(), **read_folder(SUBSET), "soak": find(str(SOAK), {})}
FAULTS = described(*ON_LOOPBACK, *WITH_PLACES, *GROUPS, Network, Users)


@pytest.mark.parametrize("row", MATRIX)
def test_every_row_of_the_matrix_has_a_scenario(row: str) -> None:
    assert [scenario.name for scenario in ALL.values() if scenario.row == row]


@pytest.mark.parametrize("scenario", ALL.values(), ids=list(ALL))
def test_a_scenario_belongs_to_the_matrix_and_uses_faults_that_there_are(
    scenario: Scenario,
) -> None:
    assert scenario.row in {"", *MATRIX}
    assert scenario.faults <= set(FAULTS)
    assert scenario.promises


def test_every_promise_is_tried_by_a_scenario() -> None:
    assert {promise for scenario in ALL.values() for promise in scenario.promises} == set(
        PROMISES
    )


def test_every_fault_is_used_by_a_scenario_and_says_what_it_does() -> None:
    assert {fault for scenario in ALL.values() for fault in scenario.faults} == set(FAULTS)
    assert all(FAULTS.values())


def test_what_is_run_forevery_change_is_short_and_all_of_it_is_long() -> None:
    assert sum(scenario.seconds for scenario in read_folder(SUBSET).values()) <= 120
    assert sum(scenario.seconds for scenario in read_folder(OURS).values()) >= 300


def test_a_run_in_which_the_build_agent_publishes_nothing_proves_too_little() -> None:
    outcome = Outcome("here", "all", 4, prevented={each.value: 1 for each in Attack})
    false_agent = Record(published=[Published("users-1-agent", "pool", "g", 1, 0.0)])
    assert "published no engine" in not_tried(outcome, false_agent, all_of_it=False)


def test_a_whole_run_in_which_an_attack_is_not_tried_proves_too_little() -> None:
    outcome = Outcome("here", "all", 4, prevented={Attack.THEFT.value: 3})
    record = Record(published=[Published(AGENT, "pool", "g", 1, 0.0)])
    assert not_tried(outcome, record, all_of_it=False) == ""
    assert Attack.LATE_PUBLICATION.value in not_tried(outcome, record, all_of_it=True)
    outcome.prevented[Attack.LATE_PUBLICATION.value] = 1
    assert not_tried(outcome, record, all_of_it=True) == ""
