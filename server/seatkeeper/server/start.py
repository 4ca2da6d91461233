"""How a node comes to its store: which one, whose, and from when on it answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import TypeVar

from seatkeeper.core.version import seatkeeper_version
from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.config import NodeConfig
from seatkeeper.server.deployment.deployment import Deployment, WrongDeployment
from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.events.observer import Observer
from seatkeeper.server.node_context import NodeContext
from seatkeeper.server.report.node_report import NodeVersion
from seatkeeper.server.routing.peers import Peers
from seatkeeper.server.store import LeaseNotFound, Store, StoreError, StoreForeign
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore, version_warnings
from seatkeeper.server.store.formats import RecordUnreadable, parsed
from seatkeeper.server.store.keys import Keys
from seatkeeper.server.store.memory import MemoryStore

RETRY_SECONDS = 0.2
"""How long after a failure the store is asked again."""
logger = logging.getLogger(__name__)
T = TypeVar("T")


class StartError(Exception):
    """The node cannot start. The message says what to do about it."""


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


async def answered(config: NodeConfig, call: Callable[[], Awaitable[T]]) -> T:
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
        await asyncio.sleep(RETRY_SECONDS)


async def open_deployment(
    config: NodeConfig, store: Store, keys: Keys, observer: Observer, clock: Clock
) -> tuple[NodeVersion, Deployment]:
    """Return what the store is and which service it holds, once it answers.

    Raises ``StartError`` when it does not answer in time, or is not ours.
    """
    if isinstance(store, EtcdStore):
        await answered(config, store.identify)
    status = await answered(config, store.status)
    warnings = tuple(version_warnings(status.version)) if status.kind == "etcd" else ()
    for warning in warnings:
        logger.warning(
            "store_version_defect", extra={"version": status.version, "defect": warning}
        )
    deployment = Deployment(store, keys, observer)
    opening = partial(deployment.open, status.cluster_id, config.deployment, clock.now())
    try:
        await answered(config, opening)
    except WrongDeployment as error:
        raise StartError(str(error)) from error
    version = NodeVersion(
        config.node_id, seatkeeper_version(), status.kind, status.version, warnings
    )
    return version, deployment


async def check_alone(context: NodeContext, advertised: str, peers: Peers) -> None:
    """Raise ``StartError`` when a living node has this id: one that died leaves its record behind."""
    entry = await context.store.get(context.keys.node(context.node_id))
    if entry is None:
        return
    try:
        address = parsed(state_pb2.NodeRecord, entry.key, entry.value).address
    except RecordUnreadable as error:
        raise StartError(
            f"node_id: the record of node {context.node_id} cannot be read: a newer version wrote it, "
            "or it is damaged; choose another id, or wait until it is gone, some 10 s after it stopped"
        ) from error
    if address != advertised and await peers.answers(address):
        raise StartError(
            f"node_id: {context.node_id} is the id of a node that lives, at {address}; choose another"
        )
