"""What text in a request must look like: in every field of every request, also of those to come.

Fields are found by the messages' descriptors, so that none can be forgotten. What text means, a
name or an id, is checked in `validate`; here is only what no text may have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from seatkeeper.core.jws import JWS_MAX
from seatkeeper.core.text import hidden_in, named
from seatkeeper.core.validate import DESCRIPTION_MAX, HOLDER_MAX, Malformed

TEXT_MAX = 1024
"""Most characters of a field that has no limit of its own."""
TOKEN_MAX = 16 * 1024
OPTION_MAX = 64 * 1024
DEPTH_MAX = 16
"""Messages in messages that are looked into; ours have fewer."""

_LIMITS: Mapping[str, int] = {
    "description": DESCRIPTION_MAX,
    "holder": HOLDER_MAX,
    "token": TOKEN_MAX,
    "jws": JWS_MAX,
    # What a build is to be made with has errors of its own, which quote its beginning.
    "backend": OPTION_MAX,
    "targets": OPTION_MAX,
    "input": OPTION_MAX,
}
"""By the field's name, which means the same wherever it occurs."""
_COMMANDS = frozenset({"open", "resume", "renew", "acquire", "release"})
"""Their fields are named from the command on, in a call as on a stream: ``pool``, no more."""


class _Fields(NamedTuple):
    """The fields of a message in which there may be text."""

    texts: Sequence[tuple[str, bool, int]]
    """Name, whether repeated, and most characters."""
    messages: Sequence[tuple[str, bool]]
    """Name, and whether repeated."""
    maps: Sequence[str]
    """Names of maps whose keys, values or both are text."""


def check_texts(message: Message, *, within: str = "") -> None:
    """Check all text in a request; ``within`` is the path of the message in it.

    Raises ``Malformed`` that names the field, as ``spec.description``.
    """
    for path, text, most in _texts(message, f"{within}." if within else "", DEPTH_MAX):
        if len(text) > most:
            raise Malformed(path, f"has {len(text)} characters; at most {most}")
        if hidden := hidden_in(text):
            raise Malformed(path, f"has the character {named(hidden)}, which cannot be shown")


def _texts(message: Message, prefix: str, depth: int) -> Iterator[tuple[str, str, int]]:
    if not depth:
        raise Malformed(prefix.rstrip("."), "is nested too deeply")
    fields = _fields_of(message.DESCRIPTOR)
    for name, repeated, most in fields.texts:
        value = getattr(message, name)
        for text in value if repeated else (value,):
            yield f"{prefix}{name}", text, most
    for name in fields.maps:
        for pair in getattr(message, name).items():
            for part in pair:
                if isinstance(part, str):
                    yield f"{prefix}{name}", part, TEXT_MAX
                elif isinstance(part, Message):
                    yield from _texts(part, f"{prefix}{name}.", depth - 1)
    for name, repeated in fields.messages:
        below = prefix if name in _COMMANDS else f"{prefix}{name}."
        if repeated:
            for part in getattr(message, name):
                yield from _texts(part, below, depth - 1)
        elif message.HasField(name):
            yield from _texts(getattr(message, name), below, depth - 1)


@cache
def _fields_of(descriptor: Descriptor) -> _Fields:
    texts, messages, maps = [], [], []
    for field in descriptor.fields:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            if _may_have_text(field.message_type, frozenset()):
                maps.append(field.name)
            continue
        if field.type == FieldDescriptor.TYPE_STRING:
            texts.append((field.name, _is_repeated(field), _LIMITS.get(field.name, TEXT_MAX)))
        elif field.message_type is not None and _may_have_text(field.message_type, frozenset()):
            messages.append((field.name, _is_repeated(field)))
    return _Fields(texts, messages, maps)


def _may_have_text(descriptor: Descriptor, above: frozenset[str]) -> bool:
    if descriptor.full_name in above:
        return False
    above |= {descriptor.full_name}
    return any(
        field.type == FieldDescriptor.TYPE_STRING
        or (field.message_type is not None and _may_have_text(field.message_type, above))
        for field in descriptor.fields
    )


def _is_repeated(field: Any) -> bool:  # noqa: ANN401 - its types lag behind
    return bool(field.is_repeated)
