"""Pools that are written read as the same pools, and applying them would change nothing."""

from __future__ import annotations

from datetime import timedelta

import yaml
from google.protobuf.duration_pb2 import Duration
from hypothesis import given, settings
from hypothesis import strategies as st

from seatkeeper.client.pools_file import Kind, plan, read_pools, write_pools
from seatkeeper.core.lot_messages import encode_lot
from seatkeeper.core.lots import DAY_MILLIS, INSTANT_MAX, Lot, PoolLots, Price, PriceUnit
from seatkeeper.core.projects import POLICY_TIME_MAX, PoolPolicy, ProjectShare, policy_fault
from seatkeeper.core.text import is_shown
from seatkeeper.v1 import pool_service_pb2 as pb

LOWER = "abcdefghijklmnopqrstuvwxyz0123456789"
names = st.one_of(
    st.sampled_from(
        ("no", "y", "null", "true", "1", "010", "1e3", "1.5", "0x1f", "2026-01-01")
    ),
    st.tuples(st.sampled_from(LOWER), st.text(LOWER + "._-", max_size=8)).map("".join),
)
descriptions = st.text(st.characters(exclude_categories=["Cs"]).filter(is_shown), max_size=40)


instants = st.integers(0, 4_000_000_000_000) | st.integers(0, 40_000).map(
    lambda day: day * DAY_MILLIS
)
lots = st.builds(
    Lot,
    name=names,
    seats=st.integers(1, 100),
    begins=st.none() | instants,
    ends=st.none() | instants.map(lambda at: at + 4_000_000_000_001),
    price=st.none()
    | st.builds(
        Price, st.sampled_from(("0", "12.50")), st.just("EUR"), st.sampled_from(PriceUnit)
    ),
    owner=descriptions,
    overdraft=st.integers(0, 2),
).filter(lambda lot: lot.ends is None or lot.ends <= INSTANT_MAX)


@st.composite
def shares(draw: st.DrawFn, seats: int) -> list[ProjectShare]:
    """Projects of a policy that can be kept."""
    found: list[ProjectShare] = []
    for name in draw(st.lists(names, max_size=6, unique=True)):
        parents = st.sampled_from(["", *(share.project for share in found)])
        share = ProjectShare(
            project=name,
            guaranteed=draw(st.integers(0, max(1, seats))),
            limit=draw(st.none() | st.integers(0, 200)),
            weight=draw(st.sampled_from((1, 2, 1000))),
            parent=draw(parents),
        )
        if policy_fault(PoolPolicy((*found, share)), seats) is None:
            found.append(share)
    return draw(st.permutations(found))


patterns = st.one_of(
    names, st.sampled_from(("*", "a*", "*-x", "a*b")), st.text("ab", min_size=1, max_size=3)
)
holders = st.one_of(
    patterns,
    st.text(
        st.characters(exclude_categories=["Cs"]).filter(is_shown), min_size=1, max_size=9
    ).filter(lambda text: text.count("*") < 2),
)


@st.composite
def rules(draw: st.DrawFn) -> pb.PoolRules:
    """Rules that a node would take."""
    groups = draw(
        st.dictionaries(
            names, st.lists(holders, min_size=1, max_size=3, unique=True), max_size=3
        )
    )
    found = pb.PoolRules(
        groups=[pb.HolderGroup(name=name, holders=each) for name, each in groups.items()]
    )
    for name in ("include", "exclude"):
        who = pb.Who(
            projects=draw(st.lists(patterns, max_size=2, unique=True)),
            holders=draw(st.lists(holders, max_size=3, unique=True)),
            groups=draw(st.sets(st.sampled_from(sorted(groups)))) if groups else (),
            hosts=draw(st.lists(holders, max_size=2, unique=True)),
        )
        if who.ByteSize():
            getattr(found, name).CopyFrom(who)
    for name in ("per_holder", "per_host", "per_project"):
        seats, tickets = (
            draw(st.none() | st.integers(1, 9)),
            draw(st.none() | st.integers(0, 9)),
        )
        if (seats, tickets) != (None, None):
            getattr(found, name).CopyFrom(pb.AtMost(seats=seats, tickets=tickets))
    return found


@st.composite
def borrows(draw: st.DrawFn) -> pb.BorrowRule:
    rule = pb.BorrowRule(low_water=draw(st.integers(0, 100_000)))
    rule.longest.FromMilliseconds(draw(st.integers(2_000, 366 * 86_400_000)))
    rule.skew.FromMilliseconds(draw(st.integers(0, 86_400_000)))
    if draw(st.booleans()):
        rule.seats = draw(st.integers(0, 100_000))
    if draw(st.booleans()):
        rule.per_project = draw(st.integers(0, 100_000))
        rule.include.CopyFrom(pb.Who(projects=["cv", "n*"], hosts=["ws-1"]))
        rule.exclude.CopyFrom(pb.Who(holders=["mal*"]))
    return rule


@st.composite
def holds(draw: st.DrawFn) -> pb.HoldRule:
    """How long seats may be held, as a node would take it."""
    rule = pb.HoldRule()
    warning = draw(st.integers(10**6, 60 * 10**6))
    rule.warning.FromMicroseconds(warning)
    names = draw(st.sampled_from((("longest",), ("idle",), ("longest", "idle"))))
    for name in names:
        getattr(rule, name).FromMicroseconds(draw(st.integers(61 * 10**6, 10**12)))
    return rule


