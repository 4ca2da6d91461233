"""Whether seats were kept free for gangs as pools state: for whom, from when on, how long. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.oracle.stored import PREFIX, located, pool_key, read_view_revision
from seatkeeper.server.store import Change
from seatkeeper.v1 import pool_service_pb2


@dataclass(slots=True)
class _Pool:
    """A pool as it was written last."""

    within: int = 0
    hold_back: int | None = None
    """Milliseconds; None: it keeps no seats for gangs."""
    tickets: dict[str, state_pb2.TicketRecord] = field(default_factory=dict)
    lapsed: dict[str, tuple[int, state_pb2.TicketRecord]] = field(default_factory=dict)
    """Those that are gone, and since which revision: a decision may not have known that yet."""
    decided: int = 0
    """The revision of the latest decision."""
    kept: state_pb2.HoldBackRecord = field(default_factory=state_pb2.HoldBackRecord)

    def end(self, name: str, revision: int) -> None:
        """Take that a ticket is gone."""
        if (ticket := self.tickets.pop(name, None)) is not None:
            self.lapsed[name] = revision, ticket

    def ticket(self, name: str, view_revision: int) -> state_pb2.TicketRecord | None:
        """Return a ticket as a decision knew it that had seen all up to a revision; 0: unsaid."""
        if (found := self.tickets.get(name)) is not None:
            return found
        gone_at, lapsed = self.lapsed.get(name, (0, None))
        return lapsed if gone_at > (view_revision or self.decided) else None


def check_kept_free(changes: Iterable[Change], prefix: str = PREFIX) -> Iterator[str]:
    """Yield what is wrong about the seats that were kept free. ``changes`` as for ``check_gangs``."""
    pools: dict[str, _Pool] = {}
    for revision, together in groupby(changes, key=lambda change: change.revision):
        batch = list(together)
        _read_specifications(batch, pools, prefix)
        began: dict[str, tuple[state_pb2.HoldBackRecord, state_pb2.TicketRecord | None]] = {}
        ended: list[tuple[str, str]] = []
        for pool, kind, name, change in located(batch, prefix):
            known = pools.setdefault(pool, _Pool())
            if kind == "queue" and change.entry is not None:
                known.tickets[name] = state_pb2.TicketRecord.FromString(change.entry.value)
            elif kind == "queue":
                ended.append((pool, name))
            elif kind == "guard" and change.entry is not None:
                value = change.entry.value
                said = state_pb2.GuardRecord.FromString(value).hold_back
                ticket = known.ticket(said.grant_id, read_view_revision(value))
                for why in _wrong(known, said, ticket):
                    yield f"{pool}, revision {revision}: {why}"
                if said.since_millis != known.kept.since_millis:
                    began[pool] = (said, ticket)
                known.kept, known.decided = said, revision
        yield from _alone(revision, began, pools)
        for pool, name in ended:
            pools[pool].end(name, revision)


def count_kept_free(changes: Iterable[Change], prefix: str = PREFIX) -> int:
    """Return how often seats of a pool were kept free for a gang."""
    found: set[tuple[str, int]] = set()
    for pool, kind, _, change in located(changes, prefix):
        if kind == "guard" and change.entry is not None:
            said = state_pb2.GuardRecord.FromString(change.entry.value).hold_back
            if said.grant_id:
                found.add((pool, said.since_millis))
    return len(found)


def _read_specifications(batch: Iterable[Change], pools: dict[str, _Pool], prefix: str) -> None:
    start = pool_key("", prefix)
    for change in batch:
        if not change.key.startswith(start) or change.entry is None:
            continue
        known = pools.setdefault(change.key[len(start) :], _Pool())
        rule = pool_service_pb2.PoolSpec.FromString(change.entry.value).policy.overtaking
        known.within = rule.within.ToMilliseconds()
        known.hold_back = (
            rule.hold_back.ToMilliseconds() if rule.HasField("hold_back") else None
        )


def _wrong(
    known: _Pool, said: state_pb2.HoldBackRecord, ticket: state_pb2.TicketRecord | None
) -> Iterator[str]:
    before = known.kept
    if said.since_millis == before.since_millis:
        if said.until_millis > before.until_millis:
            yield f"seats are kept free for {said.grant_id} for longer than was said"
        return
    if not said.grant_id:
        yield f"it is forgotten that seats were kept free for {before.grant_id}"
        return
    rest = before.until_millis - before.since_millis
    if said.since_millis < before.until_millis + rest:
        yield f"seats are kept free again, {rest} ms after they were, or less"
    if known.hold_back is None:
        yield "seats are kept free, and the pool does not say so"
    elif said.until_millis - said.since_millis > known.hold_back:
        yield f"seats are kept free for longer than {known.hold_back} ms"
    if ticket is None or not (ticket.attributes.gang or ticket.attributes.alternatives):
        yield f"seats are kept free for {said.grant_id}, and no gang waits under it"
    elif said.since_millis - ticket.queued_at_millis < known.within:
        yield f"seats are kept free for {said.grant_id}, which has not waited {known.within} ms"


def _alone(
    revision: int,
    began: dict[str, tuple[state_pb2.HoldBackRecord, state_pb2.TicketRecord | None]],
    pools: dict[str, _Pool],
) -> Iterator[str]:
    """Yield pools of a gang that keep none, although others began to, and say that they do."""
    for pool, (_, ticket) in began.items():
        for member in ticket.attributes.gang if ticket is not None else ():
            other = pools.get(member.pool)
            if member.pool not in began and other is not None and other.hold_back is not None:
                yield f"revision {revision}: {pool} keeps seats for a gang, and {member.pool} none"
