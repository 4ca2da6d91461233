"""The engines that an agent has: in its folder, and in the store that it shares with others.

Theory of operation
-------------------
An engine's bytes are in the shared store before it is in the nodes' catalogue, and its manifest is
there after: the catalogue decides what is published, and refuses what has lost its seat. Where the
agent dies in between, the next agent that is asked for the engine finds the bytes by the catalogue's
manifest and stores that. Where the store does not take the bytes, the engine is kept in
``unpublished/``: the next request for it publishes it under its own grant, and builds nothing.

What is in the folder is a copy, whole and checked; what is only in the store is copied before it is
served. An engine in the folder that the catalogue has and the store has not is owed: it is stored
again and again, until it is there.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from seatkeeper.artifacts.errors import (
    DiskFull,
    EngineDamaged,
    EngineError,
    EngineNotFound,
    EngineNotStored,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from seatkeeper.artifacts.manifest import verify_manifest
from seatkeeper.artifacts.store import DISK_FULL_ERRNOS, EngineStore, StoredEngine, create_file
from seatkeeper.artifacts.stores.artifact_store import ArtifactStore
from seatkeeper.client import AsyncSeatClient
from seatkeeper.core import errors as core
from seatkeeper.v1 import build_pb2

logger = logging.getLogger(__name__)

OWED_RETRY = 30.0
"""Seconds until the store is offered again what it has not got."""


@dataclass
class Holdings:
    """An agent's engines. Without a shared store, those of its folder."""

    local: EngineStore
    unpublished: EngineStore
    shared: ArtifactStore | None
    _owed: set[str] = field(default_factory=set)
    _fetching: dict[str, asyncio.Lock] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, address: str) -> Holdings:
        """Open an agent's folder, and the store at ``address`` if there is one. Blocks.

        Raises a ``StoreError`` when that can never be used: wrong address, wrong credentials. One that
        does not answer now may answer later.
        """
        local, unpublished = EngineStore(folder), EngineStore(folder / "unpublished")
        local.sweep()
        unpublished.sweep()
        if not address:
            return cls(local, unpublished, None)
        shared = ArtifactStore.at(address)
        try:
            shared.check(secrets.token_hex(8))
        except (StoreUnavailable, StoreFull) as error:
            logger.warning("store_unavailable", extra={"error": error.message})
        return cls(local, unpublished, shared, set(local.keys()))

    @property
    def store_id(self) -> str:
        """Of the shared store; empty: there is none."""
        return self.shared.store_id if self.shared is not None else ""

    async def check(self) -> None:
        """Raise a ``StoreError`` unless the shared store accepts something now: before a build."""
        if self.shared is not None:
            await asyncio.to_thread(self.shared.check, secrets.token_hex(8))

    async def hold(self, signed: build_pb2.SignedManifest, engine: Path) -> None:
        """Have an engine's bytes in the shared store, and the engine in the folder.

        Raises ``EngineNotStored`` when the store does not take it; then it is kept unpublished.
        """
        manifest = verify_manifest(signed, signed.public_key)
        try:
            if self.shared is not None:
                await asyncio.to_thread(self.shared.put_bytes, engine, manifest.file)
        except StoreError as error:
            await asyncio.to_thread(self.unpublished.publish, signed, engine)
            raise EngineNotStored(
                f"engine {manifest.key} is built and kept by this agent, but not published: "
                f"{error.message}"
            ) from error
        await asyncio.to_thread(self.local.publish, signed, engine)

    async def published(self, signed: build_pb2.SignedManifest) -> None:
        """Store the manifest of an engine that is now in the catalogue; later, if it must be."""
        key = verify_manifest(signed, signed.public_key).key
        await asyncio.to_thread(self.unpublished.remove, key)
        if self.shared is None:
            return
        try:
            await asyncio.to_thread(self.shared.put_manifest, signed)
        except (StoreError, EngineNotFound) as error:
            self._owe(key, error)

    async def whole(self, key: str) -> build_pb2.SignedManifest | None:
        """Return the manifest of an engine that is in the folder, and whole; None: it is not."""
        return await asyncio.to_thread(_whole, self.local, key)

    async def obtain(self, signed: build_pb2.SignedManifest) -> None:
        """Have the engine of this manifest in the folder, from the store if it is not there yet.

        Raises ``EngineNotFound``, ``EngineDamaged``, ``DiskFull`` or a ``StoreError``.
        """
        manifest = verify_manifest(signed, signed.public_key)
        lock = self._fetching.setdefault(manifest.key, asyncio.Lock())
        try:
            async with lock:
                if await asyncio.to_thread(_is_here, self.local, signed):
                    return
                if self.shared is None:
                    raise EngineNotFound(f"engine {manifest.key} is not here")
                await asyncio.to_thread(_copied, self.shared, self.local, signed)
        finally:
            if not lock.locked():
                self._fetching.pop(manifest.key, None)
        # Its agent may have died before it stored the manifest.
        self._owed.add(manifest.key)

    @asynccontextmanager
    async def engine(self, key: str, client: AsyncSeatClient) -> AsyncIterator[StoredEngine]:
        """Open the engine that the catalogue has under ``key``, wherever it is.

        When no node answers, what is here is served. Raises ``EngineNotFound``, ``EngineDamaged``,
        ``DiskFull`` or a ``StoreError``.
        """
        wanted = None
        if self.shared is not None:
            wanted = await self._wanted(key, client, self.shared)
            if wanted is not None:
                await self.obtain(wanted)
        with ExitStack() as stack:
            # On a thread: reading gigabytes here would keep everybody waiting, and our own
            # session from being renewed.
            try:
                opened = self.local.open(key)
                engine = await asyncio.to_thread(stack.enter_context, opened)
            except EngineDamaged:
                if wanted is None:
                    raise
                # The copy in the folder is; the store has another.
                await asyncio.to_thread(self.local.remove, key)
                await self.obtain(wanted)
                opened = self.local.open(key)
                engine = await asyncio.to_thread(stack.enter_context, opened)
            yield engine

    async def _wanted(
        self, key: str, client: AsyncSeatClient, shared: ArtifactStore
    ) -> build_pb2.SignedManifest | None:
        """Return the manifest to serve; None: what is in the folder, if anything."""
        try:
            return (await client.engines.get(key)).manifest
        except (core.EngineNotFound, core.InvalidArgument):
            return None
        except core.SeatError:
            if await asyncio.to_thread(self.local.has, key):
                return None
            return (await asyncio.to_thread(shared.manifest, key))[0]

    # What the store is owed -----------------------------------------------------------------

    async def keep_storing(self, client: AsyncSeatClient) -> None:
        """Store what the store has not got, until cancelled."""
        while True:
            for key in sorted(self._owed):
                try:
                    await self._store_owed(key, client)
                except (StoreError, EngineNotFound, core.SeatError) as error:
                    self._owe(key, error)
                    break
                self._owed.discard(key)
            await asyncio.sleep(OWED_RETRY)

    async def _store_owed(self, key: str, client: AsyncSeatClient) -> None:
        if self.shared is None:
            return
        try:
            signed = await asyncio.to_thread(self.local.manifest, key)
            if (await client.engines.get(key)).manifest != signed:
                return
        except (EngineError, core.EngineNotFound):
            return
        if await asyncio.to_thread(_has, self.shared, signed):
            return
        with ExitStack() as stack:
            engine = await asyncio.to_thread(stack.enter_context, self.local.open(key))
            await asyncio.to_thread(self.shared.publish, signed, engine.path)
        logger.info("stored", extra={"key": key})

    def _owe(self, key: str, error: Exception) -> None:
        self._owed.add(key)
        about = {"key": key, "error": str(error), "retry_in_s": OWED_RETRY}
        logger.warning("store_failed", extra=about)


