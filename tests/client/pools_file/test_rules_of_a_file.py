"""Rules of pools in a file: what is refused and where, and what a change of them is said to be."""

from __future__ import annotations

import pytest

from seatkeeper.client.pools_file import plan, read_pools
from seatkeeper.v1 import pool_service_pb2 as pb

HEAD = "version: 1\npools:\n  a:\n    seats: 4\n"


def read(*lines: str) -> list[str]:
    text = HEAD + "".join(f"    {line}\n" for line in lines)
    return [str(fault) for fault in read_pools(text.encode()).faults]


def spec(*lines: str) -> pb.PoolSpec:
    text = HEAD + "".join(f"    {line}\n" for line in lines)
    found = read_pools(text.encode())
    assert not found.faults
    return found.pools["a"]


def test_all_of_it_is_read() -> None:
    found = spec(
        'groups: {students: {holders: [alice, "s-*"]}}',
        "include: {projects: [vision], groups: [students]}",
        'exclude: {holders: ["*@build-7"]}',
        "per_holder: {seats: 2, tickets: 0}",
        "per_project: {seats: 3}",
    )
    assert found.policy.rules == pb.PoolRules(
        groups=[pb.HolderGroup(name="students", holders=["alice", "s-*"])],
        include=pb.Who(projects=["vision"], groups=["students"]),
        exclude=pb.Who(holders=["*@build-7"]),
        per_holder=pb.AtMost(seats=2, tickets=0),
        per_project=pb.AtMost(seats=3),
    )
    assert not spec("include: {}", "per_holder: {}").policy.HasField("rules")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("exclude: {holders: [m, *x]}", "5:28: the alias *x: write what it stands for"),
        ('exclude: {holders: ["a*b*"]}', "5:25: pools.a.exclude.holders[0]: 'a*b*' has more"),
        ("exclude: {holders: [yes]}", "5:25: pools.a.exclude.holders[0]: 'yes' is true or"),
        ("exclude: {holders: [7]}", "5:25: pools.a.exclude.holders[0]: '7' is a number: put"),
        ("exclude: {holders: [{a: b}]}", "5:25: pools.a.exclude.holders[0]: a mapping, where"),
        ("exclude: {holders: alice}", "5:24: pools.a.exclude.holders: 'alice', where a list"),
        ("exclude: mallory", "5:14: pools.a.exclude: 'mallory', where a choice of who asks is"),
        ("exclude: {projects: [cv, CV]}", "5:30: pools.a.exclude.projects[1]: 'CV' is not a"),
        ("exclude: {holder: [a]}", "5:15: pools.a.exclude: a choice of who asks has no key"),
        ("include: {groups: [x]}", "5:24: pools.a.include.groups[0]: there is no group x"),
        ("groups: {x: {}}", "5:17: pools.a.groups.x: a group needs `holders`"),
        ("groups: {x: {holders: []}}", "5:27: pools.a.groups.x.holders: group x has no holder"),
        ("groups: {X: {holders: [a]}}", "5:14: pools.a.groups: 'X' is not the name of a group"),
        (
            "groups: {x: {holders: [a, a]}}",
            "5:31: pools.a.groups.x.holders[1]: a is there twice",
        ),
        ("per_holder: {seats: 0}", "5:25: pools.a.per_holder.seats: 0 is not from 1 to"),
        ("per_project: {tickets: -1}", "5:28: pools.a.per_project.tickets: -1 is not from 0"),
        ("per_project: 3", "5:18: pools.a.per_project: '3', where a limit is a mapping with"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(line: str, fault: str) -> None:
    (found,) = read(line)
    assert found.startswith(fault)


def test_too_many_names_are_one_fault() -> None:
    names = ", ".join(f"h{n}" for n in range(1_000))
    (found,) = read(f"exclude: {{holders: [{names}], projects: [x]}}")
    assert found.startswith("5:14: pools.a.exclude: 1001 names")
    (found,) = read(f"exclude: {{holders: [{names}, x]}}")
    assert "1001 entries: at most 1000" in found


def test_what_changes_of_them_is_shown() -> None:
    before = spec("exclude: {holders: [a]}", "per_holder: {seats: 2}")
    after = spec(
        "groups: {g: {holders: [b, c]}}", "exclude: {groups: [g]}", "per_holder: {seats: 1}"
    )
    (change,) = plan({"a": after}, [pb.Pool(spec=before, revision=7, queued=1)]).changes
    assert list(map(str, change.values)) == [
        "- exclude.holders: a",
        "~ per_holder.seats: 2 -> 1",
        "+ groups.g: b, c",
        "+ exclude.groups: g",
    ]
    (note,) = change.notes
    assert "that the new rules do not let in, or let have less, are denied" in note


@pytest.mark.parametrize(
    ("before", "after", "is_noted"),
    [
        ([], ["exclude: {holders: [a]}"], True),
        (["exclude: {holders: [a]}"], [], False),
        ([], ["per_holder: {tickets: 1}"], False),
        ([], ["per_project: {seats: 1}"], True),
        (["per_project: {seats: 1}"], ["per_project: {seats: 2}"], False),
        (["per_project: {seats: 2}"], ["per_project: {seats: 1}"], True),
    ],
)
def test_who_waits_is_thought_of(before: list[str], after: list[str], is_noted: bool) -> None:
    live = pb.Pool(spec=spec(*before), revision=7, queued=1)
    (change,) = plan({"a": spec(*after)}, [live]).changes
    assert bool(change.notes) == is_noted
