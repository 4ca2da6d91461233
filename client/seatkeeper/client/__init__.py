"""What users import.

`AsyncSeatClient` for programs with an event loop, `SeatClient` for those without; what they return,
what they raise (`SeatError` and its children), how they are configured, and `verify_token` for
recipients of tokens.
"""

from seatkeeper.client.aio import AsyncSeatClient
from seatkeeper.client.builds.agents import AsyncAgent
from seatkeeper.client.builds.builds import BuiltEngine, PulledEngine
from seatkeeper.client.builds.sample_files import samples_of
from seatkeeper.client.builds.sample_functions import packed_samples
from seatkeeper.client.config.values import (
    BackoffConfig,
    BreakerConfig,
    ClientConfig,
    RenewalConfig,
    TlsConfig,
)
from seatkeeper.client.session.grants import AsyncGrant, AsyncSeat
from seatkeeper.client.session.holding import HoldingState
from seatkeeper.client.session.requests import EstimateBasis, QueuePosition
from seatkeeper.client.signals import exit_on_signals
from seatkeeper.client.sync import Grant, Seat, SeatClient
from seatkeeper.core.errors import (
    AgentFull,
    AgentUnavailable,
    AlreadyExists,
    BuildFailed,
    BuildTimedOut,
    Changed,
    ClientClosed,
    CompilerCrashed,
    DeadlineUnreachable,
    EngineDamaged,
    EngineNotFound,
    EngineNotStored,
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
    ServiceTooOld,
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
    WorkEnded,
)
from seatkeeper.core.ids import new_id
from seatkeeper.core.tokens import TokenClaims, verify_token

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
    "DeadlineUnreachable",
    "EngineDamaged",
    "EngineNotFound",
    "EngineNotStored",
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
    "PulledEngine",
    "QueuePosition",
    "RenewalConfig",
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
    "TokenForOtherPool",
    "TokenForged",
    "TokenInvalid",
    "TokenKeyUnknown",
    "TokenMalformed",
    "TooManySeats",
    "UsageError",
    "WorkEnded",
    "exit_on_signals",
    "new_id",
    "packed_samples",
    "samples_of",
    "verify_token",
]
