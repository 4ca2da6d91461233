"""The gRPC services of a node: thin adapters to its core."""

from __future__ import annotations

from collections.abc import Callable

import grpc.aio

from seatkeeper.server.engines.registry import Engines
from seatkeeper.server.pool.admin import Pools
from seatkeeper.server.pool.batches import PoolBatches
from seatkeeper.server.report.service_report import ServiceReporter
from seatkeeper.server.service.borrow_service import BorrowService
from seatkeeper.server.service.cluster_service import ClusterService
from seatkeeper.server.service.engine_service import EngineService
from seatkeeper.server.service.pool_service import PoolService
from seatkeeper.server.service.seat_api import Core
from seatkeeper.server.service.seat_service import ApiLimits, SeatService
from seatkeeper.server.sessions.holders import Holders
from seatkeeper.server.store import Store
from seatkeeper.server.store.keys import Keys
from seatkeeper.server.tokens.verification_keys import VerificationKeys
from seatkeeper.v1 import (
    borrow_service_pb2,
    cluster_service_pb2,
    engine_service_pb2,
    pool_service_pb2,
    seat_service_pb2,
)
from seatkeeper.v1.borrow_service_pb2_grpc import add_BorrowServiceServicer_to_server
from seatkeeper.v1.cluster_service_pb2_grpc import add_ClusterServiceServicer_to_server
from seatkeeper.v1.engine_service_pb2_grpc import add_EngineServiceServicer_to_server
from seatkeeper.v1.pool_service_pb2_grpc import add_PoolServiceServicer_to_server
from seatkeeper.v1.seat_service_pb2_grpc import add_SeatServiceServicer_to_server

SERVICES = (
    seat_service_pb2.DESCRIPTOR.services_by_name["SeatService"].full_name,
    pool_service_pb2.DESCRIPTOR.services_by_name["PoolService"].full_name,
    cluster_service_pb2.DESCRIPTOR.services_by_name["ClusterService"].full_name,
    engine_service_pb2.DESCRIPTOR.services_by_name["EngineService"].full_name,
    borrow_service_pb2.DESCRIPTOR.services_by_name["BorrowService"].full_name,
)
"""Full names of the services that every node has."""


def add_services(
    server: grpc.aio.Server,
    core: Core,
    store: Store,
    keys: Keys,
    reporter: ServiceReporter,
    drain: Callable[[], None],
    limits: ApiLimits | None = None,
) -> SeatService:
    """Add every service of a node for clients; return the one that has streams to close.

    ``drain`` is called when somebody asks the node to stop.
    """
    seat_service = SeatService(core, reporter.node.tally, limits or ApiLimits())
    verification = VerificationKeys(store, keys)
    holders = Holders(store, core.sessions, core.clock)
    add_SeatServiceServicer_to_server(seat_service, server)
    add_PoolServiceServicer_to_server(
        PoolService(
            Pools(store, keys, core.clock),
            PoolBatches(store, keys, core.clock),
            core.seats,
            holders,
        ),
        server,
    )
    add_ClusterServiceServicer_to_server(
        ClusterService(store, keys, verification, reporter, drain), server
    )
    pools = Pools(store, keys, core.clock)
    add_BorrowServiceServicer_to_server(BorrowService(core, pools, verification), server)
    add_EngineServiceServicer_to_server(
        EngineService(core, Engines(store, keys), verification), server
    )
    return seat_service
