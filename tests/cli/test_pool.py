"""``seatkeeper pool``."""

from __future__ import annotations

import pytest
from tests.cli.conftest import Cluster

from seatkeeper.cli.exits import Exit

FIELDS = {"name", "seats", "description", "held", "free", "queued"} | {
    "fence",
    "revision",
    "owner",
}


def test_a_pool_is_made_changed_and_deleted(cluster: Cluster) -> None:
    made = cluster.here("pool", "create", "vision", "--seats", "2", "--json").check().json
    assert made.keys() == FIELDS
    assert (made["name"], made["seats"], made["held"], made["free"]) == ("vision", 2, 0, 2)

    update = ("pool", "update", "vision", "--seats", "3", "--description", "cameras", "--json")
    changed = cluster.here(*update).check().json
    assert (changed["seats"], changed["description"]) == (3, "cameras")
    assert changed["revision"] != made["revision"]

    listed = cluster.here("pool", "list", "--json").check().json
    assert {**changed, "name": "vision"} in listed["pools"]

    shown = cluster.here("pool", "show", "vision", "--json").check().json
    assert shown.keys() == FIELDS | {"grants", "queue", "holders"}
    assert shown["grants"] == shown["queue"] == shown["holders"] == []

    assert cluster.here("pool", "delete", "vision", "--json").check().json == {
        "deleted": "vision"
    }
    assert "pool list" in cluster.here("pool", "show", "vision").refused(Exit.NOT_FOUND)


def test_tables_are_for_people(cluster: Cluster) -> None:
    name = cluster.pool(seats=7)
    assert (
        f"pool {name} updated: 8 seats"
        in cluster.here("pool", "update", name, "--seats", "8").out
    )
    text = cluster.here("pool", "list").check().out
    assert "SEATS" in text
    assert name in text
    assert not any(line.endswith(" ") for line in text.splitlines())
    assert "no request waits" in cluster.here("pool", "show", name).check().out


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["create", "{pool}", "--seats", "1"], Exit.USAGE, "exists"),
        (["create", "Not A Name", "--seats", "1"], Exit.USAGE, "is not a name"),
        (["update", "{pool}"], Exit.USAGE, "nothing to change"),
        (["update", "absent", "--seats", "1"], Exit.NOT_FOUND, "absent"),
        (["delete", "absent"], Exit.NOT_FOUND, "absent"),
        (["show", "absent"], Exit.NOT_FOUND, "absent"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_changes_nothing(
    cluster: Cluster, pool: str, words: list[str], code: Exit, why: str
) -> None:
    before = cluster.look(pool)
    assert why in cluster.here("pool", *(word.format(pool=pool) for word in words)).refused(
        code
    )
    assert cluster.look(pool) == before


def test_seats_are_shared_among_projects(cluster: Cluster) -> None:
    shares = ("--project", "vision:guaranteed=2,weight=2", "--project", "speech:limit=1")
    made = (
        cluster.here("pool", "create", "shared", "--seats", "4", *shares, "--json").check().json
    )
    assert made["projects"] == [
        {
            "project": "vision",
            "parent": None,
            "guaranteed": 2,
            "limit": None,
            "weight": 2,
            "held": 0,
            "queued": 0,
        },
        {
            "project": "speech",
            "parent": None,
            "guaranteed": 0,
            "limit": 1,
            "weight": 1,
            "held": 0,
            "queued": 0,
        },
    ]
    shown = cluster.here("pool", "show", "shared").check().out
    assert "GUARANTEED" in shown
    assert "vision" in shown
    over = cluster.here("pool", "update", "shared", "--seats", "1").refused(Exit.USAGE)
    assert "more than the pool has seats: 1" in over
    aged = (
        cluster.here("pool", "update", "shared", "--usage-half-life", "3600", "--json")
        .check()
        .json
    )
    assert aged["usage_half_life_seconds"] == 3600
    assert "forgotten in 1 h 0 min" in cluster.here("pool", "show", "shared").check().out
    held = (
        cluster.here("pool", "update", "shared", "--usage-half-life", "0", "--json")
        .check()
        .json
    )
    assert held["usage_half_life_seconds"] is None
    rule = cluster.here(
        "pool", "update", "shared", "--overtaking", "seats=2,within=60", "--json"
    )
    assert rule.check().json["overtaking"] == {"seats": 2, "within_seconds": 60}
    assert "seats=2,within=60" in cluster.here("pool", "show", "shared").check().out
    assert "seats=4,within=60" in cluster.here(
        "pool", "update", "shared", "--overtaking", "always"
    ).refused(Exit.USAGE)
    none = (
        cluster.here("pool", "update", "shared", "--overtaking", "none", "--json").check().json
    )
    assert "overtaking" not in none
    change = ("--project", "vision:guaranteed=1", "--without-project", "speech")
    changed = (
        cluster.here("pool", "update", "shared", "--seats", "1", *change, "--json").check().json
    )
    assert [(each["project"], each["guaranteed"]) for each in changed["projects"]] == [
        ("vision", 1)
    ]
    wrong = cluster.here("pool", "update", "shared", "--project", "vision:most=1").refused(
        Exit.USAGE
    )
    assert "is none of guaranteed=, limit=, weight=, parent=" in wrong
    cluster.here("pool", "update", "shared", "--without-project", "vision").check()
    assert "projects" not in cluster.here("pool", "show", "shared", "--json").check().json
    cluster.here("pool", "delete", "shared").check()


def test_a_pool_is_drained_and_opened(cluster: Cluster) -> None:
    name = cluster.pool(seats=3)
    why = "the licence server is moved"
    said = cluster.here("pool", "drain", name, "--reason", why).check().out
    assert f"pool {name} is drained: nothing is granted until" in said
    shown = cluster.here("pool", "show", name, "--json").check().json
    assert (shown["drained"]["reason"], shown["seats"], shown["free"]) == (why, 3, 0)
    assert why in cluster.here("pool", "show", name).check().out
    assert "3, drained" in cluster.here("pool", "list").check().out
    written = cluster.here("pool", "show", name, "--yaml").check().out
    assert "drain" not in written, "a state, and no part of the specification"
    denied = cluster("run", "--pool", name, "--wait", "0", "--", "true").refused(Exit.NO_SEAT)
    assert why in denied
    assert "wait with --wait until it is opened" in denied
    said = cluster.here("pool", "open", name, "--reason", "it has moved").check().out
    assert f"pool {name} is open: 3 seats, 0 held" in said
    assert "drained" not in cluster.here("pool", "show", name, "--json").check().json
    cluster("run", "--pool", name, "--", "true").check()
    assert "--reason" in cluster.here("pool", "drain", name).refused(Exit.USAGE)
    cluster.here("pool", "update", name, "--seats", "0").check()
    assert "has 0 seats" in cluster.here("pool", "open", name).check().out
    cluster.here("pool", "drain", "absent", "--reason", "x").refused(Exit.NOT_FOUND)
