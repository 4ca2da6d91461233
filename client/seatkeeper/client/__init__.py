"""What users import."""

from seatkeeper.client.aio import AsyncSeatClient
from seatkeeper.client.config import ClientConfig, TlsConfig
from seatkeeper.client.grants import AsyncGrant
from seatkeeper.client.holding import HoldingState
from seatkeeper.client.tokens import TokenClaims, verify_token

__all__ = [
    "AsyncGrant",
    "AsyncSeatClient",
    "ClientConfig",
    "HoldingState",
    "TlsConfig",
    "TokenClaims",
    "verify_token",
]
