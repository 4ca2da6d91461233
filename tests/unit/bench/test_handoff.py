"""What ``bench.handoff`` makes of what clients and a traced node noted."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from bench.handoff import Timeline, Turns
from bench.handoff_parts import PARTS, NodeTrace, TracedCommit, parts
from bench.traced_node import read_trace


def test_the_parts_of_a_handoff_add_up_to_it() -> None:
    trace = NodeTrace({"a": 1.2}, {"b": 2.6}, [TracedCommit(1.5, 2.5, ("a",), ("b",))])

    found = parts(trace, {"a": 1.0}, {"b": 3.0}, free_before=0)

    assert list(found) == list(PARTS)
    assert [seconds for [seconds] in found.values()] == pytest.approx([0.2, 0.3, 1.0, 0.1, 0.4])


def test_the_first_seat_given_back_goes_to_the_first_grant() -> None:
    trace = NodeTrace(
        {"a": 1.0, "b": 1.0},
        {"c": 4.0, "d": 6.0},
        [TracedCommit(2.0, 3.0, ("a", "b"), ("c",)), TracedCommit(4.0, 5.0, (), ("d",))],
    )

    found = parts(trace, {"a": 0.5, "b": 0.0}, {"c": 5.0, "d": 7.0}, free_before=0)

    assert found["sent"] == [0.5, 1.0]
    assert found["committed"] == [1.0, 1.0]


def test_a_seat_that_was_free_before_and_what_was_not_seen_whole_do_not_count() -> None:
    trace = NodeTrace(
        {"a": 1.0},
        {"b": 4.0, "c": 4.0},
        [TracedCommit(2.0, 3.0, (), ("b",)), TracedCommit(3.0, 3.5, ("a",), ("c",))],
    )

    assert parts(trace, {"a": 0.5}, {"b": 5.0}, free_before=1)["sent"] == []


def test_what_a_node_noted_is_read_as_it_was() -> None:
    trace = NodeTrace({"a": 1.0}, {"b": 2.0}, [TracedCommit(1.5, 2.5, ("a",), ("b",))])

    assert read_trace(json.dumps(asdict(trace))) == trace


def test_a_seat_is_idle_from_its_end_to_the_next_beginning() -> None:
    turns = Turns({"a": 0.0, "b": 2.0}, {"a": 1.0})
    timeline = turns.timeline.between(0.0, 4.0)

    assert timeline.handoffs(seats=1) == [1.0]
    assert timeline.idle_percent(seats=1) == 25.0


def test_seats_that_were_free_at_the_beginning_are_no_handoffs() -> None:
    timeline = Timeline(taken=[0.5, 1.5], given=[1.0], held_before=0, began=0.0, ended=2.0)

    assert timeline.handoffs(seats=1) == [0.5]
    assert timeline.idle_percent(seats=1) == 50.0
