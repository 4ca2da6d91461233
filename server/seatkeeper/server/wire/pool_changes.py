"""What a request to change pools together must look like. Pure; raises ``Malformed``."""

from __future__ import annotations

from seatkeeper.core.text import hidden_in, named
from seatkeeper.core.validate import POOL_DELETIONS_MAX, Malformed, check_name
from seatkeeper.server.domain import PoolSpec
from seatkeeper.server.wire.validate import check_spec
from seatkeeper.v1 import pool_service_pb2

CHANGES_MAX = 1_000
REASON_MAX = 500


def check_apply(
    request: pool_service_pb2.ApplyPoolsRequest,
) -> list[tuple[str, pool_service_pb2.PoolChange, PoolSpec | None]]:
    """Check a request; return each change with its pool's name and what the pool is to be."""
    _check_reason(request.reason)
    if len(request.changes) > CHANGES_MAX:
        raise Malformed("changes", f"{len(request.changes)} pools are over {CHANGES_MAX}")
    if (deletions := sum(change.delete for change in request.changes)) > POOL_DELETIONS_MAX:
        raise Malformed(
            "changes",
            f"{deletions} pools to delete are over {POOL_DELETIONS_MAX}: delete some first",
        )
    found = []
    seen: set[str] = set()
    for place, change in enumerate(request.changes):
        try:
            spec = _checked(change)
        except Malformed as error:
            field = f"changes[{place}].{error.field}"
            raise Malformed(field, f"pool {change.name[:64]}: {error.description}") from error
        if change.name in seen:
            raise Malformed(f"changes[{place}].name", f"{change.name} is named twice")
        seen.add(change.name)
        found.append((change.name, change, spec))
    return found


def _checked(change: pool_service_pb2.PoolChange) -> PoolSpec | None:
    check_name("name", change.name)
    if change.seen_revision < 0:
        raise Malformed("seen_revision", f"{change.seen_revision} is under 0")
    if change.WhichOneof("what") == "delete":
        if not change.delete:
            raise Malformed("delete", "is true, or is left out")
        if not change.seen_revision:
            raise Malformed("delete", "there was no such pool")
        return None
    if change.WhichOneof("what") is None:
        return None
    if change.spec.name != change.name:
        raise Malformed("spec.name", f"{change.spec.name[:64]!r} is another pool's name")
    return check_spec(change.spec)


def _check_reason(reason: str) -> None:
    if len(reason) > REASON_MAX:
        raise Malformed("reason", f"has over {REASON_MAX} characters")
    if hidden := hidden_in(reason):
        raise Malformed(
            "reason", f"has characters that cannot be shown, such as {named(hidden)}"
        )
