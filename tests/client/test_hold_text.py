"""How long seats may be held, as text."""

from __future__ import annotations

from datetime import timedelta

import pytest

from seatkeeper.client.admin.holds import hold_text, parse_hold, with_hold
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.v1 import pool_service_pb2 as pb


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("longest=8h,warning=10m", "longest=28800,warning=600"),
        ("warning=60, longest=1d12h", "longest=129600,warning=60"),
        ("idle=30m,warning=0.5", "idle=1800,warning=0.5"),
        ("longest=2s,idle=1s,warning=1", "longest=2,idle=1,warning=1"),
    ],
)
def test_a_rule_is_read_and_written(text: str, written: str) -> None:
    rule = parse_hold(text)
    assert hold_text(rule) == written
    assert parse_hold(written) == rule


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not one of longest, idle, warning"),
        ("8h", "is not one of"),
        ("longest=8h", "gives no warning="),
        ("longest=8h,longest=9h,warning=1m", "each once"),
        ("longest=8 hours,warning=1m", "no length of time"),
        ("longest=,warning=1m", "no length of time"),
        ("length=8h,warning=1m", "is not one of"),
        ("longest=-1,warning=1m", "no length of time"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        parse_hold(text)


def test_a_policy_is_changed_as_far_as_something_is_said() -> None:
    policy = pb.PoolPolicy()
    with_hold(policy, None)
    assert not policy.HasField("hold")
    with_hold(policy, parse_hold("longest=8h,warning=10m"))
    assert policy.hold.longest.ToTimedelta() == timedelta(hours=8)
    with_hold(policy, None)
    assert policy.HasField("hold")
    with_hold(policy, parse_hold("none"))
    assert not policy.HasField("hold")
