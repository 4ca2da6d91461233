"""From the changes of etcd's history to the rows of the ledger. Pure: it writes nothing.

Give it each revision once, in order, and write the pages that it makes, in order. A page says what has
to be written down before it, so one that is written twice, or by two ledgers, has no effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import count

from seatkeeper.ledger.rows import (
    GAP,
    Asked,
    Ending,
    Gap,
    GrantRow,
    Page,
    Position,
    Standing,
    WaitRow,
)
from seatkeeper.server.domain import Instant
from seatkeeper.server.events.history import UsageHistory
from seatkeeper.server.events.usage import BEGINS, ENDS, UsageEvent, UsageKind
from seatkeeper.server.store import Change, Entry, Listing
from seatkeeper.server.store.keys import Keys

DIGEST_BYTES = 16
UNREADABLE = "unreadable"
"""Cause of a gap: a record that this version does not understand."""
CAUSES_MAX = 200
"""Characters of a gap's detail."""

Request = tuple[str, str]
"""A pool, and a request's id."""


@dataclass(frozen=True, slots=True)
class OpenRow:
    """A grant that is held, or a request that waits, as the database has it."""

    began: Position
    pool: str
    grant_id: str
    is_grant: bool
    record: bytes


def digest_of(changes: Iterable[Change]) -> bytes:
    """Return what distinguishes the changes of a revision from others. Their order does not matter."""
    found = blake2b(digest_size=DIGEST_BYTES)
    for change in sorted(changes, key=lambda each: each.key):
        value = None if change.entry is None else change.entry.value
        for part in (
            change.key.encode(errors="surrogateescape"),
            b"-" if value is None else b"+" + value,
        ):
            found.update(len(part).to_bytes(8, "big") + part)
    return found.digest()


