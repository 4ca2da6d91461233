"""What users import.

`AsyncSeatClient` for programs with an event loop, `SeatClient` for those without; what they return,
what they raise (`SeatError` and its children), how they are configured, and `verify_token` for
recipients of tokens. What is about builds is loaded when it is first used.
"""

import importlib
import typing

from seatkeeper.client.admin.lots import LotChange
from seatkeeper.client.admin.reservations import ReservationChange
from seatkeeper.client.aio import AsyncSeatClient
from seatkeeper.client.alternatives import AsyncOneOf
from seatkeeper.client.config.values import (
    BackoffConfig,
    BreakerConfig,
    ClientConfig,
    RenewalConfig,
    TlsConfig,
)
from seatkeeper.client.gangs import AsyncGang
from seatkeeper.client.session.grants import AsyncGrant, AsyncSeat
from seatkeeper.client.session.holding import HoldingState
from seatkeeper.client.session.requests import EstimateBasis, QueuePosition
from seatkeeper.client.signals import exit_on_signals
from seatkeeper.client.sync import Gang, Grant, OneOf, Seat, SeatClient
from seatkeeper.core.errors import (
    AgentFull,
    AgentUnavailable,
    AlreadyExists,
    BorrowRefused,
    BuildFailed,
    BuildTimedOut,
    Changed,
    ClientClosed,
    ClockSetBack,
    CompilerCrashed,
    DeadlineUnreachable,
    EngineDamaged,
    EngineNotFound,
    EngineNotStored,
    ForkedProcess,
    GrantedElsewhere,
    HelperLost,
    InUse,
    InvalidArgument,
    ModelRejected,
    NoSeatFree,
    NotAllowed,
    NotTakenOver,
    NotYours,
    OtherLoop,
    Overloaded,
    PoolDrained,
    PoolNotFound,
    PoolsChanged,
    RequestNotFound,
    RequestRemoved,
    SeatError,
    SeatLost,
    ServiceTooOld,
    ServiceUnavailable,
    SessionLost,
    TokenExpired,
    TokenForged,
    TokenForOtherMachine,
    TokenForOtherPool,
    TokenInvalid,
    TokenKeyUnknown,
    TokenMalformed,
    TooManySeats,
    TooManyTickets,
    UnknownCostClass,
    UsageError,
    WorkEnded,
)
from seatkeeper.core.ids import new_id
from seatkeeper.core.tokens import TokenClaims, verify_token

if typing.TYPE_CHECKING:
    from seatkeeper.client.builds.agents import AsyncAgent
    from seatkeeper.client.builds.builds import BuiltEngine, PulledEngine
    from seatkeeper.client.builds.sample_files import samples_of
    from seatkeeper.client.builds.sample_functions import packed_samples

_LATER = {
    "AsyncAgent": "agents",
    "BuiltEngine": "builds",
    "PulledEngine": "builds",
    "packed_samples": "sample_functions",
    "samples_of": "sample_files",
}
"""Modules of `seatkeeper.client.builds`, by what they have."""

__all__ = [
    "AgentFull",
    "AgentUnavailable",
    "AlreadyExists",
    "AsyncAgent",
    "AsyncGang",
    "AsyncGrant",
    "AsyncOneOf",
    "AsyncSeat",
    "AsyncSeatClient",
    "BackoffConfig",
    "BorrowRefused",
    "BreakerConfig",
    "BuildFailed",
    "BuildTimedOut",
    "BuiltEngine",
    "Changed",
    "ClientClosed",
    "ClientConfig",
    "ClockSetBack",
    "CompilerCrashed",
    "DeadlineUnreachable",
    "EngineDamaged",
    "EngineNotFound",
    "EngineNotStored",
    "EstimateBasis",
    "ForkedProcess",
    "Gang",
    "Grant",
    "GrantedElsewhere",
    "HelperLost",
    "HoldingState",
    "InUse",
    "InvalidArgument",
    "LotChange",
    "ModelRejected",
    "NoSeatFree",
    "NotAllowed",
    "NotTakenOver",
    "NotYours",
    "OneOf",
    "OtherLoop",
    "Overloaded",
    "PoolDrained",
    "PoolNotFound",
    "PoolsChanged",
    "PulledEngine",
    "QueuePosition",
    "RenewalConfig",
    "RequestNotFound",
    "RequestRemoved",
    "ReservationChange",
    "Seat",
    "SeatClient",
    "SeatError",
    "SeatLost",
    "ServiceTooOld",
    "ServiceUnavailable",
    "SessionLost",
    "TlsConfig",
    "TokenClaims",
    "TokenExpired",
    "TokenForOtherMachine",
    "TokenForOtherPool",
    "TokenForged",
    "TokenInvalid",
    "TokenKeyUnknown",
    "TokenMalformed",
    "TooManySeats",
    "TooManyTickets",
    "UnknownCostClass",
    "UsageError",
    "WorkEnded",
    "exit_on_signals",
    "new_id",
    "packed_samples",
    "samples_of",
    "verify_token",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> typing.Any:  # noqa: ANN401 - PEP 562: whatever stands in ``_LATER``
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"seatkeeper.client.builds.{_LATER[name]}"), name)
