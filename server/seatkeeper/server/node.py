"""A node: the place where its parts are put together, started, and stopped."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib.metadata import version as version_of
from pathlib import Path
from typing import ClassVar, TypeVar, cast

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from seatkeeper.core.serving.handlers import CallGate, WrappingServer, decoding
from seatkeeper.server.certificates import Certificates
from seatkeeper.server.config import NodeConfig
from seatkeeper.server.deployment.alarm import StoreAlarm
from seatkeeper.server.deployment.guarded_store import GuardedStore
from seatkeeper.server.deployment.identity import Deployment, WrongDeployment
from seatkeeper.server.domain import Limits
from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.events import log as events
from seatkeeper.server.events.observer import Observer
from seatkeeper.server.identity import Authorizer, Gate, parse_names
from seatkeeper.server.pool.catalogue import PoolCatalogue
from seatkeeper.server.pool.loop import LoopConfig
from seatkeeper.server.pool.router import PoolRouter
from seatkeeper.server.report.node_report import NodeReporter, NodeVersion
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
from seatkeeper.server.store import LeaseNotFound, Store, StoreError, StoreForeign
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore, version_warnings
from seatkeeper.server.store.keys import Keys
from seatkeeper.server.store.memory import MemoryStore
from seatkeeper.server.system_clock import SystemClock
from seatkeeper.server.telemetry.call_log import CallLog
from seatkeeper.server.telemetry.tally import Tally
from seatkeeper.server.tokens.signer import TOKEN_LIFE_MAX, TokenSigner
from seatkeeper.server.transport import GrpcTransport, Transport
from seatkeeper.server.watched import NodeWatched
from seatkeeper.v1 import state_pb2
from seatkeeper.v1.peer_service_pb2_grpc import add_PeerServiceServicer_to_server

logger = logging.getLogger(__name__)
T = TypeVar("T")

NODE_TTL = timedelta(seconds=10)
FORCED = timedelta(seconds=1)
"""How long calls that are told to end at the end of the grace may take to do so."""
LAST_CALLS_SECONDS = 0.05
"""How long calls that were on their way when the last one ended are still answered."""
SERVER_STOP_SECONDS = 1.0
"""How long gRPC's own stop may take, once no call of ours is under way."""
SIGNING_KEY_TTL = TOKEN_LIFE_MAX + timedelta(minutes=10)
"""How long a key stays published after its node has died: longer than any token lives."""


class StartError(Exception):
    """The node cannot start. The message says what to do about it."""


@dataclass
class Node:
    """A running node. ``await Node.start(config)``, then ``await node.stop()``."""

    node_id: str
    address: str
    """Where it listens: ``host:port``."""
    _store: Store
    _core: Core
    _transport: Transport
    _server: grpc.aio.Server
    _gate: CallGate
    _health: health.aio.HealthServicer
    _seat_service: SeatService
    _records: list[LeasedRecord]
    _routing: Routing
    _authorizer: Authorizer
    _drain_delay: timedelta
    _stop_grace: timedelta
    drained: asyncio.Event
    """Set when somebody has asked this node to stop: then call ``stop``."""
    _certificates: Certificates
    _tally: Tally
    _node_key: str
    _draining: bool = False

    reloads: ClassVar[frozenset[str]] = frozenset(
        {"administrators", "agents"}
        | {"tls_cert_file", "tls_key_file", "tls_client_ca_file", "tls_peer_ca_file"}
    )
    """The settings that ``reload`` takes in."""

    @classmethod
    async def start(
        cls,
        config: NodeConfig,
        *,
        store: Store | None = None,
        clock: Clock | None = None,
        tally: Tally | None = None,
        transport: Transport | None = None,
    ) -> Node:
        """Start a node; returns when it serves.

        Raises ``StartError`` when the store does not answer in time, and ``ListenError`` when the
        address is in use. ``store`` is closed with the node.
        """
        store = store or open_store(config)
        world = _World(clock or SystemClock(), tally or Tally(), transport or GrpcTransport())
        try:
            return await _start(config, store, world)
        except BaseException:
            await store.close()
            raise

    async def why_not_ready(self) -> str:
        """Return why this node should get no new work; empty: it is ready.

        It is not while it drains, and while etcd does not answer a read that needs a majority.
        """
        if self._draining or self.drained.is_set():
            return "draining"
        if not self._routing.membership.is_current:
            return "the store does not tell what changes"
        try:
            await self._store.get(self._node_key)
        except StoreError as error:
            return f"the store does not answer: {error}"
        return ""

    async def stop(self) -> None:
        """Stop: not serving, streams told to go, calls under way finished, then gone.

        Sessions, grants and tickets stay in the store, for the other nodes to serve.
        """
        self._draining = True
        began = time.monotonic()
        events.happened("drain_started", node=self.node_id, **self._seat_service.load)
        logger.info("stopping", extra={"node_id": self.node_id})
        await self._health.enter_graceful_shutdown()
        self._seat_service.go_away("the node is stopping", self._stop_grace)
        for record in self._records:
            # The node's own record goes; its key must outlive the tokens that it signed.
            await record.stop(remove=record is self._records[0])
        await asyncio.sleep(self._drain_delay.total_seconds())
        self._gate.close()
        self._seat_service.stop("the node is stopping")
        if not await self._gate.drained(self._stop_grace):
            self._seat_service.end_streams()
            if not await self._gate.drained(FORCED):
                self._gate.end()
                await self._gate.drained(FORCED)
        await self._seat_service.close()
        await asyncio.sleep(LAST_CALLS_SECONDS)
        self._transport.end_connections(self.address)
        await self._server.stop(SERVER_STOP_SECONDS)
        self._tally.watched = None
        await self._core.seats.stop()
        await self._routing.membership.stop()
        await self._routing.peers.stop()
        await self._store.close()
        took = round(time.monotonic() - began, 3)
        events.happened("drain_finished", node=self.node_id, seconds=took)
        logger.info("stopped", extra={"node_id": self.node_id})

    def reload(self, config: NodeConfig) -> None:
        """Take in other settings, and certificates that were renewed, also those of old settings.

        Names of ``administrators`` and ``agents`` count from the next call on, also on connections
        that are open; certificates for connections made from now on. Whether the node asks for
        certificates does not change while it runs: names that need one are then matched by none.
        Raises ``CertificateError``, and changes nothing. Etcd's certificates need no telling: they
        are read at each connection.
        """
        administrators, agents = parse_names(config.administrators), parse_names(config.agents)
        self._certificates.reload(config)
        self._routing.peers.reconnect()
        self._authorizer.replace(administrators, agents)
        _log_rights(self._authorizer)

    async def wait(self) -> None:
        """Wait until the server has ended."""
        await self._server.wait_for_termination()


