"""What the commands about one request share: how it is named, and how it is shown."""

from __future__ import annotations

from typing import Annotated

import typer

from seatkeeper.cli import completion
from seatkeeper.cli.attribution import Attributed
from seatkeeper.cli.lent import borrowed_facts
from seatkeeper.cli.marks import mark_facts, seats_text
from seatkeeper.cli.render import client_says, iso, seconds, since
from seatkeeper.cli.shared import shared_facts
from seatkeeper.core.amounts import span
from seatkeeper.core.lot_messages import decode_marks
from seatkeeper.v1 import pool_service_pb2 as pb

EXAMPLE_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
"""Of a request, for help texts."""

PoolArgument = Annotated[
    str,
    typer.Argument(metavar="POOL", help="Name of the pool.", autocompletion=completion.pools),
]


ReasonOption = typer.Option(
    "--reason",
    metavar="TEXT",
    help="Why, for the holder and for the log: at most 200 characters.",
)


def ticket_facts(ticket: pb.QueuedTicket) -> list[tuple[str, str]]:
    """Return what is known of a request that waits, for people."""
    known = ticket.HasField("estimate")
    return [
        ("request", ticket.grant_id),
        ("position", str(ticket.position)),
        ("waits", ticket.holder),
        *_attribution(ticket),
        ("seats", seats_text(ticket)),
        ("waiting for", f"{since(ticket.queued_at)}, since {iso(ticket.queued_at)}"),
        ("estimate", span(seconds(ticket.estimate)) if known else "unknown"),
        *_moved(ticket),
        ("session", ticket.session_id),
        ("client says", client_says(ticket)),
    ]


def _moved(ticket: pb.QueuedTicket) -> list[tuple[str, str]]:
    moved = ticket.moved
    if not ticket.HasField("moved"):
        return []
    return [("moved", f"by an administrator, {iso(moved.moved_at)}: {moved.reason}")]


def grant_facts(grant: pb.HeldGrant) -> list[tuple[str, str]]:
    """Return what is known of a grant, for people."""
    return [
        ("grant", grant.grant_id),
        ("holder", grant.holder),
        *_attribution(grant),
        ("seats", seats_text(grant)),
        ("fence", str(grant.fence)),
        ("held for", f"{since(grant.granted_at)}, since {iso(grant.granted_at)}"),
        *([] if grant.HasField("borrowed") else _session(grant)),
        *_marks(grant),
        *_called_back(grant),
        *_hold(grant),
        *_kept(grant),
        *mark_facts(grant),
        *borrowed_facts(grant),
        *shared_facts(grant),
    ]


def _session(grant: pb.HeldGrant) -> list[tuple[str, str]]:
    return [
        ("lease ends", iso(grant.expires_at) if grant.HasField("expires_at") else "unknown"),
        ("agent", grant.agent_id or "-"),
        ("session", grant.session_id),
        ("client says", client_says(grant)),
    ]


def _marks(grant: pb.HeldGrant) -> list[tuple[str, str]]:
    marks = decode_marks(grant.lots, grant.overdraft)
    return [("from lots", ", ".join(marks.lines()))] if marks else []


def _called_back(grant: pb.HeldGrant) -> list[tuple[str, str]]:
    if not grant.HasField("reclaiming"):
        return []
    rule = f" (rule `{grant.reclaiming.rule}`)" if grant.reclaiming.rule else ""
    return [("called back", grant.reclaiming.message + rule)]


def _kept(grant: pb.HeldGrant) -> list[tuple[str, str]]:
    """Return until when seats are kept that no session holds, and what a grant goes on from."""
    found = []
    if grant.HasField("kept"):
        until = iso(grant.kept.until) if grant.kept.HasField("until") else "not written yet"
        found.append(("kept until", f"{until} (rule `{grant.kept.rule}`): no session holds it"))
    if grant.continues_fence:
        found.append(("goes on from fence", str(grant.continues_fence)))
    return found


def _hold(grant: pb.HeldGrant) -> list[tuple[str, str]]:
    """Return how long a grant may be held, and what administrators said of that."""
    hold, found = grant.hold, []
    if hold.HasField("ends_at"):
        added = (
            f", {span(seconds(hold.extended))} of it added" if hold.HasField("extended") else ""
        )
        found.append(("held until", f"{iso(hold.ends_at)} at most{added}"))
    if hold.HasField("idle_for"):
        found.append(("idle for", f"{span(seconds(hold.idle_for))} and longer, as it reports"))
    if hold.HasField("revoke"):
        revoke = hold.revoke
        said = f"by {revoke.by}, {iso(revoke.decided_at)}: {revoke.reason}"
        waits = "; its client has not answered yet, so the notice has not begun"
        found.append(("revoked", said + (waits if revoke.is_unanswered else "")))
    return found


def _attribution(of: Attributed) -> list[tuple[str, str]]:
    labels = " ".join(f"{key}={value}" for key, value in sorted(of.attributes.labels.items()))
    shown = [("project", of.project), ("priority", str(of.priority))]
    return [*shown, ("labels", labels)] if labels else shown
