"""Records of other versions: what a newer node wrote is kept; what must not be guessed at is refused.

Several versions of a node live side by side during an upgrade, and each writes into records that the
others read. Two rules make that safe:

- **A record that is changed is patched.** Whatever of it a node does not know stays as it was. Values
  that decisions are made on carry the record that they were read from where it says more than this
  version knows (``knows_all``), and nothing otherwise, so that this costs a busy node next to nothing.
- **A record has a format**, a number in its field ``format``; unset is the first. A version that
  changes what a record *means*, so that an older node would decide wrongly on it, raises the number,
  and an older node refuses the record: ``FormatUnsupported``. A field that an older node may overlook
  does not need that.

What is no record at all is refused likewise: ``RecordDamaged``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import ClassVar, TypeVar

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from seatkeeper.server.store.interface import Entry

FORMAT = 1
"""The format of records that this version writes, and the newest that it knows, but for ``NEWER``."""
POLICY_FORMAT = 2
"""Of a pool's specification with a policy, which an older node must not overlook."""
RULES_FORMAT = 3
"""Of one with what came to pools after projects, or that is drained, and of a ticket that was moved: a
node that knows format 2 must not overlook it."""
TERMS_FORMAT = 4
"""Of a ticket that is granted together with others, or not at all, and of a pool with terms, such as an
overdraft or costs, on which a node that knows format 3 would decide wrongly."""
STAY_FORMAT = 5
"""Of a ticket that is one of several alternatives, and of a pool that keeps seats for gangs, or whose
seats may be kept, or held, by no session: a node that knows format 4 would decide wrongly on it."""
COUNT_FORMAT = 6
"""Of a grant that counts once with others, and of a pool that says which do, or who may borrow: a node
that knows format 5 would count other seats than are in use, or lend seats to others."""
NEWER: Mapping[str, int] = {
    "seatkeeper.internal.v1.GrantRecord": COUNT_FORMAT,
    "seatkeeper.internal.v1.TicketRecord": STAY_FORMAT,
    "seatkeeper.v1.PoolSpec": COUNT_FORMAT,
}
"""The newest format known of some records, which are written in the oldest that says all there is."""


class RecordUnreadable(Exception):
    """A record that this version does not understand. Nothing may be decided on it."""

    event: ClassVar[str]
    """What the log has of it."""

    def __init__(self, key: str, said: str, **facts: object) -> None:
        super().__init__(f"{key} {said}")
        self.key = key
        self.facts = facts
        """What else the log says."""
        self._said = said

    def under(self, key: str) -> RecordUnreadable:
        """Return the same of a record that is under this key."""
        found = type(self).__new__(type(self))
        RecordUnreadable.__init__(found, key, self._said, **self.facts)
        return found


class FormatUnsupported(RecordUnreadable):
    """A record is of a newer format than this version knows."""

    event = "record_format_unsupported"

    def __init__(self, key: str, record_format: int, known: int = FORMAT) -> None:
        super().__init__(
            key,
            f"has record format {record_format}, and this version knows {known}: a newer version wrote "
            "it; upgrade this node, or ask one that is upgraded",
            format=record_format,
            known=known,
            do="upgrade this node to the version of the others",
        )


class RecordDamaged(RecordUnreadable):
    """A record is none of ours: it is damaged, or something else was written over it."""

    event = "record_damaged"

    def __init__(self, key: str, what: str) -> None:
        super().__init__(
            key,
            f"is no {what}: it is damaged, or another program wrote it; an operator must put back what "
            "was there, or remove the key from etcd",
            what=what,
            do="put back what was there, or remove the key from etcd",
        )


_Record = TypeVar("_Record", bound=Message)


def parsed(kind: type[_Record], key: str, value: bytes) -> _Record:
    """Return the record under ``key``. Raises a ``RecordUnreadable``."""
    try:
        record = kind.FromString(value)
    except DecodeError as error:
        raise RecordDamaged(key, kind.DESCRIPTOR.name) from error
    check_format(key, record)
    return record


def check_format(key: str, record: Message) -> None:
    """Raise ``FormatUnsupported`` for a record that this version does not understand."""
    number: int = record.format  # type: ignore[attr-defined]  # every stored record has it
    if number > (known := NEWER.get(record.DESCRIPTOR.full_name, FORMAT)):
        raise FormatUnsupported(key, number, known)


def readable(
    kind: type[_Record],
    entries: Iterable[Entry],
    refused: Callable[[RecordUnreadable], None],
) -> Iterator[tuple[Entry, _Record]]:
    """Yield the records of a listing that this version understands; call ``refused`` for the others.

    For listings that are of use without some of their records.
    """
    for entry in entries:
        try:
            record = parsed(kind, entry.key, entry.value)
        except RecordUnreadable as error:
            refused(error)
            continue
        yield entry, record


def knows_all(message: Message) -> bool:
    """Return whether this version knows every field of a message, those within it included."""
    if len(UnknownFieldSet(message)):
        return False
    for name, is_repeated in _messages_in(message.DESCRIPTOR):
        if is_repeated:
            if not all(map(knows_all, getattr(message, name))):
                return False
        elif message.HasField(name) and not knows_all(getattr(message, name)):
            return False
    return True


def kept(message: Message, value: bytes = b"") -> bytes:
    """Return what to keep of a message that was read: all of it, where it says more than is known.

    ``value``: what it was read from, if that is at hand.
    """
    return b"" if knows_all(message) else value or message.SerializeToString()


@cache
def _messages_in(descriptor: Descriptor) -> tuple[tuple[str, bool], ...]:
    """Return the fields that are messages, and whether each is repeated; maps have nothing unknown."""
    return tuple(
        (field.name, bool(field.is_repeated))
        for field in descriptor.fields
        if field.message_type is not None and not field.message_type.GetOptions().map_entry
    )
