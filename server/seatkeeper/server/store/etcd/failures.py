"""What an error of etcd or grpc says about the request: whether it ran.

The question is decided once, here, because answering it wrongly is how clients lose writes or
make them twice. Everything not known to be harmless is ``UNKNOWN``.
"""

from __future__ import annotations

from enum import Enum, auto

import grpc
import grpc.aio

from seatkeeper.server.store.errors import (
    LeaseExists,
    LeaseNotFound,
    OutcomeUnknown,
    StoreError,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)

Code = grpc.StatusCode


class Compacted(StoreRefused):
    """The revision to read at is gone: read at a newer one."""


class KeyNotFound(StoreRefused):
    """A key that was to be written over is not there."""


class Failure(Enum):
    """What is known after an error."""

    TOKEN_REFUSED = auto()
    """It did not run: the token has ended. With a new one it may be sent again."""
    NOT_RUN = auto()
    """It did not run: this member cannot serve now. Another may."""
    UNKNOWN = auto()
    """It may have run, or may run yet."""
    FULL = auto()
    """The database is full. See ``kv.py``: the transaction that crosses the quota did run."""
    COMPACTED = auto()
    """It did not run: the revision it names is gone."""
    LEASE_NOT_FOUND = auto()
    """It did not run: the lease it names has ended."""
    KEY_NOT_FOUND = auto()
    """It did not run: a key that it writes over is not there."""
    LEASE_EXISTS = auto()
    """It did not run: there is a lease of this id already."""
    REFUSED = auto()
    """It did not run, and will not."""


_BY_DETAILS = {
    "etcdserver: invalid auth token": Failure.TOKEN_REFUSED,
    "etcdserver: revision of auth store is old": Failure.TOKEN_REFUSED,
    # No token came with it: there were no users when we logged in, and now there are. Members look
    # at the user when they apply a request, and do not apply one that was not made.
    "etcdserver: user name is empty": Failure.TOKEN_REFUSED,
    # The first four are refusals by interceptors, before a proposal is made. Other errors that
    # sound alike, such as "leader changed" and "server stopped", come to waiters for a proposal
    # that may yet be applied.
    "etcdserver: no leader": Failure.NOT_RUN,
    "etcdserver: not capable": Failure.NOT_RUN,
    "etcdserver: rpc not supported for learner": Failure.NOT_RUN,
    "etcdserver: too many requests": Failure.NOT_RUN,
    "etcdserver: not leader": Failure.NOT_RUN,
    "etcdserver: mvcc: database space exceeded": Failure.FULL,
    "etcdserver: mvcc: required revision has been compacted": Failure.COMPACTED,
    "etcdserver: requested lease not found": Failure.LEASE_NOT_FOUND,
    "etcdserver: key not found": Failure.KEY_NOT_FOUND,
    "etcdserver: lease already exists": Failure.LEASE_EXISTS,
}

_REFUSALS = frozenset(
    {
        Code.INVALID_ARGUMENT,
        Code.PERMISSION_DENIED,
        Code.FAILED_PRECONDITION,
        Code.OUT_OF_RANGE,
        Code.NOT_FOUND,
        Code.UNAUTHENTICATED,
        Code.UNIMPLEMENTED,
    }
)

_TOO_LARGE = "grpc: received message larger than max"
"""How etcd's side of grpc refuses a request over ``--max-request-bytes``."""


def classify(code: grpc.StatusCode, details: str | None) -> Failure:
    """Say what is known about a request that ended with this status."""
    failure = _BY_DETAILS.get(details or "")
    if failure is not None:
        return failure
    if code is Code.UNAUTHENTICATED:
        return Failure.TOKEN_REFUSED
    if code in _REFUSALS:
        return Failure.REFUSED
    if code is Code.RESOURCE_EXHAUSTED and (details or "").startswith(_TOO_LARGE):
        return Failure.REFUSED
    return Failure.UNKNOWN


def raised(failure: Failure, error: grpc.aio.AioRpcError, address: str) -> StoreError:
    """Return the error for a caller that changes something."""
    said = f"{address}: {error.details() or error.code().name}"
    match failure:
        case Failure.NOT_RUN:
            return StoreUnavailable(said)
        case Failure.UNKNOWN:
            return OutcomeUnknown(said)
        case Failure.FULL:
            return StoreFull(said)
        case Failure.LEASE_NOT_FOUND:
            return LeaseNotFound(said)
        case Failure.LEASE_EXISTS:
            return LeaseExists(said)
        case Failure.KEY_NOT_FOUND:
            return KeyNotFound(said)
        case Failure.COMPACTED:
            return Compacted(said)
        case Failure.TOKEN_REFUSED | Failure.REFUSED:
            return StoreRefused(said)
