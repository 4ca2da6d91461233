"""One node's view of one pool: the state that decisions are made on, and how old it is.

Theory of operation
-------------------
Two streams of updates arrive in no common order: this node's own commits, known the moment the store
answers, and the watch, which delivers those of all nodes, including our own once more. Listings come
between them, and any of the three may overtake the others.

``_complete`` is the revision up to which the view has everything, from listings and the watch; an
update of a change up to it is dropped. Above it, each key remembers the revision of the last update of
it, and older updates are dropped; a deleted one leaves a tombstone until then. So nothing comes
back, not for a moment: a ticket that did could be served a second time. Of two updates of one
revision the deletion counts: a transaction writes no key twice, but the answer to a request that was
sent again gives what is held as of the decision, and that decision may also have ended it.

``guard_revision`` is the version that the next commit compares with. It may run ahead of the watch
only by our own commits, whose writes have been applied here; so the state holds everything that was
written up to that version.

A listing of a large pool is brought in step by step, and decisions go on in between. The guard comes
last, so that what is said of ``guard_revision`` holds after every step: a decision that is made
meanwhile either finds that another has been made since, or misses no more than some leases' ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from sys import maxsize

from seatkeeper.server.domain import Denied, Forced, Grant, Guard, PoolState, Released, Ticket
from seatkeeper.server.domain.holds import changed_holds
from seatkeeper.server.domain.reclaims import changed_reclaims
from seatkeeper.server.domain.watermark import Watermark, is_forced
from seatkeeper.server.pool.writes import Made, deletes_of
from seatkeeper.server.store import Entry, Listing, Put, WatchBatch, Write, records, stays
from seatkeeper.server.store.formats import RecordUnreadable
from seatkeeper.server.store.keys import Keys

NOTHING_MADE: Mapping[str, Made] = {}
ENDS_MAX = 1_000
"""Most ends remembered; older ones were reported, or concern no client here."""


class PoolMirror:
    """The view. Changed by listings, watch batches and own commits; read by decisions."""

    def __init__(self, keys: Keys, pool: str) -> None:
        self.state = PoolState()
        self.guard_revision = 0
        """Revision of the guard that the state belongs to; 0: there is no guard."""
        self.decision_id = 0
        """The decision that wrote the guard at that revision."""
        self._listed = 0
        self._complete = 0
        self._keys = keys
        self._pool = pool
        self._prefix = keys.seats(pool)
        self._guard = keys.guard(pool)
        self._marks = keys.mark(pool, "")
        self._revisions: dict[str, int] = {}
        self._tombstones: deque[tuple[int, str]] = deque()
        self._deleted: set[str] = set()
        """The keys of these."""
        self._taken_over: set[int] = set()
        """Fences of grants whose seats others have taken over, and that are seen to end next."""
        self.ended: list[Grant] = []
        """Grants seen to end since the caller last looked; the caller empties it."""
        self.expired: list[Grant | Ticket] = []
        """Grants and tickets that no decision ended: their session did. The caller empties it."""
        self.expired_ids: set[str] = set()
        """The ids of all of these; a commit empties it when it begins."""
        self._is_decided = True
        self._made: Mapping[str, Made] = NOTHING_MADE
        self._own_revision = 0
        """The last own commit that was brought in whole: what the watch shows of it is known."""
        self.unsupported: dict[str, RecordUnreadable] = {}
        """Records of a newer format, by key. While there are any, nothing is decided on the view."""
        self.ends: dict[str, Denied | Released | Forced] = {}
        """How tickets and grants ended lately, by grant id, where more is known than that they are
        gone; the caller removes those it has reported."""
        self._ahead: list[tuple[int, str, str]] = []
        """Releases that the watch has not delivered: revisions, sessions and grant ids."""

    @property
    def complete_revision(self) -> int:
        """The revision up to which the view has everything; beyond it, perhaps not leases' ends."""
        return self._complete

    def reset(self, listing: Listing) -> set[str]:
        """Bring in a listing of the whole pool. Returns the grant ids that are affected."""
        return set().union(*self.reset_in_steps(listing, step=maxsize))

    def reset_in_steps(self, listing: Listing, *, step: int) -> Iterator[set[str]]:
        """Bring in a listing, pausing after each ``step`` records; yield the grant ids affected.

        In the pauses the view may be used, and updated, as ever.
        """
        touched: set[str] = set()
        pauses = _Pauses(step)
        listed: set[str] = set()
        guard = None
        # What is there first: a ticket that is gone may have become a grant.
        for entry in listing.entries:
            if listing.revision < self._complete:
                return  # overtaken: what it lists may be gone by now, and its tombstone as well
            listed.add(entry.key)
            if entry.key == self._guard:
                guard = entry
                continue
            self._updated(entry.key, entry, entry.mod_revision, touched)
            self._note_listed_mark(entry)
            if pauses.is_due():
                yield touched
                touched = set()
        # Again, since the watch may have shown something in a pause whose deletion it has not.
        while gone := self._not_among(listed, listing.revision):
            # Without a decision since the view's own, what is gone went with its session.
            is_decided = guard is not None and guard.mod_revision > self.guard_revision
            for key in gone:
                self._is_decided = is_decided
                self._updated(key, None, listing.revision, touched)
                self._is_decided = True
                if pauses.is_due():
                    yield touched
                    touched = set()
        if guard is not None:
            self._updated(guard.key, guard, guard.mod_revision, touched)
        self._listed = max(self._listed, listing.revision)
        self._completed(listing.revision)
        yield touched

    def _not_among(self, listed: set[str], revision: int) -> list[str]:
        """Return the keys that are there as of ``revision`` or before, and were not listed at it."""
        known = self._revisions.items()
        return [
            key
            for key, at in known
            if at <= revision and key not in listed and key not in self._deleted
        ]

    def _note_listed_mark(self, entry: Entry) -> None:
        """Note of a watermark that what it covers is not known one by one."""
        if entry.key.startswith(self._marks) and entry.key not in self.unsupported:
            mark = records.decode_watermark(entry.value)
            self.state.completed.listed(entry.key[len(self._marks) :], mark.spans)

    def apply(self, batch: WatchBatch) -> set[str]:
        """Apply what a watch delivers. Returns the grant ids that are affected."""
        touched: set[str] = set()
        decided = {c.revision for c in batch.changes if c.key == self._guard}
        for change in batch.changes:
            # Not `_complete`: etcd before 3.5.8 may say that it is further than its events are.
            if change.revision > self._listed and change.revision != self._own_revision:
                self._is_decided = change.revision in decided
                self._updated(change.key, change.entry, change.revision, touched)
        self._is_decided = True
        self._completed(batch.revision)
        return touched

    def committed(
        self,
        writes: Iterable[Write],
        revision: int,
        made: Mapping[str, Made] = NOTHING_MADE,
        *,
        is_whole: bool = False,
    ) -> set[str]:
        """Bring in an own commit. Returns the grant ids that are affected.

        ``made``: by key, what its values were made from, so that they need not be read again.
        ``is_whole``: these are all writes of that revision, so the watch has nothing to add to it. A
        commit without writes is a read, and what was written at its revision is another's.
        """
        touched: set[str] = set()
        if revision <= self._complete:
            return touched
        self._made = made
        for write in writes:
            if is_whole:
                self._own_revision = revision
            entry = None
            if isinstance(write, Put):
                entry = Entry(write.key, write.value, revision, write.lease_id)
            self._updated(write.key, entry, revision, touched)
        self._made = NOTHING_MADE
        return touched

    def released(self, session_id: str, grant_id: str, revision: int) -> set[str]:
        """Bring in a release that another node decided. Returns the grant ids that are affected.

        The watch brings the session's watermark. Until then only ``ends`` says that it is no loss.
        """
        found = self.state.grants.get(grant_id) or self.state.tickets.get(grant_id)
        if found is None or found.session_id != session_id:
            return set()
        self._remember_end(Released(grant_id))
        if revision > self._complete:
            self._ahead.append((revision, session_id, grant_id))
        return self.committed(deletes_of(self._keys, self._pool, [grant_id]), revision)

    def _remember_end(self, end: Denied | Released | Forced) -> None:
        self.ends[end.grant_id] = end
        while len(self.ends) > ENDS_MAX:
            del self.ends[next(iter(self.ends))]

    def _updated(self, key: str, entry: Entry | None, revision: int, touched: set[str]) -> None:
        known = self._revisions.get(key, 0)
        if revision < known or (revision == known and (entry or key in self._deleted)):
            return
        self._revisions[key] = revision
        if entry is None:
            self._tombstones.append((revision, key))
            self._deleted.add(key)
        else:
            self._deleted.discard(key)
        if self.unsupported and self.unsupported.pop(key, None) is not None:
            touched.add(key)  # not an id: the view has changed all the same
        try:
            self._take(key, entry, revision, touched)
        except RecordUnreadable as error:
            self.unsupported[key] = error.under(key)
            touched.add(key)

    def _take(self, key: str, entry: Entry | None, revision: int, touched: set[str]) -> None:
        kind, _, name = key[len(self._prefix) :].partition("/")
        made = self._made.get(key)
        match kind:
            case "grants":
                self._apply_grant(name, entry, made)
                touched.add(name)
            case "stays":
                if entry is None:
                    self.state.remove_stay(name)
                else:
                    self.state.put_stay(stays.decode_stay(name, entry.value))
                touched.add(name)
            case "queue":
                self._apply_ticket(name, entry, made)
                touched.add(name)
            case "marks":
                self._apply_watermark(name, entry, made)
            case "guard":
                self.guard_revision = revision if entry else 0
                before = self.state.guard
                if entry is None:
                    self.state.guard, self.decision_id = Guard(), 0
                elif type(made) is tuple:
                    self.state.guard, self.decision_id = made
                else:
                    self.state.guard, self.decision_id = records.decode_guard(entry.value)
                touched.update(changed_reclaims(before.reclaims, self.state.guard.reclaims))
                touched.update(changed_holds(before.holds, self.state.guard.holds))

    def _apply_grant(self, grant_id: str, entry: Entry | None, made: Made | None) -> None:
        if entry is not None:
            known = made if type(made) is Grant else records.decode_grant(grant_id, entry.value)
            self.state.put_grant(known)
            if known.taken_from:
                self._note_taken_over(known)
        elif (ended := self.state.remove_grant(grant_id)) is not None:
            self._note_expiry(ended)
            is_over = ended.fence not in self._taken_over
            self._taken_over.discard(ended.fence)
            if ended.borrow is None:  # else it is of no session, and no hold as others are
                if is_over:
                    self.ended.append(ended)
                self.state.completed.add_ended(ended.session_id, grant_id)

    def _note_taken_over(self, grant: Grant) -> None:
        """Note from which grant seats were taken over: its end, which comes next, ends no hold."""
        if any(each.fence == grant.continues for each in self.state.grants.values()):
            self._taken_over.add(grant.continues)

    def _apply_ticket(self, grant_id: str, entry: Entry | None, made: Made | None) -> None:
        if entry is not None:
            known = (
                made if type(made) is Ticket else records.decode_ticket(grant_id, entry.value)
            )
            self.state.put_ticket(known)
            return
        ended = self.state.remove_ticket(grant_id)
        # A transaction that serves a ticket puts its grant before it deletes the ticket.
        if ended is not None and grant_id not in self.state.grants:
            self._note_expiry(ended)
            self.state.completed.add_ended(ended.session_id, grant_id)

    def _note_expiry(self, ended: Grant | Ticket) -> None:
        if not self._is_decided:
            self.expired.append(ended)
            self.expired_ids.add(ended.grant_id)

    def _apply_watermark(self, session_id: str, entry: Entry | None, made: Made | None) -> None:
        if entry is not None:
            mark = made if type(made) is Watermark else records.decode_watermark(entry.value)
            if mark.kept:
                self.state.kept_watermarks[session_id] = mark.kept
            elif self.state.kept_watermarks:
                self.state.kept_watermarks.pop(session_id, None)
            for denial in mark.denied:
                self._remember_end(denial)
            for lost in mark.lost:
                self._remember_end(lost)
            self._note_forced(session_id, mark)
            # The highest was completed, whether or not there are others.
            known = (*mark.unrecorded, mark.highest)
            self.state.completed.recorded(session_id, mark.spans, filter(None, known))
        else:
            # The watermark goes with the session's lease: nothing of that session comes any more.
            self.state.completed.forget(session_id)
            self.state.kept_watermarks.pop(session_id, None)
            self.state.ended_by_force.pop(session_id, None)
            self.state.dead_sessions.discard(session_id)

    def _note_forced(self, session_id: str, mark: Watermark) -> None:
        forced = {each.grant_id: each.message for each in mark.denied if is_forced(each)}
        forced |= {each.grant_id: each.message for each in mark.lost}
        if forced:
            self.state.ended_by_force[session_id] = forced
        elif self.state.ended_by_force:
            self.state.ended_by_force.pop(session_id, None)

    def _completed(self, upto: int) -> None:
        self._complete = max(self._complete, upto)
        while self._tombstones and self._tombstones[0][0] <= self._complete:
            revision, key = self._tombstones.popleft()
            if self._revisions.get(key) == revision and key in self._deleted:
                del self._revisions[key]
                self._deleted.discard(key)
        for ahead in [each for each in self._ahead if each[0] <= self._complete]:
            # Now that its watermark is there, if the session lives: a late duplicate takes nothing.
            self._ahead.remove(ahead)
            self.state.completed.add_ended(ahead[1], ahead[2])


class _Pauses:
    """Counts records, and says after which of them there is to be a pause."""

    def __init__(self, step: int) -> None:
        self._left = self._step = step

    def is_due(self) -> bool:
        """Count one; return whether it was the last before a pause."""
        self._left -= 1
        if self._left:
            return False
        self._left = self._step
        return True
