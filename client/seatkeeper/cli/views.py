"""The tables of pools, nodes and agents that several commands show."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from seatkeeper.cli.attribution import attribution_columns
from seatkeeper.cli.lent import lent_to
from seatkeeper.cli.marks import would
from seatkeeper.cli.render import (
    between,
    client_says,
    iso,
    millis,
    phase_of,
    projects_json,
    seconds,
    since,
    stacked,
    table,
    words,
)
from seatkeeper.core.amounts import count, size, span
from seatkeeper.core.lot_messages import decode_marks
from seatkeeper.v1 import build_service_pb2, cluster_service_pb2
from seatkeeper.v1 import pool_service_pb2 as pools_pb

if TYPE_CHECKING:
    from rich.console import RenderableType


def nodes_table(nodes: Sequence[cluster_service_pb2.Node]) -> RenderableType:
    """Return the live nodes."""
    return table(
        ("node", "address", "version", "up for"),
        [(node.node_id, node.address, node.version, since(node.started_at)) for node in nodes],
    )


def reports_view(nodes: Sequence[cluster_service_pb2.NodeReport]) -> RenderableType:
    """Return what nodes say of themselves, and what they have done since they started."""
    members = table(
        ("node", "address", "version", "up for", ">streams"),
        [
            (node.node_id, node.address, "does not answer", "", "")
            if node.failure
            else (
                *(node.node_id, node.address, node.version, since(node.started_at)),
                str(node.work.streams),
            )
            for node in nodes
        ],
    )
    work = table(
        (
            *("node", ">commits", ">failed", ">conflicts", ">batch", ">p50 ms"),
            *(">p99 ms", ">forwarded", ">relists"),
        ),
        [_work_row(node.node_id, node.work) for node in nodes if not node.failure],
    )
    return stacked(members, words(""), work)


def _work_row(node_id: str, work: cluster_service_pb2.NodeWork) -> Sequence[str]:
    return (
        *(node_id, str(work.commits), str(work.outcomes_unknown + work.store_failures)),
        str(work.conflicts),
        f"{work.commands / work.commits:.1f}" if work.commits else "-",
        *(_number(millis(work, "commit_p50")), _number(millis(work, "commit_p99"))),
        *(str(work.forwarded), str(work.relists)),
    )


def store_view(store: cluster_service_pb2.StoreReport) -> RenderableType:
    """Return how the store is."""
    if store.kind != "etcd":
        return words(f"store: {store.kind}")
    rows = [
        (
            member.name or "?",
            member.endpoint,
            member.version,
            _role(member),
            size(member.size_bytes) if member.size_bytes else "",
        )
        for member in store.members
    ]
    leases = str(store.leases) if store.HasField("leases") else "unknown"
    read = millis(store, "read_time")
    quorum = "no quorum" if read is None else f"a read takes {read:.1f} ms"
    alarms = f"; alarms: {', '.join(store.alarms)}" if store.alarms else ""
    parts: list[RenderableType] = [
        table(("etcd", "address", "version", "role", ">size"), rows),
        words(f"leases: {leases}; {quorum}{alarms}"),
    ]
    parts += [words(f"warning: {warning}") for warning in store.warnings]
    return stacked(*parts)


def _role(member: cluster_service_pb2.StoreMember) -> str:
    if member.is_unconfigured:
        return "not configured"
    return member.failure or ("leader" if member.is_leader else "follower")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def agents_table(agents: Sequence[build_service_pb2.AgentInfo]) -> RenderableType:
    """Return the live agents, one line a backend."""
    return table(
        ("agent", "address", "pool", ">builds", ">memory", "backend", "version", "targets"),
        [
            (
                agent.agent_id,
                agent.address,
                agent.pool,
                _builds(agent),
                _memory(agent),
                backend.name,
                backend.version,
                " ".join(backend.targets),
            )
            for agent in agents
            for backend in agent.backends
        ],
    )


def builds_table(agents: Sequence[build_service_pb2.AgentInfo]) -> RenderableType:
    """Return what agents build now."""
    return table(
        ("agent", "model", "holder", "at", ">for", ">memory"),
        [
            (
                agent.agent_id,
                build.model_name,
                build.holder,
                phase_of(build.phase),
                since(build.began_at),
                size(build.memory_bytes),
            )
            for agent in agents
            for build in agent.load.builds
        ],
    )


def _builds(agent: build_service_pb2.AgentInfo) -> str:
    if not agent.HasField("load"):
        return str(agent.builds_max)
    draining = ", draining" if agent.draining else ""
    return f"{agent.load.running} of {agent.builds_max}{draining}"


def _memory(agent: build_service_pb2.AgentInfo) -> str:
    if not agent.memory_bytes:
        return "-"
    return f"{size(agent.load.memory_reserved_bytes)} of {size(agent.memory_bytes)}"


def pools_table(pools: Sequence[pools_pb.Pool]) -> RenderableType:
    """Return how full pools are."""
    return table(
        ("pool", ">seats", ">held", ">free", ">queued", "owner", "description"),
        [
            (
                pool.spec.name,
                seats_of(pool),
                str(pool.held),
                str(pool.free),
                str(pool.queued),
                pool.owner,
                pool.spec.description,
            )
            for pool in pools
        ],
    )


def seats_of(pool: pools_pb.Pool) -> str:
    """Return how many seats a pool has, and whether it is closed or drained."""
    seats = str(pool.spec.seats) if pool.spec.seats else "closed"
    seats += ", advisory" if pool.spec.policy.counting.advisory else ""
    return f"{seats}, drained" if pool.spec.HasField("drain") else seats


def kept_of(pool: pools_pb.Pool) -> str:
    """Return how many of the seats that are held no session holds; empty: none."""
    return f"{pool.kept} of these kept, " if pool.kept else ""


def projects_table(pool: pools_pb.Pool) -> RenderableType:
    """Return what the listed projects of a pool have, and may have."""
    half_life = seconds(pool.spec.policy.usage_half_life)
    keys = ("project", "parent", "guaranteed", "limit", "weight", "held", "queued")
    projects = table(
        ("project", "part of", ">guaranteed", ">limit", ">weight", ">held", ">queued"),
        [
            tuple("-" if share[key] is None else str(share[key]) for key in keys)
            for share in projects_json(pool)
        ],
    )
    if not half_life:
        return projects
    return stacked(projects, words(f"half of what was used is forgotten in {span(half_life)}"))


def rules_facts(rules: pools_pb.PoolRules) -> list[tuple[str, str]]:
    """Return who may use a pool, and how much each may have, as rows of facts; none: no rules."""
    from seatkeeper.client.admin.rules import most_text, who_texts  # loads gRPC

    found = [(f"group {group.name}", ", ".join(group.holders)) for group in rules.groups]
    found += [
        (name, ", ".join(who_texts(getattr(rules, name)))) for name in ("include", "exclude")
    ]
    if rules.HasField("per_holder"):
        found.append(("per holder", most_text(rules.per_holder)))
    if rules.HasField("per_host"):
        found.append(("per host", most_text(rules.per_host)))
    if rules.HasField("per_project"):
        found.append(("per project", most_text(rules.per_project)))
    return [(name, text) for name, text in found if text]


def grants_table(pool: pools_pb.Pool, *, with_ids: bool = False) -> RenderableType:
    """Return who holds seats of a pool; ``with_ids``: and under which ids."""
    if not pool.grants:
        return words("no seat is held")
    headings, cells = attribution_columns(pool.grants)
    ids = ("id",) if with_ids else ()
    marks = [decode_marks(grant.lots, grant.overdraft) for grant in pool.grants]
    lots = ("from lots",) if any(marks) else ()
    is_bounded = any(grant.hold.HasField("ends_at") for grant in pool.grants)
    until = (">held until",) if is_bounded else ()
    is_lent = any(grant.HasField("borrowed") for grant in pool.grants)
    lent = (">borrowed until", "machine") if is_lent else ()
    is_marked = any(grant.HasField("advisory") for grant in pool.grants)
    marked = ("would",) if is_marked else ()
    is_any_kept = any(grant.HasField("kept") for grant in pool.grants)
    kept = ("kept until",) if is_any_kept else ()
    return table(
        (
            *(*ids, "holder", *headings, ">seats", *lots, ">fence", ">held for"),
            *(*until, *kept, *lent, "agent", *marked, "client says"),
        ),
        [
            (
                *((grant.grant_id,) if with_ids else ()),
                grant.holder,
                *cells(grant),
                str(grant.seats),
                *([", ".join(of.lines()) if of else "-"] if lots else []),
                str(grant.fence),
                since(grant.granted_at),
                *((_held_until(grant),) if is_bounded else ()),
                *((_kept_until(grant),) if is_any_kept else ()),
                *(lent_to(grant) if is_lent else ()),
                grant.agent_id or "-",
                *((_would(grant),) if is_marked else ()),
                client_says(grant),
            )
            for grant, of in zip(pool.grants, marks, strict=True)
        ],
    )


def _estimate(ticket: pools_pb.QueuedTicket) -> str:
    if not ticket.HasField("estimate"):
        return "unknown"
    likely = span(seconds(ticket.estimate))
    if not ticket.HasField("estimate_high"):
        return likely
    ends = (
        timedelta(seconds=seconds(end)) for end in (ticket.estimate_low, ticket.estimate_high)
    )
    return f"{likely} ({between(*ends)})"


def _held_until(grant: pools_pb.HeldGrant) -> str:
    return iso(grant.hold.ends_at) if grant.hold.HasField("ends_at") else "-"


def _kept_until(grant: pools_pb.HeldGrant) -> str:
    """Return until when seats are kept that no session holds, and by which rule."""
    if not grant.HasField("kept"):
        return "-"
    until = iso(grant.kept.until) if grant.kept.HasField("until") else "not written yet"
    return f"{until} ({grant.kept.rule})"


def _would(grant: pools_pb.HeldGrant) -> str:
    """Return what would have become of a grant in a binding pool, and by which rule."""
    return f"{would(grant)} ({grant.advisory.rule})" if grant.HasField("advisory") else "-"


def queue_table(pool: pools_pb.Pool, *, with_ids: bool = False) -> RenderableType:
    """Return who waits for seats of a pool; ``with_ids``: also under which ids and priorities."""
    if not pool.tickets:
        return words("no request waits")
    headings, cells = attribution_columns(pool.tickets)
    ids, priority = (("id",), (">priority",)) if with_ids else ((), ())
    waiters = table(
        (
            *(">position", *ids, "waits", *headings, *priority),
            *(">seats", ">waiting for", ">estimate", "client says"),
        ),
        [
            (
                str(ticket.position),
                *((ticket.grant_id,) if with_ids else ()),
                ticket.holder,
                *cells(ticket),
                *((str(ticket.priority),) if with_ids else ()),
                str(ticket.seats),
                since(ticket.queued_at),
                _estimate(ticket),
                client_says(ticket),
            )
            for ticket in pool.tickets
        ],
    )
    first = pool.tickets[0]
    if not first.HasField("basis"):
        return waiters
    basis = first.basis
    odds = " (right in 4 of 5)" if first.HasField("estimate_high") else ""
    said = (
        f"estimates{odds} are by the last {count(basis.holds, 'hold')}, "
        f"median {span(seconds(basis.hold_median))}"
    )
    if basis.holders_overdue:
        said += (
            f"; {basis.holders_overdue} of {count(basis.holders, 'present holder')} held for "
            "longer than any of them"
        )
    return stacked(waiters, words(said))
