"""Translate failures of a build into what its client receives."""

from __future__ import annotations

import logging
from datetime import timedelta

import grpc
from google.rpc import error_details_pb2

from seatkeeper.artifacts.errors import (
    MESSAGE_BYTES_MAX,
    BackendMissing,
    BuildCancelled,
    BuildError,
    BuildTimedOut,
    EngineError,
    EngineNotFound,
    ModelError,
    ModelTooLarge,
    PlanError,
    ResourceError,
    StoreError,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from seatkeeper.core.errors import (
    AlreadyExists,
    InUse,
    SeatError,
    SeatLost,
    ServiceUnavailable,
    SessionLost,
    TokenInvalid,
)
from seatkeeper.core.serving.failure import Failure, bad_request, error_info, retry_info
from seatkeeper.core.validate import Malformed

logger = logging.getLogger(__name__)

RETRY_AFTER = timedelta(seconds=5)
LINES_LOGGED_MAX = 20
"""Most lines of a worker's output that are logged; its bytes are bounded as well."""


def log_end_of_worker(error: BuildError, **about: str) -> None:
    """Log what came of a worker that this agent's operator may have to see to.

    A client may have left, or not report what it received; the output of a dying compiler
    is found here.
    """
    lines = error.stderr_tail.splitlines()[-LINES_LOGGED_MAX:]
    reported = {"code": error.code, "error": error.message, "stderr_tail": lines, **about}
    logger.warning("worker_failed", extra=reported)


def failure_of(error: Exception) -> Failure | None:
    """Return the failure that ``error`` means to a client; None: it is a bug of ours."""
    match error:
        case Failure():
            return error
        case BuildError():
            return _of_build(error)
        case SeatError():
            return _of_seat(error)
        case Malformed(field=field, description=description):
            detail = bad_request(field, description)
            return Failure(grpc.StatusCode.INVALID_ARGUMENT, str(error), detail)
        case _:
            return None


def _of_build(error: BuildError) -> Failure:
    message = error.explain()
    info = error_info(error.code)
    match error:
        case BuildTimedOut():
            return Failure(grpc.StatusCode.DEADLINE_EXCEEDED, message, info)
        case ModelTooLarge() | ResourceError():
            retry = [retry_info(RETRY_AFTER)] if error.retryable else []
            return Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, message, info, *retry)
        case PlanError():
            detail = bad_request("options", error.message)
            return Failure(grpc.StatusCode.INVALID_ARGUMENT, message, info, detail)
        case ModelError():
            detail = bad_request("model", error.message)
            return Failure(grpc.StatusCode.INVALID_ARGUMENT, message, info, detail)
        case BuildCancelled():
            return Failure(grpc.StatusCode.ABORTED, message, info)
        case BackendMissing():
            return Failure(grpc.StatusCode.FAILED_PRECONDITION, message, info)
        case StoreUnavailable() | StoreRefused():
            return Failure(grpc.StatusCode.UNAVAILABLE, message, info, retry_info(RETRY_AFTER))
        case StoreFull():
            return Failure(
                grpc.StatusCode.RESOURCE_EXHAUSTED, message, info, retry_info(RETRY_AFTER)
            )
        case StoreError():
            return Failure(grpc.StatusCode.FAILED_PRECONDITION, message, info)
        case EngineNotFound():
            return Failure(grpc.StatusCode.NOT_FOUND, message, info)
        case EngineError():
            return Failure(grpc.StatusCode.DATA_LOSS, message, info)
        case _:
            stderr_tail = error_details_pb2.DebugInfo(detail=error.stderr_tail)
            return Failure(grpc.StatusCode.INTERNAL, message, info, stderr_tail)


def _of_seat(error: SeatError) -> Failure:
    # What a token says of itself is quoted in its refusal, and may be long.
    said = str(error).encode(errors="replace")[:MESSAGE_BYTES_MAX].decode(errors="ignore")
    match error:
        case TokenInvalid():
            return Failure(grpc.StatusCode.UNAUTHENTICATED, said)
        case SeatLost():
            message = f"{said}; the build is stopped and nothing is published"
            return Failure(grpc.StatusCode.ABORTED, message)
        case InUse():
            return Failure(grpc.StatusCode.FAILED_PRECONDITION, said, error_info("CLAIMED"))
        case ServiceUnavailable():
            message = f"the agent cannot reach the licence service: {said}"
            return Failure(grpc.StatusCode.UNAVAILABLE, message, retry_info(RETRY_AFTER))
        case SessionLost() | AlreadyExists():
            message = f"the agent is just now not known to the licence service: {said}"
            return Failure(grpc.StatusCode.UNAVAILABLE, message, retry_info(RETRY_AFTER))
        case _:
            return Failure(grpc.StatusCode.INTERNAL, said)
