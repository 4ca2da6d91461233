"""Fields that a later version might write: planted into records, and looked for in all later revisions.

A record with a field that neither version knows is read, changed and written back by nodes of both.
Which node did it is known: probes do one thing at a time, at one node, and say so. What is lost is
then seen in etcd's history, revision by revision. A field within a ticket's ``attributes`` must also be
in the grant that the ticket becomes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, groupby

from google.protobuf.empty_pb2 import Empty
from google.protobuf.internal.encoder import TagBytes
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from seatkeeper.server.store import Change, Put, Store, Unchanged
from seatkeeper.server.store.keys import Keys

FIELD = 15_501
"""A number that no record has; both versions take it for one of a later version."""
WIRE_TYPE_BYTES = 2
CARRIED = b"carried-"
"""What a token begins with that is in a ticket's attributes."""
TICKET_ATTRIBUTES = 11
"""Number of the field ``attributes`` in a ticket's record."""
ATTEMPTS_MAX = 20
_NO_DECISION = TagBytes(3, 1) + bytes(8)
"""What ends a guard that no node has written: `decision_id` 0."""


class NotPlanted(Exception):
    """A record was not there, or changed all the time."""


def with_token(value: bytes, token: bytes, within: int = 0) -> bytes:
    """Return a record with a field more. Protobuf reads messages that are joined as one.

    ``within`` is the number of the record's field, a message, that gets it; 0: the record itself.
    """
    field = _bytes_field(FIELD, token)
    return value + (_bytes_field(within, field) if within else field)


def _bytes_field(number: int, content: bytes) -> bytes:
    assert len(content) < 128  # a length of one byte
    return TagBytes(number, WIRE_TYPE_BYTES) + bytes([len(content)]) + content


def tokens_in(value: bytes) -> frozenset[bytes]:
    """Return the tokens in a record, and in the messages that it holds."""
    try:
        message = Empty.FromString(value)
    except DecodeError:
        return frozenset()
    unknown = UnknownFieldSet(message)
    found: set[bytes] = set()
    for index in range(len(unknown)):
        each = unknown[index]
        if each.wire_type == WIRE_TYPE_BYTES:
            found |= {each.data} if each.field_number == FIELD else tokens_in(each.data)
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Loss:
    """A field that was in a record, and was not in what a node wrote in its place."""

    key: str
    step: str
    writer: str
    """Version that wrote it; empty: no step says who."""
    revision: int

    def __str__(self) -> str:
        """Return it in one line."""
        return f"{self.writer or 'some'} node, {self.step or 'unknown step'}: {self.key}"


@dataclass(frozen=True, slots=True)
class Step:
    """What a probe did, at a node of which version; over at a revision."""

    name: str
    writer: str
    until: int


@dataclass
class Survey:
    """What became of planted fields, so far."""

    rewrites: dict[str, int] = field(default_factory=dict)
    """How often a version wrote a record anew that had such a field: what there was to lose."""
    losses: list[Loss] = field(default_factory=list)

    def lost_by(self, *writers: str) -> list[Loss]:
        """Return what these lost."""
        return [loss for loss in self.losses if loss.writer in writers]


def survey(changes: Iterable[Change], steps: Sequence[Step]) -> Survey:
    """Return what became of every token in a history. Pure.

    A record that is deleted takes its tokens along, except that a ticket which becomes a grant leaves
    those of its attributes. ``steps``, in the order of revisions, say which node wrote what.
    """
    found = Survey()
    present: dict[str, frozenset[bytes]] = {}
    ahead = iter(steps)
    step = next(ahead, None)
    for revision, together in groupby(changes, key=lambda change: change.revision):
        while step is not None and step.until < revision:
            step = next(ahead, None)
        for key, lost in _lost_at(list(together), present):
            writer, name = (step.writer, step.name) if step else ("", "")
            found.rewrites[writer] = found.rewrites.get(writer, 0) + 1
            found.losses += [Loss(key, name, writer, revision)] * len(lost)
    return found


def _lost_at(
    together: Sequence[Change], present: dict[str, frozenset[bytes]]
) -> Iterator[tuple[str, frozenset[bytes]]]:
    """Apply one revision; yield each record that was written anew, and the tokens it has lost."""
    handed_over: dict[str, frozenset[bytes]] = {}
    written: set[str] = set()
    for change in together:
        before = present.pop(change.key, frozenset())
        if change.entry is None:
            carried = frozenset(token for token in before if token.startswith(CARRIED))
            if carried and "/queue/" in change.key:
                handed_over[change.key.replace("/queue/", "/grants/", 1)] = carried
            continue
        written.add(change.key)
        now = tokens_in(change.entry.value)
        if now:
            present[change.key] = now
        if before and not now - before:  # with a new one: it was us, who planted it
            yield change.key, before - now
    for key, carried in handed_over.items():
        if key in written:  # else its ticket was given up
            yield key, carried - present.get(key, frozenset())


class Planter:
    """Writes tokens into records, as a node of a later version would have."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._numbers = count(1)

    async def plant(self, key: str, within: int = 0) -> None:
        """Put one token more into a record, or into the message in its field of this number.

        Raises ``NotPlanted``, and ``StoreError``.
        """
        token = b"%s%d" % (CARRIED if within else b"token-", next(self._numbers))
        for _ in range(ATTEMPTS_MAX):
            entry = await self._store.get(key)
            if entry is None:
                raise NotPlanted(f"{key} is not there")
            value = with_token(entry.value, token, within)
            if key.endswith("/guard"):
                value += _NO_DECISION
            committed = await self._store.commit(
                [Put(key, value, entry.lease_id)],
                only_if=[Unchanged(key, entry.mod_revision)],
            )
            if committed.succeeded:
                return
        raise NotPlanted(f"{key} changes all the time")

    def key(self, kind: str, *names: str) -> str:
        """Return the key of a record: what it is, and whose."""
        made: str = getattr(self._keys, kind)(*names)
        return made
