"""What a file would change of the pools that there are."""

from __future__ import annotations

from typing import Any

from seatkeeper.client.pools_file import Kind, plan, read_pools
from seatkeeper.v1 import pool_service_pb2 as pb


def wanted(text: str) -> dict[str, pb.PoolSpec]:
    found = read_pools(f"version: 1\npools:\n{text}".encode())
    assert found.faults == ()
    return dict(found.pools)


def live(text: str, revision: int = 5, **state: Any) -> list[pb.Pool]:
    return [pb.Pool(spec=spec, revision=revision, **state) for spec in wanted(text).values()]


def test_every_value_that_differs_is_named() -> None:
    before = """\
  p:
    seats: 10
    description: old
    usage_half_life: 60
    projects: {a: {guaranteed: 2, limit: 5}, b: {weight: 2}, c: {}}
"""
    after = """\
  p:
    seats: 12
    usage_half_life: 90.5
    projects: {c: {parent: a}, a: {guaranteed: 3, weight: 4}, d: {guaranteed: 1}}
"""
    (change,) = plan(wanted(after), live(before)).changes
    assert (change.kind, change.seen_revision) == (Kind.CHANGE, 5)
    assert list(map(str, change.values)) == [
        "~ seats: 10 -> 12",
        '- description: "old"',
        "~ usage_half_life: 60 s -> 90.5 s",
        "~ projects.a.guaranteed: 2 -> 3",
        "- projects.a.limit: 5",
        "+ projects.a.weight: 4",
        "- projects.b: weight 2",
        "+ projects.c.parent: a",
        "+ projects.d: guaranteed 1",
        "~ order of projects: a, c -> c, a",
    ]


def test_each_pool_has_its_kind_and_what_was_seen_of_it() -> None:
    there = live("  same: {seats: 1}\n  other: {seats: 1}\n  left: {seats: 1}\n")
    file = wanted("  new: {seats: 1}\n  same: {seats: 1}\n  other: {seats: 2}\n")

    planned = plan(file, there)

    assert [(change.name, change.kind) for change in planned.changes] == [
        ("new", Kind.CREATE),
        ("same", Kind.UNCHANGED),
        ("other", Kind.CHANGE),
        ("left", Kind.LEFT),
    ]
    # Pools that stay as they are in the file are compared, too; those that are not in it are not.
    new, same, other = planned.messages()
    assert (new.seen_revision, new.WhichOneof("what")) == (0, "spec")
    assert (same.seen_revision, same.WhichOneof("what")) == (5, None)
    assert (other.seen_revision, other.spec.seats) == (5, 2)
    deleting = plan(file, there, delete_missing=True)
    assert deleting.messages()[-1] == pb.PoolChange(name="left", seen_revision=5, delete=True)


def test_what_follows_for_holders_is_said() -> None:
    (lowered,) = plan(
        wanted("  p: {seats: 2}\n"), live("  p: {seats: 9}\n", held=5, queued=1)
    ).changes
    assert lowered.notes == (
        "5 seats held: none is revoked, and nothing is granted until the surplus of 3 seats is "
        "released",
        "requests that wait for more than 2 seats are denied",
    )
    (closed,) = plan(wanted("  p: {seats: 0}\n"), live("  p: {seats: 9}\n", queued=2)).changes
    assert closed.notes == (
        "the pool is closed: nothing is granted until it has seats again; 2 requests waiting",
    )
    (raised,) = plan(wanted("  p: {seats: 9}\n"), live("  p: {seats: 1}\n", held=5)).changes
    assert raised.notes == ()


def test_a_pool_in_use_cannot_be_deleted() -> None:
    for state in ({"held": 1}, {"queued": 1}):
        (change,) = plan({}, live("  p: {seats: 1}\n", **state), delete_missing=True).changes
        assert change.obstacle.startswith("it is in use: ")
    (free,) = plan({}, live("  p: {seats: 1}\n"), delete_missing=True).changes
    assert not free.obstacle


def test_a_pool_that_the_node_cannot_read_is_not_taken_for_a_new_one() -> None:
    unread = pb.Pool(spec=pb.PoolSpec(name="p", description="a newer version wrote it"))
    (change,) = plan(wanted("  p: {seats: 1}\n"), [unread]).changes
    assert change.obstacle == "a newer version wrote it"


