"""Calls and frames over gRPC, between JSON and bytes. Knows the protocol from its descriptors alone."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from tests.conformance.values import Json, ScriptError

from seatkeeper.v1 import (
    cluster_service_pb2,
    engine_service_pb2,
    pool_service_pb2,
    seat_service_pb2,
)

_DETAILS = (
    error_details_pb2.BadRequest,
    error_details_pb2.ErrorInfo,
    error_details_pb2.ResourceInfo,
    error_details_pb2.RetryInfo,
)
_TEXT = ("google.protobuf.Duration", "google.protobuf.Timestamp")


def _services() -> dict[str, ServiceDescriptor]:
    files = (seat_service_pb2, pool_service_pb2, cluster_service_pb2, engine_service_pb2)
    return {s.name: s for file in files for s in file.DESCRIPTOR.services_by_name.values()}


SERVICES = _services()


@dataclass(frozen=True)
class Method:
    """One RPC."""

    descriptor: MethodDescriptor

    @classmethod
    def named(cls, name: str) -> Method:
        """Return ``Service.Method`` of the protocol."""
        service, _, method = name.partition(".")
        found = SERVICES.get(service)
        if found is None or method not in found.methods_by_name:
            raise ScriptError(f"there is no RPC {name}")
        return cls(found.methods_by_name[method])

    @property
    def streams(self) -> bool:
        """Whether it answers with several messages."""
        return bool(self.descriptor.server_streaming)

    @property
    def path(self) -> str:
        """The path of the call in HTTP/2."""
        service = self.descriptor.containing_service
        return f"/{service.full_name}/{self.descriptor.name}"

    def request(self, value: Json) -> bytes:
        """Return a request, of JSON or ``{"raw": base64}``."""
        return encode(self.descriptor.input_type, value)

    def response(self, data: bytes) -> Json:
        """Return a response as JSON."""
        return decode(self.descriptor.output_type, data)


def encode(descriptor: Any, value: Json) -> bytes:
    """Return a message's bytes. ``{"raw": base64}`` stands for bytes that need not be a message."""
    if isinstance(value, dict) and set(value) == {"raw"}:
        return base64.b64decode(value["raw"])
    message = GetMessageClass(descriptor)()
    _set(message, value)
    return message.SerializeToString()


def decode(descriptor: Any, data: bytes) -> Json:
    """Return a message as JSON: proto's mapping, with the field names of the ``.proto`` files."""
    message = GetMessageClass(descriptor)()
    message.ParseFromString(data)
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _set(message: Message, value: Json) -> None:
    """Set fields from JSON. Durations may be objects, so that ones out of range can be sent."""
    if not isinstance(value, dict):
        raise ScriptError(f"{message.DESCRIPTOR.full_name} must be an object, not {value!r}")
    for name, item in value.items():
        if name == "$unknown":
            # Of a newer version: bytes of fields that this one does not know.
            message.MergeFromString(base64.b64decode(item))
            continue
        field = message.DESCRIPTOR.fields_by_name.get(name)
        if field is None:
            raise ScriptError(f"{message.DESCRIPTOR.full_name} has no field {name}")
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(message, name).update(item)
        elif field.is_repeated:
            _set_list(message, field, item)
        elif field.message_type is not None:
            inner = getattr(message, name)
            inner.SetInParent()
            _set_message(inner, item)
        else:
            setattr(message, name, _scalar(field, item))


def _set_list(
    message: Message,
    field: Any,  # of two classes
    items: Iterable[Json],
) -> None:
    target = getattr(message, field.name)
    for item in items:
        if field.message_type is not None:
            _set_message(target.add(), item)
        else:
            target.append(_scalar(field, item))


def _set_message(message: Message, value: Json) -> None:
    if message.DESCRIPTOR.full_name in _TEXT and isinstance(value, str):
        json_format.Parse(f'"{value}"', message)
    else:
        _set(message, value)


def _scalar(field: Any, value: Json) -> Any:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64decode(value)
    if field.enum_type is not None and isinstance(value, str):
        return field.enum_type.values_by_name[value].number
    if field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64):
        return int(value)
    return value


def status_of(code: grpc.StatusCode, message: str, metadata: Iterable[Any]) -> Json:
    """Return how a call ended, as scripts see it. See README.md, "Statuses"."""
    seen: dict[str, Json] = {"code": code.name, "message": message, "details": []}
    for key, value in metadata:
        if key != "grpc-status-details-bin":
            continue
        try:
            status = status_pb2.Status.FromString(value)
        except DecodeError:
            seen["details"].append("undecodable")
            continue
        for packed in status.details:
            for kind in _DETAILS:
                detail = kind()
                if packed.Is(kind.DESCRIPTOR) and packed.Unpack(detail):
                    seen["details"].append(kind.DESCRIPTOR.name)
                    _add(seen, detail)
    return seen


def _add(seen: dict[str, Json], detail: Message) -> None:
    if isinstance(detail, error_details_pb2.ErrorInfo):
        seen |= {"reason": detail.reason, "domain": detail.domain}
        seen["metadata"] = dict(detail.metadata)
    elif isinstance(detail, error_details_pb2.RetryInfo):
        delay = detail.retry_delay
        seen["retry_after"] = delay.seconds + delay.nanos / 1e9
    elif isinstance(detail, error_details_pb2.BadRequest):
        seen["fields"] = [violation.field for violation in detail.field_violations]
    elif isinstance(detail, error_details_pb2.ResourceInfo):
        seen["resource"] = {"type": detail.resource_type, "name": detail.resource_name}


def status_details(status: Json) -> bytes:
    """Return the ``grpc-status-details-bin`` of a status that a script has the suite answer with."""
    code = grpc.StatusCode[status["code"]].value[0]
    message = status_pb2.Status(code=code, message=status.get("message", ""))
    details: list[Message] = []
    if "reason" in status:
        info = error_details_pb2.ErrorInfo(
            reason=status["reason"], domain=status.get("domain", "seatkeeper")
        )
        details.append(info)
    if "retry_after" in status:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(status["retry_after"] * 1e9))
        details.append(retry)
    if "resource" in status:
        named = status["resource"]
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type=named["type"], resource_name=named["name"]
            )
        )
    for detail in details:
        message.details.add().Pack(detail)
    return bytes(message.SerializeToString())
