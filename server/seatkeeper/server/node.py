"""A node: the place where its parts are put together, started, and stopped."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from importlib.metadata import version as version_of
from pathlib import Path
from typing import ClassVar

import grpc
import grpc.aio

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.internal.v1.peer_service_pb2_grpc import add_PeerServiceServicer_to_server
from seatkeeper.server.certificates import Certificates
from seatkeeper.server.config import NodeConfig
from seatkeeper.server.deployment.alarm import StoreAlarm
from seatkeeper.server.deployment.checked_store import CheckedStore
from seatkeeper.server.domain import Limits
from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.events import log as events
from seatkeeper.server.identity import Authorizer, Gate, parse_names
from seatkeeper.server.node_context import NodeContext
from seatkeeper.server.node_server import NodeServer
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.plan import Policy
from seatkeeper.server.pool.catalogue import PoolCatalogue
from seatkeeper.server.pool.context import LISTING_STEP, LoopConfig
from seatkeeper.server.pool.router import PoolRouter
from seatkeeper.server.report.node_report import NodeReporter
from seatkeeper.server.report.service_report import ServiceReporter
from seatkeeper.server.routing.membership import Membership
from seatkeeper.server.routing.peers import CHANNEL_OPTIONS, Peers
from seatkeeper.server.routing.routing import Routing
from seatkeeper.server.routing.secret import cluster_secret
from seatkeeper.server.service import SERVICES, add_services
from seatkeeper.server.service.peer_service import PeerService
from seatkeeper.server.service.seat_api import Core
from seatkeeper.server.service.seat_service import ApiLimits, SeatService
from seatkeeper.server.sessions.leased_record import LeasedRecord
from seatkeeper.server.sessions.sessions import Sessions
from seatkeeper.server.start import (
    StartError,
    answered,
    check_alone,
    open_deployment,
    open_store,
)
from seatkeeper.server.store import Store, StoreError
from seatkeeper.server.store.keys import Keys
from seatkeeper.server.system_clock import SystemClock
from seatkeeper.server.telemetry.call_log import CallLog
from seatkeeper.server.telemetry.tally import Tally
from seatkeeper.server.tokens.signer import TOKEN_LIFE_MAX, TokenSigner
from seatkeeper.server.transport import GrpcTransport, Transport
from seatkeeper.server.watched import NodeWatched

__all__ = ["Node", "StartError", "open_store"]

logger = logging.getLogger(__name__)

NODE_TTL = timedelta(seconds=10)
SIGNING_KEY_TTL = TOKEN_LIFE_MAX + timedelta(minutes=10)
"""How long a key stays published after its node has died: longer than any token lives."""


class Node:
    """A running node. ``await Node.start(config)``, then ``await node.stop()``."""

    reloads: ClassVar[frozenset[str]] = frozenset(
        {"administrators", "agents"}
        | {"tls_cert_file", "tls_key_file", "tls_client_ca_file", "tls_peer_ca_file"}
    )
    """The settings that ``reload`` applies."""

    def __init__(
        self,
        config: NodeConfig,
        context: NodeContext,
        server: NodeServer,
        core: Core,
        seat_service: SeatService,
        routing: Routing,
        credentials: _Credentials,
        records: list[LeasedRecord],
    ) -> None:
        """Be what `start` has put together and started."""
        self._config = config
        self._context = context
        self._server = server
        self._core = core
        self._seat_service = seat_service
        self._routing = routing
        self._credentials = credentials
        self._records = records
        self._draining = False

    @property
    def node_id(self) -> str:
        """Its id, which no other living node has."""
        return self._context.node_id

    @property
    def address(self) -> str:
        """Where it listens: ``host:port``."""
        return self._server.address

    @property
    def drained(self) -> asyncio.Event:
        """Set when a caller has asked this node to stop: then call ``stop``."""
        return self._server.drained

    @classmethod
    async def start(
        cls,
        config: NodeConfig,
        *,
        store: Store | None = None,
        clock: Clock | None = None,
        tally: Tally | None = None,
        transport: Transport | None = None,
        policy: Policy = BY_POOL,
        listing_step: int = LISTING_STEP,
    ) -> Node:
        """Start a node; returns when it serves. ``policy`` is the order of service of its pools.

        ``listing_step``: see ``LoopConfig``.

        Raises ``StartError`` when the store does not answer in time, and ``ListenError`` when the
        address is in use. ``store`` is closed with the node.
        """
        context = NodeContext(
            node_id=config.node_id,
            store=store or open_store(config),
            keys=Keys(config.prefix),
            clock=clock or SystemClock(),
            tally=tally or Tally(),
            transport=transport or GrpcTransport(),
            policy=policy,
            listing_step=listing_step,
        )
        try:
            return await _start(config, context)
        except BaseException:
            await context.store.close()
            raise

    async def why_not_ready(self) -> str:
        """Return why this node should get no new work; empty: it is ready.

        It is not while it drains, and while etcd does not answer a read that needs a majority.
        """
        if self._draining or self.drained.is_set():
            return "draining"
        if not self._routing.membership.is_current:
            return "the watches of the store do not work"
        try:
            await self._context.store.get(self._context.keys.node(self.node_id))
        except StoreError as error:
            return f"the store does not answer: {error}"
        return ""

    async def stop(self) -> None:
        """Stop: not serving, streams asked to move, calls in progress completed, then exit.

        Sessions, grants and tickets stay in the store, for the other nodes to serve.
        """
        self._draining = True
        began = time.monotonic()
        grace = timedelta(seconds=self._config.stop_grace)
        events.happened("drain_started", node=self.node_id, **self._seat_service.load)
        logger.info("stopping", extra={"node_id": self.node_id})
        await self._server.health.enter_graceful_shutdown()
        self._seat_service.go_away("the node is stopping", grace)
        for record in self._records:
            # The node's own record goes; its key must outlive the tokens that it signed.
            await record.stop(remove=record is self._records[0])
        await asyncio.sleep(self._config.drain_delay)
        await self._server.stop(self._seat_service, grace)
        self._context.tally.watched = None
        await self._core.seats.stop()
        await self._routing.membership.stop()
        await self._routing.peers.stop()
        await self._context.store.close()
        took = round(time.monotonic() - began, 3)
        events.happened("drain_finished", node=self.node_id, seconds=took)
        logger.info("stopped", extra={"node_id": self.node_id})

    def reload(self, config: NodeConfig) -> None:
        """Apply other settings, and certificates that were renewed, also those of old settings.

        Names of ``administrators`` and ``agents`` count from the next call on, also on connections
        that are open; certificates for connections made from now on. Whether the node asks for
        certificates does not change while it runs: names that need one are then matched by none.
        Raises ``CertificateError``, and changes nothing. Etcd's certificates need no signal: they
        are read at each connection.
        """
        administrators, agents = parse_names(config.administrators), parse_names(config.agents)
        self._credentials.certificates.reload(config)
        self._routing.peers.reconnect()
        self._credentials.authorizer.replace(administrators, agents)
        _log_rights(self._credentials.authorizer)

    async def wait(self) -> None:
        """Wait until the server has ended."""
        await self._server.wait()


@dataclass(frozen=True, slots=True)
class _Credentials:
    """What a node proves itself with, and whom it lets do what. Can be reloaded."""

    certificates: Certificates
    authorizer: Authorizer


async def _start(config: NodeConfig, given: NodeContext) -> Node:
    version, deployment = await open_deployment(
        config, given.store, given.keys, given.tally, given.clock
    )
    context = replace(given, store=CheckedStore(given.store, deployment, given.keys))
    secret = await answered(config, partial(cluster_secret, context.store, context.keys))
    credentials = _Credentials(Certificates(config), _authorizer(config))
    routing = _routing(context, secret, credentials.certificates)
    core = _core(config, context, routing)
    server = NodeServer(
        context.transport,
        [CallLog(context.tally, context.clock), Gate(credentials.authorizer)],
        config.listen,
        credentials.certificates.server(),
    )
    advertised = config.advertise or server.address
    alarm = StoreAlarm(given.store, deployment, context.tally, server.health, ("", *SERVICES))
    reporter = NodeReporter(
        version=version,
        clock=context.clock,
        tally=context.tally,
        address=advertised,
        membership=routing.membership,
        certificate_files=_certificate_files(config),
        authorizer=credentials.authorizer,
        deployment=deployment,
    )
    reporter.store_trouble = lambda: alarm.trouble
    seat_service = _add_services(config, context, server, core, routing, reporter)
    peer_service = PeerService(core.seats, reporter, secret)
    add_PeerServiceServicer_to_server(peer_service, server.services)
    await answered(config, partial(check_alone, context, advertised, routing.peers))
    await deployment.start()
    routing.membership.start()
    await routing.membership.ready()
    await core.seats.start()
    context.tally.watched = NodeWatched(
        core.seats, routing.membership, seat_service.streams_open
    )
    await server.start()
    records = _records(context, core.signer, advertised)
    # In the ring from now on: others forward to it what it owns.
    for record in records:
        await answered(config, record.start)
    await alarm.notify()
    logger.info(
        "serving",
        extra={
            "node_id": config.node_id,
            "address": server.address,
            "store": version.store_version,
            "deployment": deployment.id,
        },
    )
    return Node(config, context, server, core, seat_service, routing, credentials, records)


def _add_services(
    config: NodeConfig,
    context: NodeContext,
    server: NodeServer,
    core: Core,
    routing: Routing,
    reporter: NodeReporter,
) -> SeatService:
    """Add the services for clients, and keep the ring that they report up to date."""
    seat_service = add_services(
        *(server.services, core, context.store, context.keys),
        ServiceReporter(
            node=reporter, store=context.store, keys=context.keys, peers=routing.peers
        ),
        drain=server.drained.set,
        limits=ApiLimits(
            calls_max=config.calls_max, holder_streams_max=config.holder_streams_max
        ),
    )
    membership = routing.membership
    membership.on_change += [
        core.seats.ring_changed,
        lambda: seat_service.ring_changed(membership.ring),
    ]
    return seat_service


def _routing(context: NodeContext, secret: str, certificates: Certificates) -> Routing:
    membership = Membership(context.store, context.keys, context.tally, context.node_id)

    def connect(address: str) -> grpc.aio.Channel:
        return context.transport.connect(address, certificates.channel(), CHANNEL_OPTIONS)

    return Routing(membership, Peers(membership, secret, context.tally, connect=connect))


def _core(config: NodeConfig, context: NodeContext, routing: Routing) -> Core:
    store, keys, clock = context.store, context.keys, context.clock
    seats = PoolRouter(
        store,
        keys,
        PoolCatalogue(store, keys, context.tally),
        clock,
        config=LoopConfig(
            limits=Limits(queue_max=config.queue_max, holder_queue_max=config.holder_queue_max),
            policy=context.policy,
            listing_step=context.listing_step,
        ),
        observer=context.tally,
        forwarder=routing if config.routing == "owner" else None,
    )
    return Core(
        node_id=context.node_id,
        sessions=Sessions(store, keys, clock, default_ttl=config.default_session_ttl),
        seats=seats,
        signer=TokenSigner.load(config.token_key_file)
        if config.token_key_file
        else TokenSigner.generate(),
        clock=clock,
    )


def _authorizer(config: NodeConfig) -> Authorizer:
    authorizer = Authorizer(
        parse_names(config.administrators),
        parse_names(config.agents),
        asks_for_certificates=config.tls_client_ca_file is not None,
    )
    _log_rights(authorizer)
    return authorizer


def _log_rights(authorizer: Authorizer) -> None:
    """Log which clients may administer, if that is every one or none."""
    for setting, effect in authorizer.warnings():
        logger.warning("rights", extra={"setting": setting, "effect": effect})


def _certificate_files(config: NodeConfig) -> dict[str, Path]:
    settings = (
        "tls_cert_file",
        "tls_key_file",
        "tls_client_ca_file",
        "tls_peer_ca_file",
        "etcd_cert_file",
        "etcd_key_file",
        "etcd_ca_file",
    )
    named = {setting: getattr(config, setting) for setting in settings}
    return {setting: file for setting, file in named.items() if file is not None}


def _records(context: NodeContext, signer: TokenSigner, advertised: str) -> list[LeasedRecord]:
    """Return the records that live with this node: itself, first, and its signing key."""
    node = state_pb2.NodeRecord(
        address=advertised,
        version=version_of("seatkeeper"),
        started_at_millis=context.clock.now(),
    )
    key = state_pb2.KeyRecord(jwk_json=signer.jwk_json)
    store, keys = context.store, context.keys
    return [
        LeasedRecord(store, keys.node(context.node_id), node.SerializeToString(), NODE_TTL),
        LeasedRecord(
            store, keys.signing_key(signer.kid), key.SerializeToString(), SIGNING_KEY_TTL
        ),
    ]