def test_what_a_newer_version_says_of_a_pool_is_no_difference() -> None:
    (pool,) = live("  p: {seats: 1, projects: {a: {}}}\n")
    pool.spec.MergeFromString(b"\xf8\x3f\x07")  # field 1023
    pool.spec.format = 2
    (change,) = plan(wanted("  p: {seats: 1, projects: {a: {}}}\n"), [pool]).changes
    assert change.kind is Kind.UNCHANGED


def test_more_deletions_than_one_apply_makes_are_an_obstacle() -> None:
    there = [
        pb.Pool(spec=pb.PoolSpec(name=f"p{n}", seats=1), revision=n + 1) for n in range(61)
    ]
    (first, *others) = plan({}, there, delete_missing=True).changes
    assert first.obstacle == "61 pools are to be deleted, at most 60 at once"
    assert not any(each.obstacle for each in others)
    assert not any(each.obstacle for each in plan({}, there[1:], delete_missing=True).changes)


DAY = 86_400_000
LOTS = """\
  p:
    seats: 1
    lots:
      old: {seats: 2, until: 1970-01-10}
      new: {seats: 4, from: 1970-01-11, until: 1970-01-20, owner: ml}
"""


def in_force(pools: list[pb.Pool]) -> list[pb.Pool]:
    """Pools as a node has written them: ``old`` is in force, and there is a burst."""
    (pool,) = pools
    pool.spec.lots.lots[0].state = pb.LOT_STATE_IN_FORCE
    pool.spec.lots.lots.add(
        name="burst", seats=3, kind=pb.LOT_KIND_BURST, state=pb.LOT_STATE_IN_FORCE
    ).ends_at.FromSeconds(86_400 * 5)
    pool.spec.seats = 6
    return pools


def test_what_differs_of_lots_and_what_nodes_have_written_does_not() -> None:
    there = in_force(live(LOTS))
    assert not plan(wanted(LOTS), there).changes_anything
    after = """\
  p:
    seats: 2
    lots:
      old: {seats: 3, until: 1970-01-12}
      next: {seats: 1, price: 1 EUR/seat-hour}
"""
    (change,) = plan(wanted(after), there, now_millis=DAY).changes
    assert list(map(str, change.values)) == [
        "~ seats: 1 -> 2",
        "~ lots.old.seats: 2 -> 3",
        "~ lots.old.until: 1970-01-10 -> 1970-01-12",
        "- lots.new: seats 4, from 1970-01-11, until 1970-01-20, owner ml",
        "+ lots.next: seats 1, price 1 EUR/seat-hour",
    ]


def test_a_file_neither_starts_nor_stops_bursts() -> None:
    (change,) = plan(wanted("  p: {seats: 2}\n"), in_force(live(LOTS))).changes
    asked = change.message().spec
    assert [lot.name for lot in asked.lots.lots] == ["burst"]
    assert (asked.seats, asked.lots.seats) == (2, 2)
    plain = live("  p: {seats: 1}\n")
    (change,) = plan(wanted("  p: {seats: 2}\n"), plain).changes
    assert not change.message().spec.HasField("lots")


def test_a_lot_with_the_name_of_a_burst_that_goes_on_is_refused_as_it_would_end_it() -> None:
    (there,) = in_force(live(LOTS))
    file = wanted(LOTS + "      burst: {seats: 9}\n")
    (change,) = plan(file, [there]).changes
    assert change.obstacle.startswith("lots.burst: a burst has this name; stop it")
    there.spec.lots.lots[2].state = pb.LOT_STATE_ENDED
    (change,) = plan(file, [there]).changes
    assert (change.obstacle, [lot.name for lot in change.message().spec.lots.lots]) == (
        "",
        ["old", "new", "burst"],
    )


def test_the_notes_are_of_the_seats_that_will_be_in_force() -> None:
    (there,) = in_force(live(LOTS))
    there.held = 6
    text = LOTS.replace("seats: 1\n", "seats: 1\n    projects: {a: {guaranteed: 4}}\n")
    (change,) = plan(wanted(text), [there], now_millis=DAY).changes
    assert change.notes == (
        "from 1970-01-06 00:00 UTC on, the 4 guaranteed seats are more than the 3 seats in force: "
        "projects share what there is, and no guarantee is refused for it",
    )
    less = LOTS.replace("old: {seats: 2", "old: {seats: 1")
    (change,) = plan(wanted(less), [there], now_millis=DAY).changes
    assert change.notes == (
        "6 seats held: none is revoked, and nothing is granted until the surplus of 1 seat is "
        "released",
    )