def _whole(store: EngineStore, key: str) -> build_pb2.SignedManifest | None:
    try:
        with store.open(key) as engine:
            return engine.signed_manifest
    except EngineError:
        return None


def _is_here(store: EngineStore, signed: build_pb2.SignedManifest) -> bool:
    """Return whether this very engine is in the folder; its bytes are checked when it is opened."""
    try:
        manifest = verify_manifest(signed, signed.public_key)
        return store.manifest(manifest.key) == signed
    except EngineError:
        return False


def _has(shared: ArtifactStore, signed: build_pb2.SignedManifest) -> bool:
    manifest = verify_manifest(signed, signed.public_key)
    try:
        return shared.manifest(manifest.key)[0] == signed and shared.has_bytes(manifest.file)
    except EngineError:
        return False


def _copied(
    shared: ArtifactStore, local: EngineStore, signed: build_pb2.SignedManifest
) -> None:
    """Copy an engine from the store; what is damaged there is not copied."""
    manifest = verify_manifest(signed, signed.public_key)
    draft = local.staging / f"copy-{secrets.token_hex(8)}"
    try:
        with create_file(draft) as file:
            size = 0
            for chunk in shared.read(manifest.file):
                size += len(chunk)
                if size > manifest.file.size_bytes:
                    raise EngineDamaged(f"{shared.shown} has too many bytes of {manifest.key}")
                file.write(chunk)
        local.publish(signed, draft)
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise DiskFull(f"no room for a copy of engine {manifest.key}") from error
        raise
    finally:
        draft.unlink(missing_ok=True)
