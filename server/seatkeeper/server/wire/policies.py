"""Between a pool's policy and its message, in requests and in the store."""

from __future__ import annotations

from seatkeeper.server.domain import NO_POLICY, PoolPolicy, ProjectShare
from seatkeeper.v1 import pool_service_pb2


def encode_policy(policy: PoolPolicy) -> pool_service_pb2.PoolPolicy:
    """Return the message for a policy."""
    message = pool_service_pb2.PoolPolicy(
        projects=[
            pool_service_pb2.ProjectShare(
                project=share.project,
                guaranteed=share.guaranteed,
                limit=share.limit,
                weight=share.weight,
                parent=share.parent,
            )
            for share in policy.projects
        ]
    )
    if policy.usage_half_life is not None:
        message.usage_half_life.FromTimedelta(policy.usage_half_life)
    return message


def decode_policy(message: pool_service_pb2.PoolPolicy) -> PoolPolicy:
    """Return the policy in a message."""
    if not message.projects:
        return NO_POLICY
    return PoolPolicy(
        tuple(
            ProjectShare(
                project=share.project,
                guaranteed=share.guaranteed,
                limit=share.limit if share.HasField("limit") else None,
                weight=share.weight or 1,
                parent=share.parent,
            )
            for share in message.projects
        ),
        message.usage_half_life.ToTimedelta() if message.HasField("usage_half_life") else None,
    )
