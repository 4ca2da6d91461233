"""``advisory`` and ``costs`` in pools.yaml: read, refused, planned."""

from __future__ import annotations

import pytest

from seatkeeper.client.admin.counting import costs_text, parse_costs, with_counting
from seatkeeper.client.pools_file import plan, read_pools
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.v1 import pool_service_pb2 as pb


def read(pool: str) -> tuple[pb.PoolSpec | None, list[str]]:
    found = read_pools(f"version: 1\npools:\n  p: {{seats: 2, {pool}}}\n".encode())
    return found.pools.get("p"), [f"{each.path}: {each.reason}" for each in found.faults]


def test_what_is_read() -> None:
    spec, faults = read("advisory: true, costs: {a100: 4, default: 2}")
    assert (spec is not None, faults) == (True, [])
    assert spec is not None
    counting = spec.policy.counting
    assert counting.advisory
    assert [(each.name, each.seats) for each in counting.costs] == [("a100", 4), ("default", 2)]
    spec, _ = read("advisory: false, costs: {}")
    assert spec is not None
    assert not spec.policy.HasField("counting")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("advisory: yes", "pools.p.advisory: 'yes' is neither true nor false"),
        ('advisory: "true"', "pools.p.advisory: 'true' is neither true nor false"),
        ("advisory: [true]", "pools.p.advisory: a list, where true or false belongs"),
        ("costs: {a100: 0}", "pools.p.costs.a100: 0 is not from 1 to 1000"),
        ("costs: {a100: 1.5}", "pools.p.costs.a100: '1.5' is not a whole number"),
        ("costs: {a100: [1]}", "pools.p.costs.a100: a list, where a whole number belongs"),
        ("costs: {A100: 1}", "pools.p.costs: 'A100' is not a name"),
        ("costs: {a: 1, a: 2}", "pools.p.costs: 'a' is there twice"),
        ("costs: 4", "pools.p.costs: '4', where `pools.p.costs` is a mapping"),
        (
            "costs: {" + ", ".join(f"c{n}: 1" for n in range(101)) + "}",
            "pools.p.costs: 101 entries: at most 100",
        ),
    ],
)
def test_what_is_refused_and_where(said: str, reason: str) -> None:
    spec, faults = read(said)
    assert spec is None
    assert len(faults) == 1
    assert faults[0].startswith(reason)


def test_what_a_plan_says_of_a_pool_that_is_to_bind() -> None:
    before, _ = read("advisory: true, costs: {a100: 4}")
    after, _ = read("costs: {a100: 2, t4: 1}")
    assert before is not None
    assert after is not None
    live = pb.Pool(spec=before, revision=7, held=5)
    (change,) = plan({"p": after}, [live]).changes
    assert [str(value) for value in change.values] == [
        "- advisory: true",
        "~ costs.a100: 4 -> 2",
        "+ costs.t4: 1",
    ]
    assert "surplus of 3 seats" in change.notes[0]


def test_costs_as_text() -> None:
    assert parse_costs(["a100=4,t4=1", "v100=2"]) == {"a100": 4, "t4": 1, "v100": 2}
    assert parse_costs(["none"]) == {}
    policy = pb.PoolPolicy()
    with_counting(policy, None, parse_costs(["a100=4", "t4=1"]))
    assert costs_text(policy.counting) == "a100=4,t4=1"
    with_counting(policy, True, None)
    with_counting(policy, None, {})
    assert (policy.counting.advisory, costs_text(policy.counting)) == (True, "none")
    with_counting(policy, False, None)
    assert not policy.HasField("counting")


@pytest.mark.parametrize(
    "text", ["a100", "=4", "a100=4,a100=5", "a100=x", "a100=-1", "none,a=1"]
)
def test_costs_that_cannot_be_read(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_costs([text])