class Accounts:
    """Knows what is open at one revision, and makes rows of what happens after it."""

    def __init__(self, keys: Keys, standing: Standing, opened: Iterable[OpenRow] = ()) -> None:
        self._keys = keys
        self._history = UsageHistory(keys)
        self._grants: dict[Request, Position] = {}
        self._waits: dict[Request, Position] = {}
        self.standing = standing
        """Up to where everything is in a page."""
        self._page = Page(standing, standing)
        entries = []
        for row in opened:
            request = row.pool, row.grant_id
            key = (keys.grant if row.is_grant else keys.ticket)(*request)
            (self._grants if row.is_grant else self._waits)[request] = row.began
            entries.append(Entry(key, row.record, standing.revision))
        entries.sort(key=lambda entry: entry.key)
        self._history.begin(Listing(entries, standing.revision))
        self._note_unreadable(standing.revision, standing.at)

    @property
    def pending(self) -> int:
        """How many rows the next page has so far."""
        return self._page.size

    def page(self) -> Page:
        """Return what happened since the last page, to be written."""
        page, self._page = self._page, Page(self.standing, self.standing)
        page.after = self.standing
        return page

    def read(
        self, revision: int, changes: Sequence[Change], seen_at: Instant, *, is_late: bool
    ) -> None:
        """Take all changes of one revision.

        ``is_late``: the revision was made some time before ``seen_at``, it is not known when.
        """
        before = min(self.standing.at, seen_at)
        events = self._history.read(changes, seen_at)
        records = {change.key: change.entry.value for change in changes if change.entry}
        operations = count()
        latest = before
        for event in events:
            where = Position(self.standing.history, revision, next(operations))
            has_time = event.at != seen_at
            if has_time:
                latest = min(max(latest, event.at), seen_at)  # a node may be ahead
            after = before if is_late and not has_time else None
            self._take(event, where, records, after)
        self._end_unreadable(changes, revision, operations, seen_at)
        self._note_unreadable(revision, seen_at)
        if not is_late:
            latest = max(latest, seen_at)
        self.standing = replace(
            self.standing,
            revision=revision,
            marked=revision if changes else self.standing.marked,
            digest=digest_of(changes) if changes else self.standing.digest,
            at=latest,
        )

    def passed(self, revision: int, seen_at: Instant) -> None:
        """Take note that nothing of ours changed up to ``revision``, which is the present one."""
        if revision >= self.standing.revision:
            at = max(self.standing.at, seen_at)
            self.standing = replace(self.standing, revision=revision, at=at)

    def find(self, listing: Listing, history: int, cause: str, seen_at: Instant) -> None:
        """Go on with what is there now, after something that could not be read: a gap.

        ``history``: the one that goes on from here, which may be another than before.
        """
        before = self.standing
        since = min(before.at, seen_at)
        gap = Gap(history, cause, before.revision, listing.revision, since, seen_at)
        self._page.gaps.append(gap)
        self._begin(listing, history, seen_at, gap)

    def begin(self, listing: Listing, seen_at: Instant) -> None:
        """Begin a ledger with what is there."""
        self._begin(listing, self.standing.history, seen_at, None)

    def _begin(self, listing: Listing, history: int, seen_at: Instant, gap: Gap | None) -> None:
        found = UsageHistory(self._keys)
        changes = [Change(each.key, each, listing.revision) for each in listing.entries]
        events = found.read(changes, seen_at)
        there: dict[bool, set[Request]] = {True: set(), False: set()}
        for event in events:
            request = event.pool, event.grant_id
            # One that was made anew under the id, as kept seats are, is another.
            is_same = event.fence == (self._history.fence_of(*request) or 0)
            if event.kind in BEGINS and is_same:
                there[True].add(request)
            elif event.kind is UsageKind.QUEUED:
                there[False].add(request)
        operations = count()
        self.standing = Standing(history, listing.revision, 0, b"", seen_at)
        for is_grant, known in ((True, self._grants), (False, self._waits)):
            for request in sorted(known.keys() - there[is_grant]):
                where = Position(history, listing.revision, next(operations))
                kind = UsageKind.EXPIRED if is_grant else UsageKind.CANCELLED
                since = seen_at if gap is None else gap.from_at
                ending = Ending(where, kind, seen_at, GAP, after=since)
                self._end(request, ending, is_grant=is_grant)
        records = {each.key: each.value for each in listing.entries}
        for event in events:
            request = event.pool, event.grant_id
            if event.kind is UsageKind.DENIED or (request in self._open(event)):
                continue  # of a decision that is long made; or known already
            where = Position(history, listing.revision, next(operations))
            self._take(event, where, records, None, was_found=True)
            if event.kind in BEGINS and gap is not None:
                # Before the gap it was not held, by all that the ledger knows, or was written then.
                self._page.grants[where].counts_from = max(event.at, gap.from_at)
        self._history = found
        self._note_unreadable(listing.revision, seen_at)

    def _open(self, event: UsageEvent) -> dict[Request, Position]:
        return self._grants if event.kind in BEGINS else self._waits

    def _take(
        self,
        event: UsageEvent,
        where: Position,
        records: dict[str, bytes],
        after: Instant | None,
        *,
        was_found: bool = False,
    ) -> None:
        request = event.pool, event.grant_id
        after = None if after is None else min(after, event.at)
        asked = Asked(*request, event.session_id, event.attribution, event.seats)
        if event.kind in BEGINS:
            record = records[self._keys.grant(*request)]
            self._grants[request] = where
            self._page.grants[where] = _grant_row(event, where, asked, record, was_found)
            self._serve(request)
        elif event.kind is UsageKind.QUEUED:
            record = records[self._keys.ticket(*request)]
            self._waits[request] = where
            self._page.waits[where] = WaitRow(where, asked, event.at, record, was_found)
        else:
            ending = Ending(where, event.kind, event.at, event.reason, event.hint, after)
            if event.kind in ENDS:
                self._end(request, ending, is_grant=True)
            elif event.since is not None:
                self._end(request, ending, is_grant=False)
            else:  # it was refused at once, and may have named a request of another that waits
                self._page.waits[where] = WaitRow(where, asked, event.at, b"", ended=ending)

    def _end(self, request: Request, ending: Ending, *, is_grant: bool) -> None:
        opened = self._grants if is_grant else self._waits
        began = opened.pop(request, None)
        if began is None:
            return  # it began in a record that was not to be read: a gap says so
        page = self._page
        row = page.grants.get(began) if is_grant else page.waits.get(began)
        if row is not None:
            row.ended, row.record = ending, b""
        else:
            (page.grants_ended if is_grant else page.waits_ended)[began] = ending

    def _serve(self, request: Request) -> None:
        """Take out the wait that ended with seats: the grant says since when it was asked for."""
        began = self._waits.pop(request, None)
        if began is not None and self._page.waits.pop(began, None) is None:
            self._page.waits_served.append(began)

    def _end_unreadable(
        self,
        changes: Sequence[Change],
        revision: int,
        operations: Iterator[int],
        seen_at: Instant,
    ) -> None:
        """End what is deleted, and whose record an earlier version of us could read, and we cannot."""
        below = self._keys.seats("")[:-1]
        for change in changes:
            if change.entry is not None or not change.key.startswith(below):
                continue
            pool, _, kind_and_name = change.key.removeprefix(below).partition("/")
            kind, _, name = kind_and_name.partition("/")
            is_grant = kind == "grants"
            known = self._grants if is_grant else self._waits if kind == "queue" else {}
            if (pool, name) in known:
                where = Position(self.standing.history, revision, next(operations))
                how = UsageKind.RELEASED if is_grant else UsageKind.CANCELLED
                ending = Ending(where, how, seen_at, UNREADABLE.upper())
                self._end((pool, name), ending, is_grant=is_grant)

    def _note_unreadable(self, revision: int, seen_at: Instant) -> None:
        for error in self._history.unreadable:
            gap = Gap(
                self.standing.history,
                UNREADABLE,
                *(revision, revision, min(self.standing.at, seen_at), seen_at),
                str(error)[:CAUSES_MAX],
            )
            self._page.gaps.append(gap)


def _grant_row(
    event: UsageEvent, where: Position, asked: Asked, record: bytes, was_found: bool
) -> GrantRow:
    return GrantRow(
        began=where,
        asked=asked,
        fence=event.fence,
        asked_at=event.since,
        granted_at=event.at,
        counts_from=event.at,
        lots=() if event.marks is None else event.marks.lots,
        rule=event.reason,
        record=record,
        was_found=was_found,
    )
