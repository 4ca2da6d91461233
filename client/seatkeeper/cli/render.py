"""How things look: as JSON for programs, as text and tables for people.

Whatever is shown to people may have come from outside, and goes through `printable` on its way: in
`say`, `words`, `table` and `facts`, which are the only ways to show anything.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from seatkeeper.artifacts.features import Feature
from seatkeeper.cli.attribution import attribution_json
from seatkeeper.cli.encoding import as_json
from seatkeeper.cli.lent import borrow_json, borrowed_json
from seatkeeper.cli.marks import mark_json
from seatkeeper.cli.shared import shared_json
from seatkeeper.core.amounts import count, size, span
from seatkeeper.core.lot_messages import decode_seats
from seatkeeper.core.text import printable
from seatkeeper.v1 import build_pb2, build_service_pb2, cluster_service_pb2
from seatkeeper.v1 import pool_service_pb2 as pools_pb

if TYPE_CHECKING:
    # Loaded for what is laid out: most commands write a line, or JSON, and end.
    from rich.console import Console, Group, RenderableType
    from rich.table import Table
    from rich.text import Text

PLAIN_WIDTH = 200
"""Columns where their number is unknown: a file, a pipe."""

Json = dict[str, Any]


def write_json(value: Json) -> None:
    """Write one line of JSON, at once: a program may be waiting for it."""
    print(as_json(value), flush=True)


def write_event(event: Json) -> None:
    """Report an event to a program, in a line of JSON on standard error: output is for the result."""
    print(as_json(event), file=sys.stderr, flush=True)


def speaks_utf8() -> bool:
    """Return whether what is written to standard output leaves as UTF-8."""
    name = (getattr(sys.stdout, "encoding", None) or "").lower()
    return name.replace("-", "").replace("_", "") == "utf8"


def write_text(text: str) -> None:
    """Write a file's text, whole, at once. What must not be shown is escaped in it already."""
    print(text, end="", flush=True)


def say(line: str, *, stderr: bool = False) -> None:
    """Write a line for people, at once; what must not reach a terminal is escaped."""
    print(printable(line), file=sys.stderr if stderr else sys.stdout, flush=True)


def ask(question: str) -> None:
    """Write a question, with no line's end, for somebody who answers behind it."""
    print(printable(question), end="", flush=True)


def words(text: str) -> Text:
    """Return text to `show`, as it stands: no markup in it, and escaped as `say` does."""
    from rich.text import Text

    return Text(printable(text, keep="\n"))


def stacked(*shown: RenderableType) -> Group:
    """Return what is shown below one another."""
    from rich.console import Group

    return Group(*shown)


def console(*, stderr: bool = False) -> Console:
    """Return where people read. Not wrapped where it goes to a file or a pipe."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    narrow = stream.isatty() or "COLUMNS" in os.environ
    return Console(
        stderr=stderr, width=None if narrow else PLAIN_WIDTH, highlight=False, markup=False
    )


def show(*shown: RenderableType, aside: bool = False) -> None:
    """Write tables and text for people on standard output.

    ``aside``: on standard error, where standard output is for something else.
    """
    shown = tuple(words(each) if isinstance(each, str) else each for each in shown)
    out = console(stderr=aside)
    if out.is_terminal:
        out.print(*shown, sep="\n")
        return
    with out.capture() as captured:
        out.print(*shown, sep="\n")
    # Tables fill their lines up with blanks, which only disturb programs that compare or cut them.
    lines = "\n".join(line.rstrip() for line in captured.get().split("\n"))
    print(lines.removesuffix("\n"), file=sys.stderr if aside else sys.stdout)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table without lines; headings that begin with ``>`` are of numbers."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        numeric = heading.startswith(">")
        made.add_column(
            heading.removeprefix(">").upper(),
            justify="right" if numeric else "left",
            no_wrap=numeric,
            overflow="fold",
        )
    for row in rows:
        made.add_row(*(Text(printable(cell)) for cell in row))
    return made


def facts(pairs: Iterable[tuple[str, str]]) -> Table:
    """Return names and values, one pair a line."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        made.add_row(Text(printable(name)), Text(printable(value)))
    return made


