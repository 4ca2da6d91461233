"""``seatkeeper queue`` and ``seatkeeper grant``: who waits, who holds, and what is done about it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.cli.commands import started
from tests.cli.conftest import Cluster
from tests.processes import until

from seatkeeper.cli.exits import Exit
from seatkeeper.client import Grant, HoldingState, RequestRemoved, SeatClient

UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"


@dataclass(frozen=True)
class Busy:
    """A pool of one seat, who holds it, and who waits for it."""

    pool: str
    grant: Grant
    ticket: str
    asked: Future[Grant]


@contextmanager
def busy(cluster: Cluster, pool: str) -> Iterator[Busy]:
    """Have anna hold the only seat, and bert wait for it."""
    with (
        SeatClient(cluster.address, holder="anna", project="cv") as anna,
        SeatClient(cluster.address, holder="bert", project="nlp") as bert,
        ThreadPoolExecutor(1) as threads,
    ):
        grant = anna.acquire(pool, wait=5)
        asked = threads.submit(bert.acquire, pool, wait=60, priority=2)
        until(lambda: cluster.look(pool).queued, "bert waits")
        try:
            yield Busy(pool, grant, cluster.look(pool).tickets[0].grant_id, asked)
        finally:
            grant.release()


def test_who_waits_is_listed_and_shown(cluster: Cluster, pool: str) -> None:
    assert "no request waits" in cluster.here("queue", "list", pool).check().out
    with busy(cluster, pool) as seen:
        listed = cluster.here("queue", "list", pool, "--json").check().json
        assert (listed["pool"], listed["queued"]) == (pool, 1)
        (ticket,) = listed["queue"]
        assert (ticket["grant_id"], ticket["position"]) == (seen.ticket, 1)
        assert (ticket["holder"], ticket["project"]) == ("bert", "nlp")
        assert (ticket["priority"], ticket["seats"]) == (2, 1)
        text = cluster.here("queue", "list", pool).check().out
        assert "PRIORITY" in text
        assert seen.ticket in text
        shown = cluster.here("queue", "show", pool, seen.ticket, "--json").check().json
        assert shown == {"pool": pool, **ticket}
        assert "bert" in cluster.here("queue", "show", pool, seen.ticket).check().out


def test_who_holds_is_listed_and_shown(cluster: Cluster, pool: str) -> None:
    assert "no seat is held" in cluster.here("grant", "list", pool).check().out
    with busy(cluster, pool) as seen:
        held = seen.grant.grant_id
        (grant,) = cluster.here("grant", "list", pool, "--json").check().json["grants"]
        assert (grant["pool"], grant["grant_id"], grant["holder"]) == (pool, held, "anna")
        everywhere = cluster.here("grant", "list", "--json").check().json["grants"]
        assert held in {each["grant_id"] for each in everywhere}
        text = cluster.here("grant", "list").check().out
        assert f"{pool}: 1 of 1 seats held" in text
        assert held in text
        shown = cluster.here("grant", "show", pool, held, "--json").check().json
        assert shown.keys() == grant.keys()
        assert (shown["fence"], shown["agent_id"]) == (seen.grant.fence, None)
        assert "anna" in cluster.here("grant", "show", pool, held).check().out


def test_an_unknown_id_is_answered_by_what_to_do(cluster: Cluster, pool: str) -> None:
    with busy(cluster, pool) as seen:
        said = cluster.here("queue", "show", pool, UNKNOWN).refused(Exit.NOT_FOUND)
        assert f"`seatkeeper queue list {pool}`" in said
        said = cluster.here("grant", "show", pool, UNKNOWN).refused(Exit.NOT_FOUND)
        assert f"`seatkeeper grant list {pool}`" in said
        said = cluster.here("queue", "show", pool, seen.grant.grant_id).refused(Exit.NOT_FOUND)
        assert "`seatkeeper grant show`" in said
        said = cluster.here("grant", "show", pool, seen.ticket).refused(Exit.NOT_FOUND)
        assert "`seatkeeper queue show`" in said
    for words in (["queue", "list"], ["grant", "list"]):
        assert "pool list" in cluster.here(*words, "absent").refused(Exit.NOT_FOUND)


def test_why_one_waits_is_said_by_the_rule_that_decides(cluster: Cluster, pool: str) -> None:
    with busy(cluster, pool) as seen:
        said = cluster.here("queue", "why", pool, seen.ticket, "--json").check().json
        assert (said["rule"], said["ahead"], said["pool"]) == ("seats", [], pool)
        shown = cluster.here("queue", "show", pool, seen.ticket, "--json").check().json
        assert {"pool": pool, **said["request"]} == shown
        words = cluster.here("queue", "why", pool, seen.ticket).check().out
        assert "it is next: it wants 1 seat, and 0 of 1 are free (rule `seats`)" in words
        cluster.client.pools.update(pool, seats=0)
        closed = cluster.here("queue", "why", pool, seen.ticket, "--json").check().json
        assert closed["rule"] == "closed"
        cluster.client.pools.update(pool, seats=1)
        holds = cluster.here("queue", "why", pool, seen.grant.grant_id).refused(Exit.FAILED)
        assert "`seatkeeper grant show`" in holds
        unknown = cluster.here("queue", "why", pool, UNKNOWN).refused(Exit.NOT_FOUND)
        assert f"`seatkeeper queue list {pool}`" in unknown


def test_a_request_is_moved_in_the_queue(cluster: Cluster, pool: str) -> None:
    with (
        busy(cluster, pool) as seen,
        SeatClient(cluster.address, holder="cora") as cora,
        ThreadPoolExecutor(1) as threads,
    ):
        asked = threads.submit(cora.acquire, pool, wait=60, priority=2)
        until(lambda: cluster.look(pool).queued == 2, "cora waits")
        last = cluster.look(pool).tickets[1].grant_id
        move = ("queue", "move", pool, last, "--reason", "the release waits for it")
        said = cluster.here(*move, "--before", seen.ticket).check().out
        assert f"request {last} of cora waits for {pool}, at position 1 now" in said
        moved = cluster.here(*move, "--first", "--json").check().json
        assert (moved["moved"]["reason"], moved["position"]) == (move[-1], 1)
        first, second = cluster.here("queue", "list", pool, "--json").check().json["queue"]
        assert (first["grant_id"], first["moved"]) == (last, moved["moved"])
        assert (second["grant_id"], second["moved"]) == (seen.ticket, None)
        shown = cluster.here("queue", "show", pool, last).check().out
        assert "by an administrator" in shown
        assert "the release waits for it" in shown
        why = cluster.here("queue", "why", pool, seen.ticket).check().out
        assert "1 that an administrator's move put before it" in why
        why = cluster.here("queue", "why", pool, last).check().out
        assert "an administrator moved it: the release waits for it" in why
        cluster.here(*move, "--last").check()
        assert cluster.look(pool).tickets[1].grant_id == last
        for to in ([], ["--first", "--last"], ["--first", "--before", seen.ticket]):
            said = cluster.here(*move, *to).refused(Exit.USAGE)
            assert "--before ID, --first or --last" in said
        held = seen.grant.grant_id
        said = cluster.here(*move, "--before", held).refused(Exit.FAILED)
        assert "no place before it" in said
        holds = cluster.here("queue", "move", pool, held, "--first", "--reason", "x")
        assert "`seatkeeper grant show`" in holds.refused(Exit.FAILED)
        unknown = cluster.here("queue", "move", pool, UNKNOWN, "--first", "--reason", "x")
        assert f"`seatkeeper queue list {pool}`" in unknown.refused(Exit.NOT_FOUND)
        cluster.client.pools.remove(pool, last, reason="the test is over")
        with pytest.raises(RequestRemoved):
            asked.result(20)


def test_a_request_is_taken_out_of_the_queue(cluster: Cluster, pool: str) -> None:
    with busy(cluster, pool) as seen:
        remove = ("queue", "remove", pool, seen.ticket, "--reason", "a runaway job")
        assert cluster.here(*remove, "--json").check().json == {
            "removed": seen.ticket,
            "pool": pool,
            "holder": "bert",
        }
        with pytest.raises(RequestRemoved, match="a runaway job"):
            seen.asked.result(timeout=20)
        assert not cluster.look(pool).tickets
        assert "no request" in cluster.here(*remove).refused(Exit.NOT_FOUND)
        held = ("queue", "remove", pool, seen.grant.grant_id, "--reason", "x")
        assert "holds seats" in cluster.here(*held).refused(Exit.FAILED)
    for words, why in (
        (remove[:4], "--reason"),
        ((*remove[:4], "--reason", " "), "say why"),
        (("queue", "remove", pool, "no-id", "--reason", "x"), "is not a UUIDv7"),
    ):
        assert why in cluster.here(*words).refused(Exit.USAGE)


def test_the_seats_of_a_grant_are_freed_for_the_next(cluster: Cluster, pool: str) -> None:
    with busy(cluster, pool) as seen:
        release = (
            "grant",
            "release",
            pool,
            seen.grant.grant_id,
            "--reason",
            "its host is gone",
        )
        refused = cluster.here(*release).refused(Exit.USAGE)
        assert "--now" in refused
        assert seen.grant.state is not HoldingState.LOST
        done = cluster.here(*release, "--now").check()
        assert f"1 seat of {pool} taken back from anna" in done.out
        assert "warning: if its holder cannot be reached" in done.err
        until(lambda: seen.grant.state is HoldingState.LOST, "anna is notified")
        after = seen.asked.result(timeout=20)
        assert after.fence > seen.grant.fence
        after.release()
        assert "no grant" in cluster.here(*release, "--now").refused(Exit.NOT_FOUND)


def test_a_command_that_runs_under_it_is_stopped(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    run = ("run", "--pool", pool, "--", "sh", "-c", "echo ready; sleep 100")
    with started(*run, folder=tmp_path, SEATKEEPER_NODES=cluster.address) as running:
        running.says("ready")
        (grant,) = cluster.look(pool).grants
        cluster.client.pools.release_now(pool, grant.grant_id, reason="it ran wild")
        said = running.ends().check(Exit.SEAT_LOST).err
        assert "it ran wild): stopping sh" in said
