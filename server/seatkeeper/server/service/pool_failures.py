"""What a call about a pool, or about one request of it, fails with."""

from __future__ import annotations

import grpc

from seatkeeper.core.serving.failure import Failure, error_info, resource_info
from seatkeeper.server.domain import Refusal
from seatkeeper.server.pool.admin import (
    PolicyBroken,
    PoolChanged,
    PoolError,
    PoolExists,
    PoolInUse,
    PoolNotFound,
)
from seatkeeper.server.pool.batches import BatchTooLarge, PoolsChanged
from seatkeeper.server.pool.requests import BorrowRefused, RequestDiffers, RequestNotFound
from seatkeeper.server.service.failures import pool_not_found
from seatkeeper.server.wire.denials import denial_info

NAMES_BYTES_MAX = 1_000
"""Most bytes of names in the details of a refusal, which travel in trailing metadata."""
_CODES = {
    PoolExists: grpc.StatusCode.ALREADY_EXISTS,
    PoolChanged: grpc.StatusCode.ABORTED,
    PolicyBroken: grpc.StatusCode.INVALID_ARGUMENT,
    PoolInUse: grpc.StatusCode.FAILED_PRECONDITION,
    RequestDiffers: grpc.StatusCode.FAILED_PRECONDITION,
    BorrowRefused: grpc.StatusCode.FAILED_PRECONDITION,
    PoolsChanged: grpc.StatusCode.ABORTED,
    BatchTooLarge: grpc.StatusCode.INVALID_ARGUMENT,
}


def failure(name: str, error: PoolError, grant_id: str = "") -> Failure:
    """Return the failure of a call about a pool, for an error that it met."""
    if isinstance(error, RequestNotFound):
        resource = resource_info("request", grant_id, str(error))
        return Failure(grpc.StatusCode.NOT_FOUND, str(error), resource)
    if isinstance(error, BorrowRefused):
        info = denial_info(Refusal.BORROW_REFUSED)
        return Failure(_CODES[BorrowRefused], str(error), info)
    if isinstance(error, PoolNotFound):
        return pool_not_found(name, str(error))
    if isinstance(error, PoolsChanged):
        names = ",".join(error.names)[:NAMES_BYTES_MAX]
        if len(names) == NAMES_BYTES_MAX:
            names = names.rpartition(",")[0]
        info = error_info("POOLS_CHANGED", pools=names, count=str(len(error.names)))
        return Failure(_CODES[PoolsChanged], str(error), info)
    return Failure(_CODES[type(error)], str(error))