def about(estimate: timedelta) -> str:
    """Return an estimated time to wait; no more exact than it is."""
    seconds = estimate.total_seconds()
    return "less than 1 s to go" if seconds < 1 else f"about {span(round(seconds))} to go"


def between(low: timedelta, high: timedelta) -> str:
    """Return two lengths of time; no more exact than estimates are."""
    return f"{span(round(low.total_seconds()))} to {span(round(high.total_seconds()))}"


def since(moment: Timestamp) -> str:
    """Return how long ago that was, by this machine's clock."""
    return span(datetime.now(UTC) - moment.ToDatetime(UTC))


def iso(moment: Timestamp) -> str:
    """Return a time as RFC 3339 in UTC."""
    return moment.ToDatetime(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(length: Duration) -> float:
    """Return a duration in seconds."""
    return length.ToTimedelta().total_seconds()


def report_json(node: cluster_service_pb2.NodeReport) -> Json:
    """Return what a node says of itself, for programs."""
    if node.failure:
        return {"node_id": node.node_id, "address": node.address, "failure": node.failure}
    work = node.work
    return {
        "node_id": node.node_id,
        "address": node.address,
        "failure": None,
        "version": node.version,
        "started_at": iso(node.started_at),
        "silent": list(node.silent),
        "streams": work.streams,
        "commits": work.commits,
        "commands": work.commands,
        "commit_p50_ms": millis(work, "commit_p50"),
        "commit_p99_ms": millis(work, "commit_p99"),
        "conflicts": work.conflicts,
        "outcomes_unknown": work.outcomes_unknown,
        "store_failures": work.store_failures,
        "forwarded": work.forwarded,
        "forward_failures": work.forward_failures,
        "relists": work.relists,
    }


def store_json(store: cluster_service_pb2.StoreReport) -> Json:
    """Return how the store is, for programs."""
    return {
        "kind": store.kind,
        "warnings": list(store.warnings),
        "alarms": list(store.alarms),
        "leases": store.leases if store.HasField("leases") else None,
        "read_ms": millis(store, "read_time"),
        "members": [
            {
                "name": member.name,
                "endpoint": member.endpoint,
                "is_configured": not member.is_unconfigured,
                "failure": member.failure or None,
                "version": member.version or None,
                "is_leader": member.is_leader,
                "size_bytes": member.size_bytes,
                "used_bytes": member.used_bytes,
                "errors": list(member.errors),
            }
            for member in store.members
        ],
    }


def millis(
    message: cluster_service_pb2.NodeWork | cluster_service_pb2.StoreReport, field: str
) -> float | None:
    """Return a duration of a report in milliseconds; None: it is not known."""
    if not message.HasField(field):  # type: ignore[arg-type]  # the name of a field comes as text
        return None
    return round(seconds(getattr(message, field)) * 1000, 3)


def agent_json(agent: build_service_pb2.AgentInfo) -> Json:
    """Return an agent for programs."""
    return {
        "agent_id": agent.agent_id,
        "address": agent.address,
        "version": agent.version,
        "pool": agent.pool,
        "builds_max": agent.builds_max,
        "model_bytes_max": agent.model_bytes_max,
        "model_files_max": agent.model_files_max,
        "public_key": agent.public_key.hex(),
        "backends": [
            {"name": each.name, "version": each.version, "targets": list(each.targets)}
            for each in agent.backends
        ],
        "draining": agent.draining,
        "memory_bytes": agent.memory_bytes or None,
        "isolation": _isolation_json(agent),
        "load": _load_json(agent),
    }


def _isolation_json(agent: build_service_pb2.AgentInfo) -> Json | None:
    if not agent.HasField("isolation"):
        return None
    return {"network": agent.isolation.network, "processes": agent.isolation.processes}


def _load_json(agent: build_service_pb2.AgentInfo) -> Json | None:
    if not agent.HasField("load"):
        return None
    return {
        "running": agent.load.running,
        "memory_reserved_bytes": agent.load.memory_reserved_bytes,
        "builds": [
            {
                "model_name": build.model_name,
                "holder": build.holder,
                "phase": phase_of(build.phase),
                "began_at": iso(build.began_at),
                "memory_bytes": build.memory_bytes,
            }
            for build in agent.load.builds
        ],
    }


def phase_of(phase: build_service_pb2.BuildPhase.ValueType) -> str:
    """Return a phase of a build as people and programs read it; one that is newer by its number."""
    if phase not in build_service_pb2.BuildPhase.values():
        return str(int(phase))
    return build_service_pb2.BuildPhase.Name(phase).removeprefix("BUILD_PHASE_").lower()


def pool_json(pool: pools_pb.Pool, *, details: bool) -> Json:
    """Return a pool for programs; ``details``: also its grants and queue."""
    summary: Json = {
        "name": pool.spec.name,
        "seats": pool.spec.seats,
        "description": pool.spec.description,
        "held": pool.held,
        "free": pool.free,
        "queued": pool.queued,
        "fence": pool.fence,
        "revision": pool.revision,
        "owner": pool.owner,
    }
    if pool.spec.policy.projects:
        summary["projects"] = projects_json(pool)
        half_life = pool.spec.policy.usage_half_life.ToTimedelta().total_seconds()
        summary["usage_half_life_seconds"] = half_life or None
    if pool.spec.policy.HasField("overtaking"):
        overtaking = pool.spec.policy.overtaking
        within = overtaking.within.ToTimedelta().total_seconds()
        summary["overtaking"] = {"seats": overtaking.seats, "within_seconds": within}
        if overtaking.HasField("hold_back"):
            keeps = overtaking.hold_back.ToTimedelta().total_seconds()
            summary["overtaking"]["hold_back_seconds"] = keeps
    if pool.HasField("hold_back"):
        summary["hold_back"] = {
            "grant_id": pool.hold_back.grant_id,
            "since": iso(pool.hold_back.since),
            "until": iso(pool.hold_back.until),
            "idle": pool.hold_back.idle,
        }
    if pool.spec.policy.HasField("reclaim"):
        rule = pool.spec.policy.reclaim
        summary["reclaim"] = {
            "notice_seconds": rule.notice.ToTimedelta().total_seconds(),
            "minimum_hold_seconds": rule.minimum_hold.ToTimedelta().total_seconds(),
            "hourly": rule.hourly,
        }
    if pool.spec.policy.HasField("hold"):
        summary["hold"] = _hold_json(pool.spec.policy.hold)
    if pool.spec.policy.HasField("stay"):
        summary["stay"] = _stay_json(pool.spec.policy.stay)
    if pool.kept:
        summary["kept"] = pool.kept
    if pool.spec.policy.HasField("borrow"):
        summary["borrow"] = borrow_json(pool.spec.policy.borrow)
    if pool.spec.policy.HasField("borrow") or pool.borrowed:
        summary["borrowed"] = pool.borrowed
    if pool.spec.policy.HasField("rules"):
        summary["rules"] = rules_json(pool.spec.policy.rules)
    if pool.spec.HasField("drain"):
        drain = pool.spec.drain
        since = iso(drain.drained_at)
        summary["drained"] = {"reason": drain.reason, "by": drain.by, "drained_at": since}
    if details:
        summary["grants"] = summary["holders"] = holders_json(pool)
        summary["queue"] = [ticket_json(ticket) for ticket in pool.tickets]
    return summary


def _hold_json(rule: pools_pb.HoldRule) -> Json:
    return {
        "longest_seconds": seconds(rule.longest) if rule.HasField("longest") else None,
        "idle_seconds": seconds(rule.idle) if rule.HasField("idle") else None,
        "warning_seconds": seconds(rule.warning),
    }


def _stay_json(rule: pools_pb.StayRule) -> Json:
    return {
        "linger_seconds": seconds(rule.linger) if rule.HasField("linger") else None,
        "resurrection_seconds": (
            seconds(rule.resurrection) if rule.HasField("resurrection") else None
        ),
        "lock_delay_seconds": seconds(rule.lock_delay) if rule.HasField("lock_delay") else None,
    }


def _kept_json(grant: pools_pb.HeldGrant) -> Json:
    """Return for how long seats are kept that no session holds; nothing: one does."""
    if not grant.HasField("kept"):
        return {}
    until = iso(grant.kept.until) if grant.kept.HasField("until") else None
    return {"kept": {"rule": grant.kept.rule, "until": until}}


def rules_json(rules: pools_pb.PoolRules) -> Json:
    """Return who may use a pool, and how much each may have; a limit of None: all there is."""
    return {
        "groups": {group.name: [*group.holders] for group in rules.groups},
        **{name: _who_json(getattr(rules, name)) for name in ("include", "exclude")},
        **{
            name: _most_json(getattr(rules, name))
            for name in ("per_holder", "per_host", "per_project")
        },
    }


def _who_json(who: pools_pb.Who) -> Json:
    names = {"projects": who.projects, "holders": who.holders, "groups": who.groups}
    return {key: [*each] for key, each in (names | {"hosts": who.hosts}).items()}


def _most_json(most: pools_pb.AtMost) -> Json:
    return {
        "seats": most.seats if most.HasField("seats") else None,
        "tickets": most.tickets if most.HasField("tickets") else None,
    }


def projects_json(pool: pools_pb.Pool) -> list[Json]:
    """Return what the listed projects of a pool have, and may have; None: the node does not say."""
    states = {state.project: state for state in pool.projects}
    return [
        {
            "project": share.project,
            "parent": share.parent or None,
            "guaranteed": share.guaranteed,
            "limit": share.limit if share.HasField("limit") else None,
            "weight": share.weight or 1,
            "held": states[share.project].held if share.project in states else None,
            "queued": states[share.project].queued if share.project in states else None,
        }
        for share in pool.spec.policy.projects
    ]


def holders_json(pool: pools_pb.Pool) -> list[Json]:
    """Return who holds seats of a pool, for programs."""
    return [grant_json(grant) for grant in pool.grants]


def grant_json(grant: pools_pb.HeldGrant) -> Json:
    """Return one grant, for programs."""
    return {
        "grant_id": grant.grant_id,
        "session_id": grant.session_id,
        **attribution_json(grant),
        "seats": grant.seats,
        "fence": grant.fence,
        "granted_at": iso(grant.granted_at),
        "expires_at": iso(grant.expires_at) if grant.HasField("expires_at") else None,
        "agent_id": grant.agent_id or None,
        "client_says": _client_json(grant),
        "called_back": grant.reclaiming.message if grant.HasField("reclaiming") else None,
        "lots": [marked_json(each) for each in grant.lots],
        "overdraft": grant.overdraft,
        **({"called_back_rule": grant.reclaiming.rule} if grant.reclaiming.rule else {}),
        **_held_json(grant.hold),
        **_kept_json(grant),
        **({"continues_fence": grant.continues_fence} if grant.continues_fence else {}),
        "advisory": mark_json(grant),
        **({"borrowed": borrowed_json(grant.borrowed)} if grant.HasField("borrowed") else {}),
        **({"counts_once": shared_json(grant)} if grant.counts_once else {}),
    }


def marked_json(seats: pools_pb.LotSeats) -> Json:
    """Return seats that come from a lot, for programs; ``price`` is text, because money is no float."""
    known = decode_seats(seats)
    return {
        "lot": known.lot,
        "seats": known.seats,
        "kind": known.kind.value,
        "price": str(known.price) if known.price else None,
    }


def _held_json(hold: pools_pb.HoldState) -> Json:
    """Return how long a grant may be held; nothing where nothing is known of that."""
    found: Json = {}
    if hold.HasField("ends_at"):
        found["ends_at"] = iso(hold.ends_at)
    if hold.HasField("extended"):
        found["extended_seconds"] = seconds(hold.extended)
    if hold.HasField("idle_for"):
        found["idle_seconds"] = seconds(hold.idle_for)
    if hold.HasField("revoke"):
        revoke = hold.revoke
        found["revoked"] = {
            "reason": revoke.reason,
            "by": revoke.by,
            "decided_at": iso(revoke.decided_at),
            "notice_seconds": seconds(revoke.notice),
            "answered": not revoke.is_unanswered,
        }
    return found


def _client_json(holder: pools_pb.HeldGrant | pools_pb.QueuedTicket) -> Json | None:
    """Return the description of a holder's program, which is not verified."""
    if not holder.HasField("client"):
        return None
    client = holder.client
    return {
        "host": client.host,
        "pid": client.pid or None,
        "command": client.command,
        "library": client.library,
    }


def client_says(holder: pools_pb.HeldGrant | pools_pb.QueuedTicket) -> str:
    """Return the same for people: ``train.py, pid 4711 on host7``."""
    if not holder.HasField("client"):
        return "-"
    client = holder.client
    process = f", pid {client.pid}" if client.pid else ""
    return f"{client.command}{process} on {client.host}"


def ticket_json(ticket: pools_pb.QueuedTicket) -> Json:
    """Return a request that waits, for programs."""
    return {
        "position": ticket.position,
        "grant_id": ticket.grant_id,
        "session_id": ticket.session_id,
        **attribution_json(ticket),
        "seats": ticket.seats,
        "queued_at": iso(ticket.queued_at),
        "estimate_seconds": seconds(ticket.estimate) if ticket.HasField("estimate") else None,
        "estimate_between_seconds": _between_json(ticket),
        "estimate_basis": _basis_json(ticket),
        "moved": _moved_json(ticket),
        "client_says": _client_json(ticket),
    }


def _moved_json(ticket: pools_pb.QueuedTicket) -> Json | None:
    if not ticket.HasField("moved"):
        return None
    return {"reason": ticket.moved.reason, "moved_at": iso(ticket.moved.moved_at)}


def _between_json(ticket: pools_pb.QueuedTicket) -> list[float] | None:
    if not ticket.HasField("estimate_high"):
        return None
    return [seconds(ticket.estimate_low), seconds(ticket.estimate_high)]


def _basis_json(ticket: pools_pb.QueuedTicket) -> Json | None:
    if not ticket.HasField("basis"):
        return None
    basis = ticket.basis
    return {
        "holds": basis.holds,
        "hold_median_seconds": seconds(basis.hold_median),
        "holders": basis.holders,
        "holders_overdue": basis.holders_overdue,
    }


def engine_json(manifest: build_pb2.EngineManifest) -> Json:
    """Return an engine's manifest for programs."""
    # As it is written, not as this version understands it: a newer agent may know more.
    options = manifest.options
    return {
        "key": manifest.key,
        "sha256": manifest.file.sha256,
        "size_bytes": manifest.file.size_bytes,
        "model_name": manifest.model_name,
        "model_sha256": manifest.model_sha256,
        "bundle": _bundle_json(manifest),
        "backend": options.backend,
        "backend_version": manifest.backend_version,
        "conversion": manifest.conversion or None,
        "targets": list(options.targets),
        "profiles": [_profile(profile) for profile in options.profiles],
        "workspace_bytes": options.workspace_bytes or None,
        "optimisation_level": options.optimisation_level,
        "features": [each for each in Feature if getattr(options, each)],
        "plugins": list(options.plugins),
        "agent_id": manifest.agent_id,
        "pool": manifest.pool,
        "grant_id": manifest.grant_id,
        "fence": manifest.fence,
        "holder": manifest.holder,
        "project": manifest.project,
        "built_at": iso(manifest.built_at),
        "build_seconds": manifest.build_millis / 1000,
        "precision": _precision_json(manifest),
        "stats": _stats_json(manifest),
    }


def _stats_json(manifest: build_pb2.EngineManifest) -> Json | None:
    if not manifest.HasField("stats"):
        return None
    stats = manifest.stats
    return {
        "nodes": stats.nodes,
        "weight_bytes": stats.weight_bytes,
        "model_bytes": stats.model_bytes,
        "peak_memory_bytes": stats.peak_memory_bytes,
        "convert_seconds": stats.convert_millis / 1000,
        "seat_seconds": stats.seat_millis / 1000,
        "processors": stats.processors,
    }


def _bundle_json(manifest: build_pb2.EngineManifest) -> Json | None:
    """Return what the model kept outside its file."""
    if not manifest.HasField("bundle"):
        return None
    bundle = manifest.bundle
    return {"sha256": bundle.sha256, "files": bundle.files, "size_bytes": bundle.size_bytes}


def _precision_json(manifest: build_pb2.EngineManifest) -> Json | None:
    if not manifest.HasField("precision"):
        return None
    found = manifest.precision
    return {
        "asked": manifest.options.precision.precision,
        "precision": found.precision,
        "shares": [
            {"precision": s.precision, "nodes": s.nodes, "weight_bytes": s.weight_bytes}
            for s in found.shares
        ],
        "accuracy": _accuracy_json(found.accuracy) if found.HasField("accuracy") else None,
        "refused": list(found.refused),
        "kept": list(found.kept),
        "unchecked": found.unchecked,
        "speed": found.speed or None,
    }


def _accuracy_json(accuracy: build_pb2.Accuracy) -> Json:
    return {
        "proven": accuracy.proven,
        "samples": accuracy.samples,
        "outputs": [
            {
                "output": output.output,
                "relative_l2": output.relative_l2,
                "max_abs": output.max_abs,
                "cosine_error": output.cosine_error,
                "top1_agreement": output.top1_agreement
                if output.HasField("top1_agreement")
                else None,
            }
            for output in accuracy.outputs
        ],
    }


def _profile(profile: build_pb2.Profile) -> str:
    return ",".join(
        f"{shape.input}="
        + ":".join("x".join(map(str, dims)) for dims in (shape.min, shape.opt, shape.max))
        for shape in profile.shapes
    )


def _precision_facts(manifest: build_pb2.EngineManifest) -> list[tuple[str, str]]:
    """Return what became of the precision, where one was asked for."""
    if not manifest.HasField("precision"):
        return []
    found, asked = manifest.precision, manifest.options.precision.precision
    parts = ", ".join(
        f"{count(share.nodes, 'node')} in {share.precision}" for share in found.shares
    )
    chosen = f" (of {asked})" if asked != found.precision else ""
    rows = [("precision", f"{found.precision}{chosen}: {parts}")]
    rows += [("not taken", reason) for reason in found.refused]
    if found.HasField("accuracy"):
        rows.append(("accuracy", accuracy_text(found.accuracy)))
    elif found.unchecked:
        rows.append(
            ("accuracy", "unchecked: converted, and not compared with the model as it was")
        )
    if found.speed:
        rows.append(("speed", found.speed))
    return rows


def accuracy_text(accuracy: build_pb2.Accuracy) -> str:
    """Return how accurate a converted model is, in a line."""
    worst = max(accuracy.outputs, key=lambda output: output.relative_l2)
    top1 = [o.top1_agreement for o in accuracy.outputs if o.HasField("top1_agreement")]
    agreement = f", the same largest element in {min(top1):.1%} of rows" if top1 else ""
    how = f"on {accuracy.samples} samples" if accuracy.proven else "unproven: on noise"
    return f"differs by {worst.relative_l2:.3%} at most{agreement} ({how}; model, not engine)"


def _bundle_fact(manifest: build_pb2.EngineManifest) -> str:
    if not manifest.HasField("bundle"):
        return ""
    files = f"{manifest.bundle.files} file{'' if manifest.bundle.files == 1 else 's'}"
    return f", with {files} of weights, {size(manifest.bundle.size_bytes)} in all"


def engine_facts(manifest: build_pb2.EngineManifest) -> list[tuple[str, str]]:
    """Return an engine's manifest for people."""
    return [
        ("engine", manifest.key),
        ("model", manifest.model_name + _bundle_fact(manifest)),
        (
            "built for",
            f"{', '.join(manifest.options.targets)} by {manifest.options.backend} "
            f"{manifest.backend_version}",
        ),
        ("size", f"{size(manifest.file.size_bytes)} ({manifest.file.size_bytes} bytes)"),
        ("sha256", manifest.file.sha256),
        *_precision_facts(manifest),
        *([("converted by", manifest.conversion)] if manifest.conversion else []),
        ("built", f"{iso(manifest.built_at)} in {span(manifest.build_millis / 1000)}"),
        ("by", f"agent {manifest.agent_id}, for {manifest.holder} ({manifest.project})"),
        ("under", f"grant {manifest.grant_id} of {manifest.pool}, fence {manifest.fence}"),
    ]