def open_store(config: NodeConfig) -> Store:
    """Return the store that ``config`` names. Needs a running event loop."""
    if config.store == "memory":
        memory = MemoryStore()
        memory.start_expiry()
        return memory
    password = ""
    if config.etcd_password_file is not None:
        password = config.etcd_password_file.read_text().partition("\n")[0]
    return EtcdStore(
        EtcdConfig(
            endpoints=tuple(e.strip() for e in config.etcd_endpoints.split(",")),
            ca_file=config.etcd_ca_file,
            cert_file=config.etcd_cert_file,
            key_file=config.etcd_key_file,
            username=config.etcd_username,
            password=password,
            call_timeout=timedelta(seconds=config.etcd_timeout),
        )
    )


@dataclass(frozen=True, slots=True)
class _World:
    """What a node has around it, besides its store."""

    clock: Clock
    tally: Tally
    transport: Transport


async def _start(config: NodeConfig, store: Store, world: _World) -> Node:
    clock, tally, transport = world.clock, world.tally, world.transport
    keys, unguarded = Keys(config.prefix), store
    version, deployment = await _open_deployment(config, store, keys, world)
    store = GuardedStore(store, deployment, keys)
    secret = await _patiently(config, partial(cluster_secret, store, keys))
    certificates = Certificates(config)
    routing = _routing(config, store, keys, secret, world, certificates)
    core = _core(config, store, keys, clock, tally, routing)
    authorizer = _authorizer(config)
    server, gate = transport.server([CallLog(tally), Gate(authorizer)]), CallGate()
    services = cast("grpc.aio.Server", WrappingServer(server, [gate.wrap, decoding]))
    drained = asyncio.Event()
    address = transport.listen(server, config.listen, certificates.server())
    advertised = config.advertise or address
    membership = routing.membership
    reporter = NodeReporter(
        version=version,
        clock=clock,
        tally=tally,
        started_at=clock.now(),
        address=advertised,
        membership=membership,
        certificate_files=_certificate_files(config),
        authorizer=authorizer,
        deployment=deployment,
        prefix=config.prefix,
    )
    seat_service = add_services(
        *(services, core, store, keys),
        ServiceReporter(node=reporter, store=store, keys=keys, peers=routing.peers),
        drain=drained.set,
        limits=ApiLimits(
            calls_max=config.calls_max, holder_streams_max=config.holder_streams_max
        ),
    )
    add_PeerServiceServicer_to_server(PeerService(core.seats, reporter, secret), services)
    health_servicer = _add_health_and_reflection(services)
    alarm = StoreAlarm(unguarded, deployment, tally, health_servicer, ("", *SERVICES))
    reporter.store_trouble = lambda: alarm.trouble
    records = _records(config, store, keys, core.signer, clock, advertised)
    membership.on_change += [
        core.seats.ring_changed,
        lambda: seat_service.ring_changed(membership.ring),
    ]
    await _patiently(
        config, partial(_check_alone, store, keys, config.node_id, advertised, routing.peers)
    )
    await deployment.start()
    membership.start()
    await membership.ready()
    await core.seats.start()
    tally.watched = NodeWatched(core.seats, membership, seat_service.streams_open)
    await server.start()
    # In the ring from now on: others pass on to it what it owns.
    for record in records:
        await _patiently(config, record.start)
    await alarm.tell()
    logger.info(
        "serving",
        extra={
            "node_id": config.node_id,
            "address": address,
            "store": version.store_version,
            "deployment": deployment.id,
        },
    )
    return Node(
        *(config.node_id, address, store, core, transport, server, gate, health_servicer),
        *(seat_service, records, routing, authorizer),
        timedelta(seconds=config.drain_delay),
        timedelta(seconds=config.stop_grace),
        *(drained, certificates, tally, keys.node(config.node_id)),
    )


