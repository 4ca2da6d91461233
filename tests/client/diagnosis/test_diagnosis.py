"""Every finding of ``seatkeeper doctor``, from services that are made up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from seatkeeper.client.diagnosis.diagnosis import Finding, Level, Seen, diagnose
from seatkeeper.v1 import build_service_pb2
from seatkeeper.v1 import cluster_service_pb2 as pb
from seatkeeper.v1 import pool_service_pb2 as pools_pb

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
NAMES = ("n-1", "n-2", "n-3")


def well() -> Seen:
    """Return a service that nothing is wrong with."""
    report = pb.GetReportResponse(node_id="n-1")
    for number, name in enumerate(NAMES):
        node = report.nodes.add(
            node_id=name, address=f"10.0.0.{number}:7420", version="1.0", tls=True, ring=NAMES
        )
        node.clock.FromDatetime(NOW)
        node.clock_error.FromTimedelta(timedelta(milliseconds=1))
        certificate = node.certificates.add(setting="tls_cert_file", subject=f"CN={name}")
        certificate.not_after.FromDatetime(NOW + timedelta(days=90))
        node.access.asks_for_certificates = True
        node.access.administrators = node.access.agents = 1
        node.work.commits, node.work.commands = 1000, 4000
        node.work.commit_p99.FromTimedelta(timedelta(milliseconds=5))
    report.store.kind = "etcd"
    report.store.leases = 12
    report.store.read_time.FromTimedelta(timedelta(milliseconds=1))
    for number in range(3):
        report.store.members.add(
            name=f"m-{number}",
            endpoint=f"10.0.1.{number}:2379",
            version="3.5.33",
            is_leader=number == 1,
            size_bytes=1 << 20,
            used_bytes=1 << 20,
        )
    pool = pools_pb.Pool(held=1, free=1)
    pool.spec.name, pool.spec.seats = "tensorrt", 2
    agent = build_service_pb2.AgentInfo(
        agent_id="a-1", address="10.0.2.1:7440", pool="tensorrt"
    )
    return Seen(
        report=report,
        here=NOW,
        took=timedelta(milliseconds=4),
        given=["10.0.0.0:7420"],
        unreached={},
        agents=[agent],
        pools=[pool],
    )


def worse(seen: Seen) -> list[Finding]:
    """Return what is not as it should be; each says what to do."""
    found = [finding for finding in diagnose(seen) if finding.level is not Level.OK]
    assert all(finding.advice for finding in found)
    return found


def test_a_service_that_is_well_gets_one_line_for_each_topic() -> None:
    findings = diagnose(well())
    assert {finding.level for finding in findings} == {Level.OK}
    topics = [finding.about for finding in findings]
    assert topics == ["nodes", "clocks", "certificates", "ports", "etcd", "pools"]
    assert "leader m-1" in findings[4].what


def _node_is_gone(report: pb.GetReportResponse) -> None:
    gone = pb.NodeReport(node_id="n-2", address="10.0.0.1:7420", failure="UNAVAILABLE refused")
    report.nodes[1].CopyFrom(gone)


def _node_was_silent(report: pb.GetReportResponse) -> None:
    report.nodes[2].silent.append("n-1")


def _ring_is_old(report: pb.GetReportResponse) -> None:
    del report.nodes[2].ring[1:]


def _versions_differ(report: pb.GetReportResponse) -> None:
    report.nodes[0].version = "0.9"


def _one_node(report: pb.GetReportResponse) -> None:
    del report.nodes[1:]
    del report.nodes[0].ring[1:]


def _plain_text(report: pb.GetReportResponse) -> None:
    report.nodes[1].tls = False


def _no_administrators(report: pb.GetReportResponse) -> None:
    for node in report.nodes:
        node.access.administrators = 0


def _no_agents(report: pb.GetReportResponse) -> None:
    for node in report.nodes:
        node.access.agents = 0


def _anybody_may_administer(report: pb.GetReportResponse) -> None:
    for node in report.nodes:
        node.access.CopyFrom(pb.NodeAccess(is_open_to_anybody=True))


def _older_than_the_gate(report: pb.GetReportResponse) -> None:
    report.nodes[1].ClearField("access")


def _store_is_foreign(report: pb.GetReportResponse) -> None:
    report.nodes[1].store_trouble = "the deployment is gone from etcd"


def _services_differ(report: pb.GetReportResponse) -> None:
    report.nodes[0].deployment_id, report.nodes[1].deployment_id = "aa", "bb"


def _lists_differ(report: pb.GetReportResponse) -> None:
    report.nodes[1].access.names_digest = b"other"


def _clock_ahead(report: pb.GetReportResponse) -> None:
    report.nodes[1].clock_ahead.FromTimedelta(timedelta(seconds=3))


def _clock_far_behind(report: pb.GetReportResponse) -> None:
    report.nodes[1].clock_ahead.FromTimedelta(timedelta(seconds=-30))


def _clock_of_this_machine(report: pb.GetReportResponse) -> None:
    for node in report.nodes:
        node.clock.FromDatetime(NOW - timedelta(minutes=2))


def _certificate_ends_soon(report: pb.GetReportResponse) -> None:
    ends = NOW + timedelta(days=20)
    report.nodes[0].certificates[0].not_after.FromDatetime(ends)


def _certificate_ends_very_soon(report: pb.GetReportResponse) -> None:
    ends = NOW + timedelta(days=3)
    report.nodes[0].certificates[0].not_after.FromDatetime(ends)


def _certificate_has_ended(report: pb.GetReportResponse) -> None:
    ends = NOW - timedelta(days=2)
    report.nodes[0].certificates[0].not_after.FromDatetime(ends)


def _certificate_is_gone(report: pb.GetReportResponse) -> None:
    report.nodes[0].certificates[0].failure = "/tls.pem: No such file or directory"


def _store_in_memory(report: pb.GetReportResponse) -> None:
    report.store.Clear()
    report.store.kind = "memory"


def _no_quorum(report: pb.GetReportResponse) -> None:
    report.store.ClearField("read_time")
    report.store.ClearField("leases")


def _slow_read(report: pb.GetReportResponse) -> None:
    report.store.read_time.FromTimedelta(timedelta(milliseconds=300))


def _member_foreign(report: pb.GetReportResponse) -> None:
    report.store.members[2].failure = "is not ours: it is of etcd cluster a1"


def _member_down(report: pb.GetReportResponse) -> None:
    report.store.members[2].failure = "cannot be reached"


def _member_not_asked(report: pb.GetReportResponse) -> None:
    report.store.members[2].is_unconfigured = True


def _two_members(report: pb.GetReportResponse) -> None:
    del report.store.members[2:]


def _member_versions(report: pb.GetReportResponse) -> None:
    report.store.members[0].version = "3.5.30"


def _defect(report: pb.GetReportResponse) -> None:
    report.store.warnings.append("etcd 3.5.30: something; fixed in 3.5.33")


def _full(report: pb.GetReportResponse) -> None:
    report.store.alarms.append("NOSPACE")


def _corrupt(report: pb.GetReportResponse) -> None:
    report.store.alarms.append("CORRUPT")


def _large(report: pb.GetReportResponse) -> None:
    report.store.members[0].size_bytes = 1_900_000_000
    report.store.members[0].used_bytes = 1_900_000_000


def _fragmented(report: pb.GetReportResponse) -> None:
    report.store.members[0].size_bytes = 900_000_000


def _slow_commits(report: pb.GetReportResponse) -> None:
    report.nodes[0].work.commit_p99.FromTimedelta(timedelta(seconds=1))


def _conflicts(report: pb.GetReportResponse) -> None:
    report.nodes[0].work.conflicts = 100


def _store_failures(report: pb.GetReportResponse) -> None:
    report.nodes[0].work.outcomes_unknown = 8
    report.nodes[0].work.store_failures = 8


@pytest.mark.parametrize(
    ("spoil", "level", "about", "what"),
    [
        (_node_is_gone, Level.PROBLEM, "nodes", "n-2 at 10.0.0.1:7420 does not answer n-1"),
        (_node_was_silent, Level.WARNING, "nodes", "n-1 did not answer n-3"),
        (_ring_is_old, Level.WARNING, "nodes", "n-3 does not know of n-2, n-3"),
        (_versions_differ, Level.WARNING, "nodes", "different versions: 0.9, 1.0"),
        (_one_node, Level.WARNING, "nodes", "there is only one"),
        (_plain_text, Level.WARNING, "transport", "n-2 speaks plain text"),
        (_no_administrators, Level.WARNING, "access", "`administrators` of n-1, n-2, n-3"),
        (_no_agents, Level.WARNING, "access", "is empty: no client may work as a build agent"),
        (_anybody_may_administer, Level.WARNING, "access", "anybody who reaches n-1, n-2, n-3"),
        (_older_than_the_gate, Level.WARNING, "access", "n-2 lets anybody administer"),
        (_store_is_foreign, Level.PROBLEM, "deployment", "n-2 serves nothing: the deployment"),
        (_services_differ, Level.PROBLEM, "deployment", "different ones: aa, bb"),
        (_lists_differ, Level.WARNING, "access", "different `administrators` or `agents`"),
        (_clock_ahead, Level.WARNING, "clocks", "n-2 is 3.0 s ahead of n-1"),
        (_clock_far_behind, Level.PROBLEM, "clocks", "n-2 is 30.0 s behind n-1: tokens"),
        (_clock_of_this_machine, Level.PROBLEM, "clocks", "this machine is 120.0 s ahead"),
        (_certificate_ends_soon, Level.WARNING, "certificates", "(CN=n-1) ends in 20 d 0 h"),
        (_certificate_ends_very_soon, Level.PROBLEM, "certificates", "ends in 3 d 0 h"),
        (_certificate_has_ended, Level.PROBLEM, "certificates", "has ended 2 d 0 h ago"),
        (_certificate_is_gone, Level.PROBLEM, "certificates", "No such file"),
        (_store_in_memory, Level.WARNING, "store", "it is memory"),
        (_no_quorum, Level.PROBLEM, "etcd", "it has no quorum"),
        (_slow_read, Level.WARNING, "etcd", "one read took 300.0 ms"),
        (_member_down, Level.PROBLEM, "etcd", "m-2 (10.0.1.2:2379) cannot be reached"),
        (_member_foreign, Level.PROBLEM, "etcd", "m-2 (10.0.1.2:2379) is not ours"),
        (_member_not_asked, Level.WARNING, "etcd", "is not among the endpoints"),
        (_two_members, Level.WARNING, "etcd", "it has 2 members"),
        (_member_versions, Level.WARNING, "etcd", "different versions: 3.5.30, 3.5.33"),
        (_defect, Level.WARNING, "etcd", "fixed in 3.5.33"),
        (_full, Level.PROBLEM, "etcd", "it is full"),
        (_corrupt, Level.PROBLEM, "etcd", "disagree about the data"),
        (_large, Level.WARNING, "etcd", "1.77 GiB"),
        (_fragmented, Level.WARNING, "etcd", "are used"),
        (_slow_commits, Level.WARNING, "commits", "on n-1 one in a hundred took 1000.0 ms"),
        (_conflicts, Level.WARNING, "commits", "100 of n-1's"),
        (_store_failures, Level.WARNING, "commits", "etcd failed 16 of n-1's"),
    ],
)
def test_one_thing_wrong_is_one_finding(
    spoil: Callable[[pb.GetReportResponse], None], level: Level, about: str, what: str
) -> None:
    seen = well()
    spoil(seen.report)
    (finding,) = worse(seen)
    assert (finding.level, finding.about) == (level, about)
    assert what in finding.what


def test_a_node_that_only_this_machine_cannot_reach_is_a_warning() -> None:
    (finding,) = worse(replace(well(), unreached={"10.0.0.1:7420": "no answer"}))
    assert (finding.level, finding.about) == (Level.WARNING, "ports")
    assert "n-2 cannot be reached from here" in finding.what


def test_an_agent_that_this_machine_cannot_reach_is_a_problem() -> None:
    (finding,) = worse(replace(well(), unreached={"10.0.2.1:7440": "no answer"}))
    assert (finding.level, finding.about) == (Level.PROBLEM, "ports")


def test_an_address_without_a_node_is_named() -> None:
    seen = replace(well(), given=["10.0.0.9:7420"], unreached={"10.0.0.9:7420": "no answer"})
    (finding,) = worse(seen)
    assert (finding.level, finding.about) == (Level.WARNING, "ports")
    assert finding.what.startswith("10.0.0.9:7420, which was given, does not answer")


def test_where_a_node_does_not_answer_not_all_addresses_can_be_reached() -> None:
    seen = replace(well(), unreached={"10.0.0.1:7420": "no answer"})
    _node_is_gone(seen.report)
    findings = diagnose(seen)
    assert [each.about for each in findings if each.level is Level.PROBLEM] == ["nodes"]
    assert not any(each.about == "ports" for each in findings)


def test_an_agent_without_its_pool_is_a_problem_with_the_command_that_fixes_it() -> None:
    seen = well()
    assert seen.pools is not None
    seen.pools[0].spec.name = "other"
    (finding,) = worse(seen)
    assert finding.advice == "`seatkeeper pool create tensorrt --seats N`"


def test_a_pool_with_more_held_than_it_has_is_explained() -> None:
    seen = well()
    assert seen.pools is not None
    seen.pools[0].held = 5
    (finding,) = worse(seen)
    assert "5 seats are held, and it has 2" in finding.what


def test_without_pools_the_next_step_is_named() -> None:
    (finding,) = worse(replace(well(), pools=[], agents=[]))
    assert "pool create" in finding.advice


def test_pools_that_cannot_be_read_are_no_empty_list() -> None:
    (finding,) = worse(replace(well(), pools=None, agents=None))
    assert (finding.level, finding.what) == (Level.PROBLEM, "they cannot be read")


def test_a_clock_within_the_error_of_measuring_is_well() -> None:
    seen = well()
    seen.report.nodes[1].clock_ahead.FromTimedelta(timedelta(seconds=3))
    seen.report.nodes[1].clock_error.FromTimedelta(timedelta(seconds=2.5))
    assert worse(seen) == []


def test_on_loopback_plain_text_is_well() -> None:
    seen = well()
    for number, node in enumerate(seen.report.nodes):
        node.tls, node.address = False, f"127.0.0.1:{7420 + number}"
    assert worse(seen) == []


def test_after_few_commits_shares_say_nothing() -> None:
    seen = well()
    seen.report.nodes[0].work.commits = 10
    seen.report.nodes[0].work.conflicts = 9
    assert worse(seen) == []


def test_an_address_of_another_service_is_named() -> None:
    seen = well()
    seen.report.nodes[0].deployment_id = "aa"
    seen = replace(
        seen, deployments={"10.0.0.0:7420": ("aa", "sk"), "10.0.0.9:7420": ("bb", "x")}
    )
    (finding,) = worse(seen)
    assert finding.level is Level.PROBLEM
    assert "10.0.0.9:7420 is of another service: deployment bb, prefix x" in finding.what


def test_the_advice_does_not_name_a_member_of_another_etcd() -> None:
    seen = well()
    _member_foreign(seen.report)
    assert not any("start it again" in finding.advice for finding in worse(seen))
