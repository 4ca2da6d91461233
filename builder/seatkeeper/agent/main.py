"""An agent: the place where its parts are put together, started, and stopped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version as version_of
from typing import ClassVar, cast

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from seatkeeper.agent.build_runner import BuildRunner
from seatkeeper.agent.config import AgentConfig, plugin_paths
from seatkeeper.agent.places import Places
from seatkeeper.agent.plugins import Plugins
from seatkeeper.agent.registration import keep_registered, register
from seatkeeper.agent.service import BuildService
from seatkeeper.agent.verifier import Verifier
from seatkeeper.artifacts.bundle import FILES_MAX
from seatkeeper.artifacts.summary import ModelLimits
from seatkeeper.builder.job import BuildLimits
from seatkeeper.client import AsyncSeatClient, ClientConfig, TlsConfig
from seatkeeper.core.errors import SeatError
from seatkeeper.core.serving.handlers import WrappingServer, decoding
from seatkeeper.core.serving.listening import (
    SERVER_OPTIONS,
    CertificateError,
    ServerCertificates,
    listen,
)
from seatkeeper.core.serving.reload import Reloader
from seatkeeper.core.serving.signals import Signals
from seatkeeper.v1 import build_service_pb2
from seatkeeper.v1.build_service_pb2_grpc import add_BuildServiceServicer_to_server

logger = logging.getLogger(__name__)

FETCH_SECONDS = 5.0
"""Time between the end of the last build of an agent that drains and its own."""
ANNOUNCE_SECONDS_MAX = 2.0
"""Longest that an agent that stops waits for a node to learn of it."""
FILES_OVER_ENGINE = 4
"""Bytes of a build's files over those of the largest engine: converted models are among them."""
SERVICE = build_service_pb2.DESCRIPTOR.services_by_name["BuildService"].full_name


