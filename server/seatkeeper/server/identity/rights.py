"""What each call needs: one table of every call of every service.

A test compares it with the contract, so a new call cannot be forgotten; and the gate refuses a
call that is not here.
"""

from __future__ import annotations

from enum import Enum

_PACKAGE = "seatkeeper.v1"


class Right(Enum):
    """What a call needs of its caller."""

    NONE = "none"
    """Nothing but a connection: it reads, or is about a session, whose secret it needs."""
    AGENT = "agents"
    """A build agent; the value is the setting that names them."""
    ADMINISTRATOR = "administrators"
    """An administrator: it changes what is not the caller's own. The value is the setting."""
    NODE = "node"
    """Another node. The service itself asks for the secret that only nodes can read."""


_SERVICES = {
    f"{_PACKAGE}.SeatService": {
        "Session": Right.NONE,
        "OpenSession": Right.NONE,
        "Acquire": Right.NONE,
        "Renew": Right.NONE,
        "Release": Right.NONE,
        "CloseSession": Right.NONE,
    },
    # The first needs a session's secret, the second a machine's signature.
    f"{_PACKAGE}.BorrowService": {"BorrowGrant": Right.NONE, "ReturnGrant": Right.NONE},
    f"{_PACKAGE}.PoolService": {
        "CreatePool": Right.ADMINISTRATOR,
        "UpdatePool": Right.ADMINISTRATOR,
        "DeletePool": Right.ADMINISTRATOR,
        "ApplyPools": Right.ADMINISTRATOR,
        "DrainPool": Right.ADMINISTRATOR,
        "OpenPool": Right.ADMINISTRATOR,
        "GetPool": Right.NONE,
        "ListPools": Right.NONE,
        "WatchPool": Right.NONE,
        "ExplainTicket": Right.NONE,
        "RemoveTicket": Right.ADMINISTRATOR,
        "MoveTicket": Right.ADMINISTRATOR,
        "ReleaseGrant": Right.ADMINISTRATOR,
        "RevokeGrant": Right.ADMINISTRATOR,
        "WithdrawRevoke": Right.ADMINISTRATOR,
        "ExtendGrant": Right.ADMINISTRATOR,
    },
    f"{_PACKAGE}.ClusterService": {
        "ListNodes": Right.NONE,
        "GetVersion": Right.NONE,
        "GetReport": Right.NONE,
        "GetJwks": Right.NONE,
        "DrainNode": Right.ADMINISTRATOR,
    },
    f"{_PACKAGE}.EngineService": {
        "RegisterAgent": Right.AGENT,
        "ClaimGrant": Right.AGENT,
        "YieldGrant": Right.AGENT,
        "PublishEngine": Right.AGENT,
        "DrainAgent": Right.ADMINISTRATOR,
        "ListAgents": Right.NONE,
        "GetEngine": Right.NONE,
        "ListEngines": Right.NONE,
    },
    # Served by agents, which ask for a token.
    f"{_PACKAGE}.BuildService": {
        "Build": Right.NONE,
        "FetchEngine": Right.NONE,
        "GetCapabilities": Right.NONE,
    },
    f"{_PACKAGE}.PeerService": {
        "Decide": Right.NODE,
        "Ping": Right.NODE,
        "Report": Right.NODE,
    },
    "grpc.health.v1.Health": {"Check": Right.NONE, "Watch": Right.NONE, "List": Right.NONE},
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": Right.NONE},
}

RIGHTS = {
    f"/{service}/{method}": right
    for service, methods in _SERVICES.items()
    for method, right in methods.items()
}
"""By a call's full name, such as ``/seatkeeper.v1.PoolService/CreatePool``."""
