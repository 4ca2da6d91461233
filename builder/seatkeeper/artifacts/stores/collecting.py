"""Removes bytes that no engine has any more.

Theory of operation
-------------------
Bytes are stored before the manifest that names them, and are still being fetched after it has been
replaced. So a collection removes nothing that it finds unreferenced for the first time: it marks it,
and removes it when it is still unreferenced a grace of at least 24 hours later, counted by the
store's own clock from the mark. Who stores bytes removes their mark and uploads them again, and looks
whether they are there once the manifest is. Blobs are listed before manifests, so what is published
meanwhile is either not listed or found to be referenced.

What is never removed: bytes that a manifest or a pin names; anything while a manifest cannot be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from seatkeeper.artifacts.errors import EngineNotFound
from seatkeeper.artifacts.stores.artifact_store import ArtifactStore
from seatkeeper.artifacts.stores.objects import Found

GRACE_MIN = timedelta(hours=24)
CLOCK = "probes/" + "c" * 64
"""Written to see what time the store has."""


@dataclass(frozen=True)
class Decision:
    """What becomes of each blob that no engine has, by its hash."""

    mark: tuple[str, ...]
    """Found for the first time."""
    unmark: tuple[str, ...]
    """Has been found before, and is referenced again or gone."""
    wait: tuple[str, ...]
    """Has been found before, not long enough ago."""
    remove: tuple[str, ...]


@dataclass(frozen=True)
class Collected:
    """What a collection has found and done."""

    engines: int
    """That stay."""
    dropped: tuple[str, ...]
    """Keys of engines that were too old."""
    removed: tuple[str, ...]
    """Hashes of the bytes that were removed."""
    removed_bytes: int
    waiting: tuple[str, ...]
    """Hashes of unreferenced bytes that are not removed yet."""
    waiting_bytes: int
    missing: tuple[str, ...]
    """Keys of engines whose bytes are not there; no collection did that: push them again."""


def decide(
    blobs: Mapping[str, Found],
    marks: Mapping[str, Found],
    referenced: set[str],
    now: datetime,
    grace: timedelta,
) -> Decision:
    """Decide what becomes of each blob at ``now``; ``grace`` is no less than ``GRACE_MIN``."""
    assert grace >= GRACE_MIN
    unreferenced = sorted(set(blobs) - referenced)
    known = [each for each in unreferenced if each in marks]
    ripe = [each for each in known if marks[each].modified_at <= now - grace]
    return Decision(
        mark=tuple(each for each in unreferenced if each not in marks),
        unmark=tuple(sorted(set(marks) - set(unreferenced))),
        wait=tuple(each for each in known if each not in ripe),
        remove=tuple(ripe),
    )


def time_of(store: ArtifactStore) -> datetime:
    """Return what time the store has."""
    store.objects.put(CLOCK, b"when this was written is what time it is\n")
    found = store.objects.find(CLOCK)
    assert found is not None
    return found.modified_at


def collect(
    store: ArtifactStore,
    now: datetime,
    *,
    grace: timedelta = GRACE_MIN,
    engines_older_than: timedelta | None = None,
    dry_run: bool = False,
) -> Collected:
    """Remove what has been unreferenced for ``grace``; mark what is for the first time.

    With ``engines_older_than``, engines that were built longer ago and are not pinned are dropped
    first: their bytes become unreferenced now. Raises ``EngineDamaged`` or ``ManifestUntrusted``, and
    removes nothing, when a manifest cannot be read.
    """
    blobs = _by_hash(store, "blobs")
    marks = _by_hash(store, "unreferenced")
    pins = store.pins()
    referenced, dropped, missing, engines = set(pins.values()), [], [], 0
    for key in store.engines():
        try:
            _, manifest = store.manifest(key)
        except EngineNotFound:  # dropped meanwhile
            continue
        built_at = manifest.built_at.ToDatetime(tzinfo=now.tzinfo)
        if (
            engines_older_than is not None
            and key not in pins
            and built_at < now - engines_older_than
        ):
            dropped.append(key)
            continue
        engines += 1
        referenced.add(manifest.file.sha256)
        if not store.has_bytes(manifest.file):
            missing.append(key)
    decision = decide(blobs, marks, referenced, now, grace)
    if not dry_run:
        _execute(store, decision, dropped)
    waiting = (*decision.mark, *decision.wait)
    return Collected(
        engines=engines,
        dropped=tuple(dropped),
        removed=decision.remove,
        removed_bytes=sum(blobs[each].size_bytes for each in decision.remove),
        waiting=waiting,
        waiting_bytes=sum(blobs[each].size_bytes for each in waiting),
        missing=tuple(missing),
    )


def _execute(store: ArtifactStore, decision: Decision, dropped: list[str]) -> None:
    for key in dropped:
        store.objects.delete(f"manifests/{key}")
        for kind in ("inputs", "expected"):
            store.objects.delete(f"{kind}/{key}.npz")
    for sha256 in decision.unmark:
        store.objects.delete(f"unreferenced/{sha256}")
    for sha256 in decision.mark:
        store.objects.put(f"unreferenced/{sha256}", b"no manifest names these bytes\n")
    for sha256 in decision.remove:
        # A look just before: who stores these bytes now has removed the mark.
        if store.objects.find(f"unreferenced/{sha256}") is not None:
            store.objects.delete(f"blobs/{sha256}")
            store.objects.delete(f"unreferenced/{sha256}")


def _by_hash(store: ArtifactStore, folder: str) -> dict[str, Found]:
    return {found.name.rpartition("/")[2]: found for found in store.objects.list(folder)}