def _routing(
    config: NodeConfig,
    store: Store,
    keys: Keys,
    secret: str,
    world: _World,
    certificates: Certificates,
) -> Routing:
    membership = Membership(store, keys, world.tally, config.node_id)

    def connect(address: str) -> grpc.aio.Channel:
        return world.transport.connect(address, certificates.channel(), CHANNEL_OPTIONS)

    return Routing(membership, Peers(membership, secret, world.tally, connect=connect))


def _core(
    config: NodeConfig,
    store: Store,
    keys: Keys,
    clock: Clock,
    observer: Observer,
    routing: Routing,
) -> Core:
    seats = PoolRouter(
        store,
        keys,
        PoolCatalogue(store, keys, observer),
        clock,
        config=LoopConfig(
            limits=Limits(queue_max=config.queue_max, holder_queue_max=config.holder_queue_max)
        ),
        observer=observer,
        forwarder=routing if config.routing == "owner" else None,
    )
    return Core(
        node_id=config.node_id,
        sessions=Sessions(store, keys, clock, default_ttl=config.default_session_ttl),
        seats=seats,
        signer=TokenSigner.load(config.token_key_file)
        if config.token_key_file
        else TokenSigner.generate(),
        clock=clock,
    )


async def _check_alone(
    store: Store, keys: Keys, node_id: str, advertised: str, peers: Peers
) -> None:
    """Raise ``StartError`` when a living node has this id: one that died leaves its record behind."""
    entry = await store.get(keys.node(node_id))
    if entry is None:
        return
    address = state_pb2.NodeRecord.FromString(entry.value).address
    if address != advertised and await peers.answers(address):
        raise StartError(
            f"node_id: {node_id} is the id of a node that lives, at {address}; choose another"
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
    """Log who may administer, where that is anybody or nobody."""
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


async def _open_deployment(
    config: NodeConfig, store: Store, keys: Keys, world: _World
) -> tuple[NodeVersion, Deployment]:
    """Return what the store is and which service it holds, once it answers.

    Raises ``StartError`` when it does not answer in time, or is not ours.
    """
    if isinstance(store, EtcdStore):
        await _patiently(config, store.identify)
    status = await _patiently(config, store.status)
    warnings = tuple(version_warnings(status.version)) if status.kind == "etcd" else ()
    for warning in warnings:
        logger.warning(
            "store_version_defect", extra={"version": status.version, "defect": warning}
        )
    deployment = Deployment(store, keys, world.tally)
    opening = partial(deployment.open, status.cluster_id, config.deployment, world.clock.now())
    try:
        await _patiently(config, opening)
    except WrongDeployment as error:
        raise StartError(str(error)) from error
    version = NodeVersion(
        config.node_id, version_of("seatkeeper"), status.kind, status.version, warnings
    )
    return version, deployment


async def _patiently(config: NodeConfig, call: Callable[[], Awaitable[T]]) -> T:
    """Return what the store answers, asking again for as long as is configured.

    Raises ``StartError``. Only for what may be repeated.
    """
    deadline = asyncio.get_running_loop().time() + config.start_timeout
    while True:
        try:
            return await call()
        except StoreForeign as error:
            raise StartError(str(error)) from error
        except StoreError as error:
            late = asyncio.get_running_loop().time() >= deadline
            # A lease of the past that ends now is no reason to give up, either.
            if late or not (error.retryable or isinstance(error, LeaseNotFound)):
                raise StartError(
                    f"etcd at {config.etcd_endpoints} does not answer ({error}); "
                    "start it, or say where it is with --etcd-endpoints"
                ) from error
        await asyncio.sleep(0.2)


def _records(
    config: NodeConfig,
    store: Store,
    keys: Keys,
    signer: TokenSigner,
    clock: Clock,
    advertised: str,
) -> list[LeasedRecord]:
    node = state_pb2.NodeRecord(
        address=advertised,
        version=version_of("seatkeeper"),
        started_at_millis=clock.now(),
    )
    key = state_pb2.KeyRecord(jwk_json=signer.jwk_json)
    return [
        LeasedRecord(store, keys.node(config.node_id), node.SerializeToString(), NODE_TTL),
        LeasedRecord(
            store, keys.signing_key(signer.kid), key.SerializeToString(), SIGNING_KEY_TTL
        ),
    ]


def _add_health_and_reflection(server: grpc.aio.Server) -> health.aio.HealthServicer:
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection(
        (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    return servicer
