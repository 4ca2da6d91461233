"""What a development cluster runs: options, what the last start kept, and ports."""

from __future__ import annotations

import pytest

from seatkeeper.devcluster.plan import (
    PORT_DEFAULT,
    ClusterFailed,
    Kept,
    Plan,
    PlanChanged,
    ServiceFailed,
)

KEPT = Kept(port=9000, etcd_members=3)


def test_a_first_start_takes_what_is_given_and_else_the_defaults() -> None:
    assert Plan.of(None, nodes=2, members=None, seats=4, port=None).kept == Kept(
        port=PORT_DEFAULT, etcd_members=1
    )
    plan = Plan.of(None, nodes=2, members=5, seats=4, port=8000)
    assert (plan.nodes, plan.seats, plan.kept) == (2, 4, Kept(port=8000, etcd_members=5))


@pytest.mark.parametrize(
    ("members", "port"), [(None, None), (3, None), (None, 9000), (3, 9000)]
)
def test_a_later_start_goes_on_as_it_was(members: int | None, port: int | None) -> None:
    plan = Plan.of(KEPT, nodes=1, members=members, seats=2, port=port)
    assert plan.kept == KEPT


@pytest.mark.parametrize(
    ("members", "port", "setting", "before"),
    [(1, None, "etcd_members", 3), (3, 9001, "port", 9000)],
)
def test_what_etcd_remembers_cannot_be_changed(
    members: int | None, port: int | None, setting: str, before: int
) -> None:
    with pytest.raises(PlanChanged) as changed:
        Plan.of(KEPT, nodes=1, members=members, seats=2, port=port)
    assert (changed.value.setting, changed.value.kept) == (setting, before)
    assert changed.value.is_fixable


def test_every_port_is_used_once_and_is_among_those_that_are_looked_at() -> None:
    plan = Plan(nodes=20, members=5, seats=1)
    assert len(set(plan.ports)) == len(plan.ports) == 20 + 1 + 3 * 5
    addresses = [*plan.node_addresses, plan.agent_address]
    assert {int(address.rpartition(":")[2]) for address in addresses} <= set(plan.ports)
    assert set(plan.etcd_ports) <= set(plan.ports)


def test_only_what_the_user_can_change_is_called_fixable() -> None:
    assert ClusterFailed("x").is_fixable
    assert not ServiceFailed("x").is_fixable
