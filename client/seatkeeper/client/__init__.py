"""What users import.

`AsyncSeatClient` for programs with an event loop, `SeatClient` for those without; what they return,
what they raise (`SeatError` and its children), how they are configured, and `verify_token` for
whoever is shown a token.
"""

from seatkeeper.client.agents import AsyncAgent
from seatkeeper.client.aio import AsyncSeatClient
from seatkeeper.client.builds import BuiltEngine
from seatkeeper.client.config import (
    BackoffConfig,
    BreakerConfig,
    ClientConfig,
    RenewalConfig,
    TlsConfig,
)
from seatkeeper.client.errors import (
    AgentFull,
    AgentUnavailable,
    AlreadyExists,
    BuildFailed,
    BuildTimedOut,
    Changed,
    ClientClosed,
    CompilerCrashed,
    EngineDamaged,
    EngineNotFound,
    ForkedProcess,
    HelperLost,
    InUse,
    InvalidArgument,
    ModelRejected,
    NoSeatFree,
    NotYours,
    OtherLoop,
    Overloaded,
    PoolNotFound,
    SeatError,
    SeatLost,
    ServiceUnavailable,
    SessionLost,
    TokenExpired,
    TokenForged,
    TokenForOtherPool,
    TokenInvalid,
    TokenKeyUnknown,
    TokenMalformed,
    TooManySeats,
    UsageError,
)
from seatkeeper.client.grants import AsyncGrant, AsyncSeat
from seatkeeper.client.holding import HoldingState
from seatkeeper.client.ids import new_id
from seatkeeper.client.session.seat_request import EstimateBasis, QueuePosition
from seatkeeper.client.signals import exit_on_signals
from seatkeeper.client.sync import Grant, Seat, SeatClient
from seatkeeper.client.tokens import TokenClaims, verify_token

__all__ = [
    "AgentFull",
    "AgentUnavailable",
    "AlreadyExists",
    "AsyncAgent",
    "AsyncGrant",
    "AsyncSeat",
    "AsyncSeatClient",
    "BackoffConfig",
    "BreakerConfig",
    "BuildFailed",
    "BuildTimedOut",
    "BuiltEngine",
    "Changed",
    "ClientClosed",
    "ClientConfig",
    "CompilerCrashed",
    "EngineDamaged",
    "EngineNotFound",
    "EstimateBasis",
    "ForkedProcess",
    "Grant",
    "HelperLost",
    "HoldingState",
    "InUse",
    "InvalidArgument",
    "ModelRejected",
    "NoSeatFree",
    "NotYours",
    "OtherLoop",
    "Overloaded",
    "PoolNotFound",
    "QueuePosition",
    "RenewalConfig",
    "Seat",
    "SeatClient",
    "SeatError",
    "SeatLost",
    "ServiceUnavailable",
    "SessionLost",
    "TlsConfig",
    "TokenClaims",
    "TokenExpired",
    "TokenForOtherPool",
    "TokenForged",
    "TokenInvalid",
    "TokenKeyUnknown",
    "TokenMalformed",
    "TooManySeats",
    "UsageError",
    "exit_on_signals",
    "new_id",
    "verify_token",
]