async def run(config: AgentConfig, load: Callable[[], AgentConfig]) -> None:
    """Run an agent until it is stopped (SIGTERM, SIGINT, SIGQUIT), also while it starts.

    For SIGHUP, settings are loaded again. Raises what ``Agent.start`` raises.
    """
    signals = Signals()
    starting = asyncio.create_task(Agent.start(config))
    stopping = asyncio.create_task(signals.drain.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        # What it has begun, it undoes: the session is closed, so that the next run finds the name
        # free.
        starting.cancel()
        await asyncio.wait({starting})
    if starting.cancelled():
        logger.info("stopped", extra={"agent_id": config.agent_id})
        return
    agent = starting.result()
    signals.ready(Reloader(config, load, agent))
    drained = asyncio.create_task(agent.drained())
    await asyncio.wait({stopping, drained}, return_when=asyncio.FIRST_COMPLETED)
    drained.cancel()
    stopping.cancel()
    await agent.stop()
    signals.done()


@dataclass
class Agent:
    """A running agent."""

    info: build_service_pb2.AgentInfo
    """What it says of itself."""
    build_runner: BuildRunner
    client: AsyncSeatClient
    """Its own session, for which it is registered."""
    _health: health.aio.HealthServicer
    _stack: AsyncExitStack
    _certificates: ServerCertificates | None

    reloads: ClassVar[frozenset[str]] = frozenset(
        {"tls_cert_file", "tls_key_file", "tls_client_ca_file"}
    )
    """The settings that ``reload`` applies."""

    @classmethod
    async def start(cls, config: AgentConfig) -> Agent:
        """Start an agent; returns when it serves and is registered.

        Raises ``ListenError``, a ``BuildError`` when nothing can be built on this host, and a
        ``SeatError`` when no node takes it on.
        """
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(_client(config))
            build_runner = await BuildRunner.open(
                config.engines,
                _limits(config),
                _places(config),
                config.isolation,
                store=config.store,
                upload_bytes_max=config.upload_bytes_max,
                upload_seconds=config.upload_keep,
            )
            build_runner.plugins = await asyncio.to_thread(
                Plugins.listed, plugin_paths(config.plugins)
            )
            info = _info(config, build_runner)
            verifier = Verifier(client, config.pool)
            await verifier.fetch()
            server = grpc.aio.server(options=SERVER_OPTIONS)
            servicer = BuildService(build_runner, client, verifier, info)
            services = cast("grpc.aio.Server", WrappingServer(server, [decoding]))
            add_BuildServiceServicer_to_server(servicer, services)
            health_servicer = health.aio.HealthServicer()
            health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
            certificates = _certificates(config)
            credentials = certificates.credentials() if certificates else None
            address = listen(server, config.listen, credentials)
            info.address = config.advertise or address
            await server.start()
            stack.push_async_callback(servicer.ended)
            stack.push_async_callback(server.stop, config.stop_grace)
            await register(client, info, config.register_timeout)
            registration = asyncio.create_task(
                keep_registered(client, info, build_runner.places)
            )
            stack.callback(registration.cancel)
            storing = asyncio.create_task(build_runner.holdings.keep_storing(client))
            stack.callback(storing.cancel)
            for service in ("", SERVICE):
                await health_servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
            logger.info("serving", extra={"agent_id": config.agent_id, "address": address})
            stack_of_all = stack.pop_all()
            return cls(info, build_runner, client, health_servicer, stack_of_all, certificates)

    def reload(self, config: AgentConfig) -> None:
        """Read this agent's certificate again. Raises ``CertificateError``, and changes nothing.

        That for the nodes needs no signal: it is read at each connection.
        """
        if self._certificates is None:
            return
        if config.tls_cert_file is None or config.tls_key_file is None:
            raise CertificateError("TLS cannot be turned off while the agent runs; restart it")
        self._certificates.reload(
            config.tls_cert_file, config.tls_key_file, config.tls_client_ca_file
        )

    async def drained(self) -> None:
        """Return once a node has had this agent drain, and no client needs it any more.

        Builds under way may take as long as they take. Who had one built gets some time to fetch it.
        """
        await self.build_runner.places.drained.wait()
        await asyncio.sleep(FETCH_SECONDS)
        logger.info("drained", extra={"agent_id": self.info.agent_id})

    async def stop(self) -> None:
        """Stop: no new builds; those under way get the configured grace, then they are ended."""
        logger.info("stopping", extra={"agent_id": self.info.agent_id})
        places = self.build_runner.places
        places.drain()
        if places.running:
            # So that clients do not ask here first; who does goes on to another agent.
            places.describe(self.info)
            with suppress(SeatError, TimeoutError):
                async with asyncio.timeout(ANNOUNCE_SECONDS_MAX):
                    await self.client.engines.register_agent(self.info)
        await self._health.enter_graceful_shutdown()
        await self._stack.aclose()
        logger.info("stopped", extra={"agent_id": self.info.agent_id})


def _client(config: AgentConfig) -> AsyncSeatClient:
    tls = None
    if config.nodes_tls or config.nodes_ca_file or config.nodes_cert_file:
        tls = TlsConfig(
            ca=config.nodes_ca_file, cert=config.nodes_cert_file, key=config.nodes_key_file
        )
    return AsyncSeatClient(
        config.nodes,
        holder=f"agent {config.agent_id}",
        tls=tls,
        # An agent runs gRPC anyhow, and compiles in processes of their own.
        config=ClientConfig(keeper="process"),
    )


def _limits(config: AgentConfig) -> BuildLimits:
    return BuildLimits(
        timeout=timedelta(seconds=config.build_timeout),
        memory_bytes=config.build_memory_bytes,
        engine_bytes_max=config.engine_bytes_max,
        files_bytes_max=FILES_OVER_ENGINE * config.engine_bytes_max,
        cpu_time=None
        if config.build_cpu_time is None
        else timedelta(seconds=config.build_cpu_time),
        model=ModelLimits(bytes_max=config.model_bytes_max),
    )


def _places(config: AgentConfig) -> Places:
    return Places(config.builds_max, config.memory_bytes, timedelta(seconds=config.memory_wait))


def _info(config: AgentConfig, build_runner: BuildRunner) -> build_service_pb2.AgentInfo:
    info = build_service_pb2.AgentInfo(
        agent_id=config.agent_id,
        backends=build_runner.backends.values(),
        pool=config.pool,
        builds_max=config.builds_max,
        memory_bytes=config.memory_bytes,
        model_bytes_max=config.model_bytes_max,
        public_key=build_runner.key.public_key,
        version=version_of("seatkeeper"),
        model_files_max=FILES_MAX,
        store=build_runner.holdings.store_id,
        plugins=sorted(build_runner.plugins.paths),
        isolation=build_service_pb2.Isolation(
            network=build_runner.limits.isolate, processes=build_runner.limits.isolate
        ),
    )
    build_runner.places.describe(info)
    return info


def _certificates(config: AgentConfig) -> ServerCertificates | None:
    if config.tls_cert_file is None or config.tls_key_file is None:
        return None
    return ServerCertificates(
        config.tls_cert_file, config.tls_key_file, config.tls_client_ca_file
    )
