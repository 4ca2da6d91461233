"""``seatkeeper grant revoke`` and ``extend``, ``pool --hold``, and what ``run`` says and reports."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.cli.conftest import Cluster
from tests.cli.test_queue import UNKNOWN, busy
from tests.processes import until

from seatkeeper.cli.exits import Exit
from seatkeeper.client import HoldingState

WHY = ("--reason", "the release needs it")


def test_a_grant_is_called_back_withdrawn_and_taken(cluster: Cluster, pool: str) -> None:
    with busy(cluster, pool) as seen:
        held = seen.grant.grant_id
        revoke = ("grant", "revoke", pool, held)
        said = cluster.here(*revoke, "--notice", "10m", *WHY).check().out
        assert "1 seat" in said
        assert "called back from anna, with a notice of 10 min" in said
        until(lambda: seen.grant.state is HoldingState.RECLAIMING, "anna is notified")
        shown = cluster.here("grant", "show", pool, held, "--json").check().json
        assert shown["called_back_rule"] == "revoked"
        assert shown["revoked"]["reason"] == "the release needs it"
        assert shown["revoked"]["notice_seconds"] == 600
        assert shown["revoked"]["answered"]
        text = cluster.here("grant", "show", pool, held).check().out
        assert "(rule `revoked`)" in text
        other = cluster.here(*revoke, "--notice", "5m", *WHY).refused(Exit.FAILED)
        assert "withdraw that first" in other

        said = cluster.here(*revoke, "--withdraw", "--reason", "not needed").check().out
        assert "no administrator calls them back" in said
        until(lambda: seen.grant.state is HoldingState.SAFE, "anna is notified of that")

        again = cluster.here(*revoke, "--notice", "1s", *WHY, "--json").check().json
        assert again["revoked"]["notice_seconds"] == 1
        until(lambda: seen.grant.state is HoldingState.LOST, "the notice is over", within=60)
        assert seen.asked.result(30).fence > seen.grant.fence


def test_what_cannot_be_done_is_said(cluster: Cluster, pool: str) -> None:
    with busy(cluster, pool) as seen:
        held = seen.grant.grant_id
        revoke = ("grant", "revoke", pool, held)
        assert "--notice" in cluster.here(*revoke, "--notice", "soon", *WHY).refused(Exit.USAGE)
        both = cluster.here(*revoke, "--now", "--withdraw", *WHY).refused(Exit.USAGE)
        assert "give one of the two" in both
        unknown = ("grant", "revoke", pool, UNKNOWN, *WHY)
        assert "no grant" in cluster.here(*unknown).refused(Exit.NOT_FOUND)
        waits = cluster.here("grant", "revoke", pool, seen.ticket, *WHY).refused(Exit.FAILED)
        assert "holds no seat" in waits
        extend = cluster.here("grant", "extend", pool, held, "--for", "1h", *WHY)
        assert "no longest hold" in extend.refused(Exit.FAILED)
        taken = cluster.here(*revoke, "--now", *WHY, "--json").check().json
        assert taken["released"] == held


def test_a_longest_hold_is_set_shown_and_extended(cluster: Cluster, pool: str) -> None:
    hold = ("pool", "update", pool, "--hold", "longest=8h,warning=10m,idle=30m", "--json")
    assert cluster.here(*hold).check().json["hold"] == {
        "longest_seconds": 28_800,
        "idle_seconds": 1_800,
        "warning_seconds": 600,
    }
    shown = cluster.here("pool", "show", pool).check().out
    assert "longest=28800,idle=1800,warning=600" in shown
    assert "hold: {longest: 28800, idle: 1800, warning: 600}" in (
        cluster.here("pool", "show", pool, "--yaml").check().out
    )
    for bad, says in (("8h", "is not one of"), ("longest=8h", "no warning"), ("", "not one")):
        assert says in cluster.here("pool", "update", pool, "--hold", bad).refused(Exit.USAGE)
    with busy(cluster, pool) as seen:
        held = seen.grant.grant_id
        for hours in (1, 3):
            extend = ("grant", "extend", pool, held, "--for", f"{hours}h", *WHY, "--json")
            extended = cluster.here(*extend).check().json["extended_seconds"]
        assert extended == 4 * 3600
        assert "4 h 0 min of it added" in cluster.here("grant", "show", pool, held).check().out
    none = cluster.here("pool", "update", pool, "--hold", "none", "--json").check().json
    assert "hold" not in none


def test_run_stops_a_command_that_does_nothing_and_leaves_one_that_does(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    cluster.here("pool", "update", pool, "--hold", "idle=2s,warning=1s").check()
    log = str(tmp_path / "work.log")
    works = f"i=0; while [ $i -lt 30 ]; do echo $i >> '{log}'; sleep 0.2; i=$((i+1)); done"
    run = ("run", "--pool", pool, "--json", "--activity")
    done = cluster(*run, log, "--", "sh", "-c", works)
    assert done.code == 0, done.err
    began = time.monotonic()
    idle = cluster(*run, str(tmp_path / "nothing"), "--", "sleep", "60")
    assert idle.code == Exit.SEAT_LOST, idle.err
    assert time.monotonic() - began < 50
    events = [json.loads(line) for line in idle.err.splitlines()]
    reasons = [each["reason"] for each in events if each["event"] == "called_back"]
    assert reasons == ["nothing was done with them for 2.0 s, as their holder reports"]
