"""How a gRPC call of ours fails: a status, a sentence, and details that programs can read."""

from __future__ import annotations

from contextvars import ContextVar
from datetime import timedelta
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "seatkeeper"

MESSAGE_MAX = 1000
"""Most characters of a failure's message."""

Context = grpc.aio.ServicerContext[Any, Any]


class Failure(Exception):
    """A failure of a call, as its client receives it."""

    def __init__(self, code: grpc.StatusCode, message: str, *details: Message) -> None:
        super().__init__(message)
        self.code = code
        # It travels in trailing metadata, which gRPC drops whole above 8 KiB, and its code with it.
        self.message = message[:MESSAGE_MAX]
        self.details = details
        self.is_counted = False
        """Whether it is a denial that was counted where it was decided."""

    async def notify(self, context: Context) -> NoReturn:
        """End the call."""
        reported.set(self)
        number: int = self.code.value[0]
        status = status_pb2.Status(code=number, message=self.message)
        details = self.details
        if not any(isinstance(detail, error_details_pb2.ErrorInfo) for detail in details):
            # So that whatever comes without is known to be the transport's, and not ours.
            details = (*details, error_info(f"STATUS_{self.code.name}"))
        for detail in details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        metadata = (("grpc-status-details-bin", status.SerializeToString()),)
        await context.abort(self.code, self.message, metadata)


reported: ContextVar[Failure | None] = ContextVar("reported", default=None)
"""The failure that the client of the present call receives."""


def not_found(kind: str, name: str, message: str) -> Failure:
    """Return the failure of a call that named something that does not exist."""
    info = error_info(f"{kind.upper()}_NOT_FOUND")
    resource = resource_info(kind, name, message)
    return Failure(grpc.StatusCode.NOT_FOUND, message, info, resource)


def error_info(reason: str, /, **metadata: str) -> error_details_pb2.ErrorInfo:
    """Return the detail that names the cause for programs."""
    return error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)


def bad_request(field: str, description: str) -> error_details_pb2.BadRequest:
    """Return the detail that names a malformed field."""
    detail = error_details_pb2.BadRequest()
    detail.field_violations.add(field=field, description=description)
    return detail


def resource_info(kind: str, name: str, description: str) -> error_details_pb2.ResourceInfo:
    """Return the detail that names what does not exist."""
    return error_details_pb2.ResourceInfo(
        resource_type=kind, resource_name=name, description=description
    )


def retry_info(after: timedelta) -> error_details_pb2.RetryInfo:
    """Return the detail that says when to try again."""
    detail = error_details_pb2.RetryInfo()
    detail.retry_delay.FromTimedelta(after)
    return detail