@st.composite
def reservations(draw: st.DrawFn) -> pb.Reservation:
    """One of a seat at most, in short windows: some that a node would take, if one fits."""
    opens = draw(st.integers(0, 22 * 60))
    rule, first = draw(
        st.sampled_from(
            [
                ("FREQ=DAILY", ""),
                ("FREQ=WEEKLY;BYDAY=MO,TU", "2023-11-01"),
                ("FREQ=MONTHLY;BYMONTHDAY=-1;BYMONTH=1,7", ""),
                ("FREQ=DAILY;INTERVAL=3", "2023-11-01"),
            ]
        )
    )
    return pb.Reservation(
        name=draw(names),
        seats=1,
        who=pb.Who(holders=draw(st.lists(holders, min_size=1, max_size=2, unique=True))),
        schedule=pb.WindowSchedule(
            rule=rule,
            zone=draw(st.sampled_from(["UTC", "Europe/Berlin"])),
            opens_minute=opens,
            closes_minute=draw(st.integers(opens + 1, opens + 24 * 60)),
            first_day=first,
        ),
        notice=draw(st.sampled_from([None, Duration(seconds=90)])),
    )


@st.composite
def specs(draw: st.DrawFn, name: str) -> pb.PoolSpec:
    seats = draw(st.sampled_from((0, 1, 10, 99_000)))
    spec = pb.PoolSpec(name=name, seats=seats, description=draw(descriptions))
    spec.policy.SetInParent()
    projects = draw(shares(seats))
    for share in projects:
        spec.policy.projects.add(
            project=share.project,
            guaranteed=share.guaranteed,
            limit=share.limit,
            weight=share.weight,
            parent=share.parent,
        )
    has_half_life: bool = draw(st.booleans())
    if spec.policy.projects and has_half_life:
        micros = draw(st.integers(10**6, POLICY_TIME_MAX // timedelta(microseconds=1)))
        spec.policy.usage_half_life.FromMicroseconds(micros)
    found = draw(st.lists(lots, max_size=3, unique_by=lambda lot: lot.name))
    most = PoolLots(tuple(found), seats).guaranteed_most
    # A closed pool may guarantee more than the seats of its lots.
    if found and policy_fault(PoolPolicy(tuple(projects)), most) is None:
        spec.lots.CopyFrom(pb.PoolLots(lots=map(encode_lot, found), seats=seats))
    if draw(st.booleans()):
        spec.policy.overtaking.seats = draw(st.integers(1, 100_000))
        micros = draw(st.integers(10**6, POLICY_TIME_MAX // timedelta(microseconds=1)))
        spec.policy.overtaking.within.FromMicroseconds(micros)
        if draw(st.booleans()):
            spec.policy.overtaking.hold_back.FromMicroseconds(micros)
    if draw(st.booleans()):
        spec.policy.hold.CopyFrom(draw(holds()))
    for key in draw(st.sets(st.sampled_from(["linger", "resurrection", "lock_delay"]))):
        getattr(spec.policy.stay, key).FromTimedelta(timedelta(seconds=draw(st.integers(1, 9))))
    if draw(st.booleans()):
        spec.policy.borrow.CopyFrom(draw(borrows()))
    if draw(st.booleans()):
        spec.policy.counting.advisory = True
    for cost, number in draw(st.dictionaries(names, st.integers(1, 1_000), max_size=3)).items():
        spec.policy.counting.costs.add(name=cost, seats=number)
    if (said := draw(rules())).ByteSize():
        spec.policy.rules.CopyFrom(said)
    if draw(st.booleans()):
        spec.policy.count_once.extend(("holder", "label:display", "host"))
    if seats and not spec.policy.projects:  # which may be guaranteed all seats
        # Of a seat each, in windows that may overlap.
        most = min(2, seats)
        kept = draw(st.lists(reservations(), max_size=most, unique_by=lambda one: one.name))
        spec.policy.reservations.extend(kept)
    return spec


pools = st.lists(names, max_size=5, unique=True).flatmap(
    lambda chosen: st.tuples(*(specs(name) for name in chosen))
)


@settings(deadline=None, max_examples=60)
@given(pools)
def test_what_is_written_reads_as_the_same(wanted: tuple[pb.PoolSpec, ...]) -> None:
    text = write_pools(wanted)
    found = read_pools(text.encode())
    assert found.faults == ()
    assert list(found.pools.values()) == list(wanted)
    assert write_pools(found.pools.values()) == text

    live = [pb.Pool(spec=spec, revision=7) for spec in wanted]
    planned = plan(found.pools, live, delete_missing=True)
    assert {change.kind for change in planned.changes} <= {Kind.UNCHANGED}
    assert not planned.changes_anything


@settings(deadline=None, max_examples=40)
@given(pools)
def test_other_programs_read_the_same_names_and_texts(wanted: tuple[pb.PoolSpec, ...]) -> None:
    """PyYAML with all its ideas of what is a number, a date or true: none applies to ours."""
    read = yaml.safe_load(write_pools(wanted))
    assert list(read["pools"]) == [spec.name for spec in wanted]
    for spec in wanted:
        assert read["pools"][spec.name].get("description", "") == spec.description
        projects = read["pools"][spec.name].get("projects", {})
        assert list(projects) == [share.project for share in spec.policy.projects]


def test_what_is_not_sent_as_utf_8_has_ascii_alone() -> None:
    spec = pb.PoolSpec(name="p", seats=1, description="über 数")
    written = write_pools([spec], as_ascii=True)
    assert written.isascii()
    assert read_pools(written.encode()).pools["p"].description == spec.description
