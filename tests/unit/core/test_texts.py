"""Text from outside: refused in every field of every call, whatever is added to them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from tests.unit.services import running_services

import seatkeeper.v1
from seatkeeper.core.serving.texts import check_texts
from seatkeeper.core.text import as_text, hidden_in, name_of_file, path_in_json, printable
from seatkeeper.core.validate import Malformed
from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.service import SERVICES

NASTY = {
    "NUL": "a\x00b",
    "ESC": "a\x1b]0;title\x07b",
    "a line's end": "a\nb",
    "a carriage return": "a\rb",
    "a tab": "a\tb",
    "DEL": "a\x7fb",
    "CSI of C1": "a\x9b31mb",
    "the next line of C1": "a\x85b",
    "an override": "a\u202eb",
    "an isolate": "a\u2066b",
    "an Arabic letter mark": "a\u061cb",
    "no width": "a\u200bb",
    "a joiner": "a\u2060b",
    "a byte order mark": "\ufeffab",
    "a soft hyphen": "a\u00adb",
    "a line separator": "a\u2028b",
    "a paragraph separator": "a\u2029b",
    "a tag": "a\U000e0041b",
    "a filler": "a\u3164b",
    "a hidden selector": "a\U000e0105b",
}
HARMLESS = (
    "plain",
    "München, 東京, שלום, नमस्ते",
    "\N{NO-BREAK SPACE}",
    "❤\ufe0f",
    "[red]x[/]",
)


def calls() -> Iterator[MethodDescriptor]:
    for module in pkgutil.iter_modules(seatkeeper.v1.__path__):
        if module.name.endswith("_pb2"):
            found = importlib.import_module(f"seatkeeper.v1.{module.name}")
            for service in found.DESCRIPTOR.services_by_name.values():
                yield from service.methods


def text_fields(
    descriptor: Descriptor, above: Sequence[FieldDescriptor] = ()
) -> Iterator[Sequence[FieldDescriptor]]:
    assert len(above) < 12
    for field in descriptor.fields:
        path = (*above, field)
        if field.type == FieldDescriptor.TYPE_STRING:
            yield path
        elif field.message_type is not None:
            yield from text_fields(field.message_type, path)


def with_text(message: Message, path: Sequence[FieldDescriptor], text: str) -> None:
    """Set one field that may be deep inside a message, and nothing else."""
    at: Any = message
    for field in path[:-1]:
        at = getattr(at, field.name)
        if is_map(field):
            at[text if path[-1].name == "key" else "k"] = "" if path[-1].name == "key" else text
            return
        at = at.add() if field.is_repeated else at
        if not field.is_repeated:
            at.SetInParent()
    last = path[-1]
    if last.is_repeated:
        getattr(at, last.name).append(text)
    else:
        setattr(at, last.name, text)


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def named(path: Sequence[FieldDescriptor]) -> str:
    """How a field is called: from the command on, where it is of one; keys and values as their map."""
    in_map = any(is_map(part) for part in path)
    parts = path[:-1] if in_map else path
    return ".".join(part.name for part in parts if part.name not in COMMANDS)


COMMANDS = {"open", "resume", "renew", "acquire", "release"}
FIELDS = {
    f"{call.full_name} {'.'.join(field.name for field in path)}": (call, path)
    for call in calls()
    for path in text_fields(call.input_type)
}


@pytest.mark.parametrize("name", FIELDS)
def test_no_field_of_any_request_takes_what_cannot_be_shown(name: str) -> None:
    call, path = FIELDS[name]
    field = named(path)
    for text in NASTY.values():
        request = GetMessageClass(call.input_type)()
        with_text(request, path, text)
        with pytest.raises(Malformed) as refused:
            check_texts(request)
        assert refused.value.field == field
    request = GetMessageClass(call.input_type)()
    with_text(request, path, "x" * 70_000)
    with pytest.raises(Malformed, match="at most"):
        check_texts(request)


@pytest.mark.parametrize(
    "name", [n for n, (call, _) in FIELDS.items() if not call.client_streaming]
)
async def test_every_door_checks(name: str, tmp_path: Path) -> None:
    """The answer of a node to one nasty text in a call that is empty otherwise."""
    call, path = FIELDS[name]
    if call.containing_service.full_name not in SERVICES:
        pytest.skip("not of a node that clients call; see the agent's and the peers' tests")
    request = GetMessageClass(call.input_type)()
    with_text(request, path, NASTY["ESC"])
    kind = "stream" if call.server_streaming else "unary"
    async with (
        running_services(tmp_path) as services,
        grpc.aio.insecure_channel(services.node.address) as to,
    ):
        method = getattr(to, f"unary_{kind}")(
            f"/{call.containing_service.full_name}/{call.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(call.output_type).FromString,
        )
        answer = method(request, timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await (answer.read() if call.server_streaming else answer)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert named(path) in str(refused.value.details())
    assert "\x1b" not in str(refused.value.details())


def test_the_keys_of_a_map_are_text_as_well() -> None:
    check_texts(state_pb2.EngineRecord(fences={"tensorrt": 1}))
    with pytest.raises(Malformed) as refused:
        check_texts(state_pb2.EngineRecord(fences={NASTY["ESC"]: 1}))
    assert refused.value.field == "fences"


@pytest.mark.parametrize("text", HARMLESS)
def test_writing_of_all_the_world_is_text(text: str) -> None:
    assert hidden_in(text) == ""
    assert printable(text) == text


@pytest.mark.parametrize("kind", NASTY)
def test_what_is_shown_is_harmless_and_says_what_was_there(kind: str) -> None:
    shown = printable(NASTY[kind])
    assert hidden_in(shown) == ""
    assert "\\" in shown


def test_escaped_text_can_be_recognised() -> None:
    assert printable("a\x1b[31m\u202e\U000e0001\udce9") == r"a\x1b[31m\u202e\U000e0001\xe9"
    assert printable("one\ntwo\r", keep="\n") == "one\ntwo\\x0d"


def test_bytes_that_are_utf8_after_all_are_put_together() -> None:
    assert as_text("ren\udcc3\udca9") == as_text("rené") == "rené"
    for wrong in ("ren\udce9", "half \ud83d"):
        with pytest.raises(ValueError, match="is not UTF-8"):
            as_text(wrong)


def test_a_file_of_any_name_has_a_name_that_travels() -> None:
    assert name_of_file(b"/tmp/mod\xe9le.onnx") == r"mod\xe9le.onnx"
    assert name_of_file("/tmp/modèle.onnx") == "modèle.onnx"
    assert name_of_file("new\nline") == r"new\nline".replace("\\n", "\\x0a")
    assert path_in_json(b"/tmp/out\xe9") == "/tmp/out\udce9"
