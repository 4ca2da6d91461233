"""``seatkeeper node``: what there is, and a node that is drained."""

from __future__ import annotations

from pathlib import Path

from tests.cli.commands import address_of, in_process, seatkeeper, serving

from seatkeeper.cli.exits import Exit


def test_nodes_are_listed(tmp_path: Path) -> None:
    with serving(tmp_path, "--node-id", "alone") as node:
        address = address_of(node)
        nodes = {"SEATKEEPER_NODES": address}
        (found,) = seatkeeper("node", "list", "--json", environ=nodes).check().json["nodes"]
        assert (found["node_id"], found["address"]) == ("alone", address)
        assert "alone" in in_process("node", "list", environ=nodes).check().out


def test_a_node_that_is_drained_ends_well(tmp_path: Path) -> None:
    with serving(tmp_path, "--node-id", "alone", "--stop-grace", "1") as node:
        nodes = {"SEATKEEPER_NODES": address_of(node)}
        in_process("pool", "create", "p", "--seats", "1", environ=nodes).check()
        done = in_process("node", "drain", "alone", "--json", environ=nodes).check().json
        assert done == {"event": "draining", "node_id": "alone"}
        assert node.ends().code == Exit.OK


def test_draining_the_only_node_prints_the_consequence(tmp_path: Path) -> None:
    with serving(tmp_path, "--node-id", "alone", "--stop-grace", "1") as node:
        drained = seatkeeper(
            "node", "drain", "alone", environ={"SEATKEEPER_NODES": address_of(node)}
        )
        assert "it was the only node" in drained.check().out
        assert node.ends().code == Exit.OK


def test_a_node_that_does_not_exist_cannot_be_drained(tmp_path: Path) -> None:
    with serving(tmp_path, "--node-id", "alone") as node:
        refused = seatkeeper(
            "node", "drain", "another", environ={"SEATKEEPER_NODES": address_of(node)}
        ).refused(Exit.NOT_FOUND)
        assert "'another'" in refused
        assert "alone" in refused


def test_a_timeout_without_end_is_refused() -> None:
    assert "--timeout" in in_process("node", "list", "--timeout", "inf").refused(Exit.USAGE)
