"""What is wrong with a running service, from what was seen of it. Pure.

`observe` in the module of that name does the looking; `diagnose` here turns what it saw into findings,
each with what to do next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from google.protobuf.duration_pb2 import Duration

from seatkeeper.core.amounts import count, size, span
from seatkeeper.core.tokens import LEEWAY
from seatkeeper.v1 import build_service_pb2, cluster_service_pb2
from seatkeeper.v1 import pool_service_pb2 as pools_pb

CLOCK_TOLERABLE = timedelta(seconds=1)
CERTIFICATE_DAYS = (7, 30)
"""Days left at which the end of a certificate is a problem, and a warning."""
READ_SLOW = timedelta(milliseconds=100)
COMMIT_SLOW = timedelta(milliseconds=250)
STORE_LARGE_BYTES = 3 * (1 << 30) // 2
"""Three quarters of etcd's default quota of 2 GiB, which is all that can be known of it."""
STORE_WASTE_BYTES = 1 << 28
CONFLICTS_SHARE = 0.05
UNANSWERED_SHARE = 0.01
COMMITS_MIN = 100
"""Shares of fewer commits than this say little."""
LOOPBACK = ("127.", "localhost:", "[::1]:")


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    """It works, and should not stay so."""
    PROBLEM = "problem"
    """Something does not work, or will not survive the next fault."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    level: Level
    about: str
    """What was looked at: ``nodes``, ``clocks``, ..."""
    what: str
    advice: str = ""
    """What to do; empty where nothing is to be done."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was seen of a service."""

    report: cluster_service_pb2.GetReportResponse
    here: datetime
    """This machine's clock in the middle of asking for the report."""
    took: timedelta
    """How long asking took."""
    given: Sequence[str]
    """The addresses that the service was asked for at."""
    unreached: Mapping[str, str]
    """Why an address of a node or an agent, or one that was given, could not be reached from here;
    those that could are not in it."""
    deployments: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Which service the node at an address is of, and its prefix in the store."""
    agents: Sequence[build_service_pb2.AgentInfo] | None = None
    """None: they could not be asked for."""
    pools: Sequence[pools_pb.Pool] | None = None
    """None: they could not be asked for."""


def diagnose(seen: Seen) -> list[Finding]:
    """Return what there is to say about a service, topic by topic; one line where all is well."""
    return [finding for check in _CHECKS for finding in check(seen)]


def _nodes(seen: Seen) -> Iterator[Finding]:
    asking = seen.report.node_id
    reports = seen.report.nodes
    answering = [node for node in reports if not node.failure]
    failed = {node.node_id for node in reports} - {node.node_id for node in answering}
    for node in reports:
        if node.failure:
            yield Finding(
                Level.PROBLEM,
                "nodes",
                f"{node.node_id} at {node.address} does not answer {asking}: {node.failure}",
                "see whether its process runs, whether its certificate is valid, and whether its "
                "`advertise` is an address that the other nodes reach; one that was killed leaves by "
                "itself within 10 s",
            )
    for node in answering:
        for silent in sorted(set(node.silent) - failed):
            yield Finding(
                Level.WARNING,
                "nodes",
                f"{silent} did not answer {node.node_id} lately",
                f"if it stays so, see whether {node.node_id} can reach {silent}'s address",
            )
        if missing := {each.node_id for each in answering} - set(node.ring):
            yield Finding(
                Level.WARNING,
                "nodes",
                f"{node.node_id} does not know of {', '.join(sorted(missing))}",
                "its watch of etcd is behind: ask again in some seconds",
            )
    versions = sorted({node.version for node in answering})
    if len(versions) > 1:
        yield Finding(
            Level.WARNING,
            "nodes",
            f"they run different versions: {', '.join(versions)}",
            "finish the update of all nodes",
        )
    if len(reports) == 1:
        yield Finding(
            Level.WARNING,
            "nodes",
            "there is only one: when it dies, no request is served",
            "start a second one, on another machine",
        )
    if len(answering) == len(reports) > 1:
        yield Finding(
            Level.OK, "nodes", f"{len(reports)}, version {versions[0]}, and all answer {asking}"
        )


def _transport(seen: Seen) -> Iterator[Finding]:
    plain = [node for node in seen.report.nodes if not node.failure and not node.tls]
    exposed = [node for node in plain if not node.address.startswith(LOOPBACK)]
    if exposed:
        yield Finding(
            Level.WARNING,
            "transport",
            f"{_names(exposed)} speak{'s' * (len(exposed) == 1)} plain text: tokens and secrets can "
            "be read on the way",
            "give the nodes certificates (`tls_cert_file`, `tls_key_file`)",
        )


def _access(seen: Seen) -> Iterator[Finding]:
    answering = [node for node in seen.report.nodes if not node.failure]
    older = [node for node in answering if not node.HasField("access")]
    if older:
        yield Finding(
            Level.WARNING,
            "access",
            f"{_names(older)} let{'s' * (len(older) == 1)} anybody administer, of an older version",
            "finish the update of all nodes: the service is as open as its most open node",
        )
    asking = [node for node in answering if node.access.asks_for_certificates]
    for setting, effect in _EFFECTS.items():
        empty = [node for node in asking if not getattr(node.access, setting)]
        if empty:
            yield Finding(
                Level.WARNING,
                "access",
                f"`{setting}` of {_names(empty)} is empty: no client may {effect}",
                f"name who may in `{setting}`, such as dns:admin.example, by certificates' "
                "alternative names",
            )
    if len({node.access.names_digest for node in answering if node.HasField("access")}) > 1:
        yield Finding(
            Level.WARNING,
            "access",
            "nodes have different `administrators` or `agents`",
            "give all nodes the same: a name that one of them takes may do everything",
        )
    if opened := [node for node in answering if node.access.is_open_to_anybody]:
        yield Finding(
            Level.WARNING,
            "access",
            f"anybody who reaches {_names(opened)} may change pools and drain nodes",
            "ask clients for certificates (`tls_client_ca_file`), and name `administrators`",
        )


_EFFECTS = {
    "administrators": "change pools or drain nodes",
    "agents": "work as a build agent",
}


def _deployment(seen: Seen) -> Iterator[Finding]:
    answering = [node for node in seen.report.nodes if not node.failure]
    for node in answering:
        if node.store_trouble:
            yield Finding(
                Level.PROBLEM,
                "deployment",
                f"{node.node_id} serves nothing: {node.store_trouble}",
                "see `A restored or wiped etcd` in docs/how-to/operate.md",
            )
    ours = sorted({node.deployment_id for node in answering if node.deployment_id})
    if len(ours) > 1:
        yield Finding(
            Level.PROBLEM,
            "deployment",
            f"nodes serve different ones: {', '.join(ours)}",
            "etcd was adopted since some of them started: restart these",
        )
    for address, (theirs, prefix) in seen.deployments.items():
        if ours and theirs and theirs not in ours:
            yield Finding(
                Level.PROBLEM,
                "deployment",
                f"the node at {address} is of another service: deployment {theirs}, prefix {prefix}",
                "leave it out of --nodes: sessions of one service mean nothing in another",
            )


def _clocks(seen: Seen) -> Iterator[Finding]:
    worst = timedelta(0)
    offsets = {
        node.node_id: (_span(node.clock_ahead), _span(node.clock_error))
        for node in seen.report.nodes
        if not node.failure
    }
    asked = next((n for n in seen.report.nodes if n.node_id == seen.report.node_id), None)
    if asked is not None:
        ahead = seen.here - asked.clock.ToDatetime(UTC)
        offsets["this machine"] = (ahead, seen.took / 2)
    for who, (ahead, error) in offsets.items():
        surely = max(timedelta(0), abs(ahead) - error)
        worst = max(worst, surely)
        if surely <= CLOCK_TOLERABLE:
            continue
        way = "ahead of" if ahead > timedelta(0) else "behind"
        refused = surely >= LEEWAY
        yield Finding(
            Level.PROBLEM if refused else Level.WARNING,
            "clocks",
            f"{who} is {abs(ahead).total_seconds():.1f} s {way} {seen.report.node_id}"
            + (": tokens are refused" if refused else ""),
            "run NTP on all machines; seats are safe, but tokens and waiting times go by the clock",
        )
    if worst <= CLOCK_TOLERABLE:
        yield Finding(
            Level.OK,
            "clocks",
            f"all within {CLOCK_TOLERABLE.total_seconds():g} s of each other",
        )


def _certificates(seen: Seen) -> Iterator[Finding]:
    problem, warning = CERTIFICATE_DAYS
    shortest: float | None = None
    for node in seen.report.nodes:
        for certificate in node.certificates:
            what = f"{certificate.setting} of {node.node_id}"
            advice = f"renew it, and restart {node.node_id}"
            if certificate.failure:
                yield Finding(
                    Level.PROBLEM,
                    "certificates",
                    f"{what} cannot be read: {certificate.failure}",
                    "put the file back before the next restart",
                )
                continue
            left = certificate.not_after.ToDatetime(UTC) - seen.here
            days = left.total_seconds() / 86_400
            shortest = days if shortest is None else min(shortest, days)
            if days < 0:
                ended = f"{what} ({certificate.subject}) has ended {span(-86_400 * days)} ago"
                yield Finding(Level.PROBLEM, "certificates", ended, advice)
            elif days < warning:
                level = Level.PROBLEM if days < problem else Level.WARNING
                ends = f"{what} ({certificate.subject}) ends in {span(86_400 * days)}"
                yield Finding(level, "certificates", ends, advice)
    if shortest is not None and shortest >= warning:
        valid = f"all valid for {shortest:.0f} days at least"
        yield Finding(Level.OK, "certificates", valid)


def _ports(seen: Seen) -> Iterator[Finding]:
    for node in seen.report.nodes:
        if not node.failure and node.address in seen.unreached:
            yield Finding(
                Level.WARNING,
                "ports",
                f"{node.node_id} cannot be reached from here, at {node.address}: "
                f"{seen.unreached[node.address]}",
                "clients go to the node that owns their pool. Where they may only use a balancer, "
                "set `follow_ring=False` in them",
            )
    for agent in seen.agents or ():
        if agent.address in seen.unreached:
            yield Finding(
                Level.PROBLEM,
                "ports",
                f"agent {agent.agent_id} cannot be reached from here, at {agent.address}: "
                f"{seen.unreached[agent.address]}",
                "see whether it runs; models are sent to agents directly, so that port must be open "
                "and its `advertise` right",
            )
    registered = {node.address for node in seen.report.nodes}
    for address in seen.given:
        if address in seen.unreached and address not in registered:
            yield Finding(
                Level.WARNING,
                "ports",
                f"{address}, which was given, does not answer, and no node is registered there",
                "start that node again, or leave it out of --nodes",
            )
    looked = registered.union(seen.given, (agent.address for agent in seen.agents or ()))
    if not seen.unreached:
        yield Finding(
            Level.OK, "ports", f"all {len(looked)} addresses can be reached from here"
        )


def _store(seen: Seen) -> Iterator[Finding]:
    store = seen.report.store
    if store.kind != "etcd":
        yield Finding(
            Level.WARNING,
            "store",
            f"it is {store.kind}: all is lost with the node",
            "use etcd for whatever should outlive a process",
        )
        return
    quorum = store.HasField("read_time")
    if not quorum:
        yield Finding(
            Level.PROBLEM,
            "etcd",
            "it has no quorum: nothing is granted, renewed or given back",
            "start the members that are down; more than half of them must answer each other",
        )
    elif _span(store.read_time) > READ_SLOW:
        yield Finding(
            Level.WARNING,
            "etcd",
            f"one read took {_millis(_span(store.read_time))}",
            "see whether its disks or its network are slow (`etcdctl check perf`)",
        )
    yield from _members(store, seen.report.node_id, quorum=quorum)
    yield from _alarms(store)
    for warning in store.warnings:
        yield Finding(Level.WARNING, "etcd", warning, "update etcd, one member after another")
    leader = next(
        (_called(member) for member in store.members if member.is_leader), "not reported"
    )
    if quorum:
        leases = f", {count(store.leases, 'lease')}" if store.HasField("leases") else ""
        yield Finding(
            Level.OK,
            "etcd",
            f"it has a quorum: {count(len(store.members), 'member')}, leader {leader}{leases}, a read "
            f"takes {_millis(_span(store.read_time))}",
        )


def _members(
    store: cluster_service_pb2.StoreReport, asking: str, *, quorum: bool
) -> Iterator[Finding]:
    for member in store.members:
        if member.is_unconfigured:
            yield Finding(
                Level.WARNING,
                "etcd",
                f"member {_called(member)} is not among the endpoints that {asking} was given",
                "name all members in `etcd_endpoints`, so that nodes can use any of them",
            )
        elif member.failure.startswith("is not ours"):
            yield Finding(
                Level.PROBLEM,
                "etcd",
                f"member {_called(member)} {member.failure}",
                "its restart fixes nothing; see `A restored or wiped etcd` in docs/how-to/operate.md",
            )
        elif member.failure:
            yield Finding(
                Level.PROBLEM,
                "etcd",
                f"member {_called(member)} {member.failure}",
                "start it again: the next loss may take the quorum"
                if quorum
                else "start it again",
            )
        elif member.size_bytes > STORE_LARGE_BYTES:
            yield Finding(
                Level.WARNING,
                "etcd",
                f"the database of {_called(member)} has {size(member.size_bytes)}; etcd's default "
                "quota is 2 GiB",
                "see that `--auto-compaction-retention` is set, and defragment",
            )
        elif member.size_bytes - member.used_bytes > STORE_WASTE_BYTES:
            yield Finding(
                Level.WARNING,
                "etcd",
                f"the database of {_called(member)} has {size(member.size_bytes)}, of which "
                f"{size(member.used_bytes)} are used",
                f"`etcdctl --endpoints {member.endpoint} defrag`, one member after another",
            )
    versions = sorted({member.version for member in store.members if member.version})
    if len(versions) > 1:
        yield Finding(
            Level.WARNING,
            "etcd",
            f"its members run different versions: {', '.join(versions)}",
            "finish its update",
        )
    if len(store.members) < 3:
        yield Finding(
            Level.WARNING,
            "etcd",
            f"it has {count(len(store.members), 'member')}: the loss of one stops everything",
            "run three",
        )


def _alarms(store: cluster_service_pb2.StoreReport) -> Iterator[Finding]:
    for alarm in store.alarms:
        if alarm == "NOSPACE":
            yield Finding(
                Level.PROBLEM,
                "etcd",
                "alarm NOSPACE: it is full. Seats can be given back, none can be taken",
                "`etcdctl compact REVISION`, `etcdctl defrag --cluster`, `etcdctl alarm disarm`; then "
                "set `--auto-compaction-retention`",
            )
        else:
            yield Finding(
                Level.PROBLEM,
                "etcd",
                f"alarm {alarm}: its members disagree about the data",
                "stop the nodes, and restore the member that is wrong, as etcd's documentation on "
                "data corruption says",
            )


def _work(seen: Seen) -> Iterator[Finding]:
    for node in seen.report.nodes:
        work = node.work
        if work.commits < COMMITS_MIN:
            continue
        if _span(work.commit_p99) > COMMIT_SLOW:
            yield Finding(
                Level.WARNING,
                "commits",
                f"on {node.node_id} one in a hundred took {_millis(_span(work.commit_p99))} or more",
                "see etcd's `etcd_disk_wal_fsync_duration_seconds`: its disks may be slow",
            )
        if work.conflicts > CONFLICTS_SHARE * work.commits:
            yield Finding(
                Level.WARNING,
                "commits",
                f"{work.conflicts} of {node.node_id}'s met another node's decision, {work.commits} "
                "took effect",
                "nodes disagree about who owns a pool, or run with `routing = local`; this costs "
                "time, never correctness",
            )
        lost = work.outcomes_unknown + work.store_failures
        if lost > UNANSWERED_SHARE * work.commits:
            yield Finding(
                Level.WARNING,
                "commits",
                f"etcd failed {lost} of {node.node_id}'s since it started, and took {work.commits}",
                "see etcd's logs from that time",
            )


def _pools(seen: Seen) -> Iterator[Finding]:
    if seen.pools is None or seen.agents is None:
        yield Finding(
            Level.PROBLEM,
            "pools",
            "they cannot be read",
            "fix what is said about the store first",
        )
        return
    names = {pool.spec.name for pool in seen.pools}
    for pool in seen.pools:
        if pool.held > pool.spec.seats and not pool.spec.policy.counting.advisory:
            yield Finding(
                Level.WARNING,
                "pools",
                f"{pool.spec.name}: {pool.held} seats are held, and it has {pool.spec.seats}",
                "its capacity was lowered, or it was advisory; nothing new is granted until the "
                "surplus is given back",
            )
    for agent in seen.agents:
        if agent.pool not in names:
            yield Finding(
                Level.PROBLEM,
                "pools",
                f"agent {agent.agent_id} builds under pool {agent.pool}, which does not exist",
                f"`seatkeeper pool create {agent.pool} --seats N`",
            )
    if not names:
        yield Finding(
            Level.WARNING, "pools", "there is none", "`seatkeeper pool create NAME --seats N`"
        )
    else:
        held = sum(pool.held for pool in seen.pools)
        queued = sum(pool.queued for pool in seen.pools)
        yield Finding(
            Level.OK,
            "pools",
            f"{count(len(names), 'pool')}, {count(held, 'seat')} held, {queued} queued; "
            f"{count(len(seen.agents), 'agent')}",
        )


_CHECKS: tuple[Callable[[Seen], Iterator[Finding]], ...] = (
    _nodes,
    _transport,
    _access,
    _deployment,
    _clocks,
    _certificates,
    _ports,
    _store,
    _work,
    _pools,
)


def _names(nodes: Sequence[cluster_service_pb2.NodeReport]) -> str:
    return ", ".join(node.node_id for node in nodes)


def _called(member: cluster_service_pb2.StoreMember) -> str:
    return f"{member.name} ({member.endpoint})" if member.name else member.endpoint


def _span(duration: Duration) -> timedelta:
    return duration.ToTimedelta()


def _millis(length: timedelta) -> str:
    return f"{length.total_seconds() * 1000:.1f} ms"
