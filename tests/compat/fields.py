"""Fields that a later version might write: planted into records, and looked for in everything that is written after.

A record with a field that neither version knows is read, changed and written back by nodes of both.
Which node did it is known: probes do one thing at a time, at one node, and say so. What is lost is
then seen in etcd's history, revision by revision.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from google.protobuf.empty_pb2 import Empty
from google.protobuf.internal.encoder import TagBytes
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from seatkeeper.server.store import Change, Put, Store, Unchanged
from seatkeeper.server.store.keys import Keys

FIELD = 15_501
"""A number that no record has; both versions take it for one of a later version."""
WIRE_TYPE_BYTES = 2
ATTEMPTS_MAX = 20
_NO_DECISION = TagBytes(3, 1) + bytes(8)
"""What ends a guard that no node has written: `decision_id` 0."""


class NotPlanted(Exception):
    """A record was not there, or changed all the time."""


def with_token(value: bytes, token: bytes) -> bytes:
    """Return a record with a field more. Protobuf reads messages that are joined as one."""
    assert len(token) < 128  # a length of one byte
    return value + TagBytes(FIELD, WIRE_TYPE_BYTES) + bytes([len(token)]) + token


def tokens_in(value: bytes) -> frozenset[bytes]:
    """Return the tokens in a record's fields of that number; what is no message has none."""
    try:
        message = Empty.FromString(value)
    except DecodeError:
        return frozenset()
    unknown = UnknownFieldSet(message)
    fields = [unknown[index] for index in range(len(unknown))]
    return frozenset(each.data for each in fields if each.field_number == FIELD)


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

    A record that is deleted takes its tokens along. ``steps``, in the order of revisions, say who
    wrote what.
    """
    found = Survey()
    present: dict[str, frozenset[bytes]] = {}
    ahead = iter(steps)
    step = next(ahead, None)
    for change in changes:
        while step is not None and step.until < change.revision:
            step = next(ahead, None)
        before = present.pop(change.key, frozenset())
        if change.entry is None:
            continue
        now = tokens_in(change.entry.value)
        if now:
            present[change.key] = now
        if before and not now - before:  # with a new one: it was us, who planted it
            writer, name = (step.writer, step.name) if step else ("", "")
            found.rewrites[writer] = found.rewrites.get(writer, 0) + 1
            found.losses += [
                Loss(change.key, name, writer, change.revision) for _ in before - now
            ]
    return found


class Planter:
    """Writes tokens into records, as a node of a later version would have."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._tokens: Iterator[bytes] = (b"token-%d" % number for number in range(1, 1 << 31))

    async def plant(self, key: str) -> None:
        """Put one token more into a record. Raises ``NotPlanted``, and ``StoreError``."""
        token = next(self._tokens)
        for _ in range(ATTEMPTS_MAX):
            entry = await self._store.get(key)
            if entry is None:
                raise NotPlanted(f"{key} is not there")
            value = with_token(entry.value, token)
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
