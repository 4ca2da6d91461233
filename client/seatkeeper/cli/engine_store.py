"""``seatkeeper engines pull``, ``push``, ``pin``, ``unpin`` and ``gc``: the store that agents share."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seatkeeper.artifacts.errors import EngineDamaged, EngineNotFound, ManifestUntrusted
from seatkeeper.artifacts.manifest import (
    MANIFEST_BYTES_MAX,
    check_engine_bytes,
    verify_engine_file,
    verify_jws_manifest,
)
from seatkeeper.artifacts.trust import check_signer, trusted_key
from seatkeeper.cli import completion
from seatkeeper.cli.command import connected
from seatkeeper.cli.connection import Connection, Json
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.files import outputs_at, written
from seatkeeper.cli.render import (
    engine_facts,
    engine_json,
    facts,
    say,
    show,
    since,
    table,
    write_event,
    write_json,
)
from seatkeeper.core.amounts import size
from seatkeeper.core.text import path_in_json
from seatkeeper.v1 import build_pb2

if TYPE_CHECKING:
    from seatkeeper.artifacts.stores.artifact_store import ArtifactStore
    from seatkeeper.client.builds.builds import PulledEngine
    from seatkeeper.client.builds.output import Output

PREFIX_CHARS_MIN = 6
SHOWN_CHARS = 16
JWS_SUFFIX = ".jws"
HOURS_MIN = 24

PULL_EXAMPLES = examples(
    "seatkeeper engines pull 0123456789ab -o model.engine --store s3://bucket/engines",
    "seatkeeper engines pull 0123456789ab -o model.engine",
)
PUSH_EXAMPLES = examples(
    "seatkeeper engines push --folder .seatkeeper/engines --store s3://bucket/engines",
    "seatkeeper engines push model.engine --manifest model.manifest --store s3://bucket/engines",
)
PIN_EXAMPLES = examples("seatkeeper engines pin 0123456789ab --store s3://bucket/engines")
UNPIN_EXAMPLES = examples("seatkeeper engines unpin 0123456789ab --store s3://bucket/engines")
GC_EXAMPLES = examples(
    "seatkeeper engines gc --store s3://bucket/engines --dry-run",
    "seatkeeper engines gc --store s3://bucket/engines --drop-older-than 90",
)

STORE_HELP = (
    "The store: a folder, s3://BUCKET/PREFIX, or another URL that fsspec knows. Credentials come from "
    "the environment."
)
StoreOption = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", envvar="SEATKEEPER_STORE", help=STORE_HELP),
]
Store = Annotated[
    str, typer.Option("--store", metavar="URL", envvar="SEATKEEPER_STORE", help=STORE_HELP)
]
Key = Annotated[
    str,
    typer.Argument(
        metavar="KEY",
        help=f"The engine's key, or its first {PREFIX_CHARS_MIN} characters or more.",
        autocompletion=completion.engines,
    ),
]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        metavar="KEY",
        help="Public key that the engine must be signed with: its 64 digits, or a file with them or "
        "in PEM. May be repeated.",
    ),
]


@connected
async def pull(
    at: Connection,
    key: Key,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where to put the engine.", parser=written
        ),
    ],
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--manifest",
            metavar="FILE",
            help="Where to put its signed manifest; as a JWS if it ends in .jws.",
            parser=written,
        ),
    ] = None,
    store: StoreOption = None,
    trust: Trust = None,
) -> None:
    """Fetch an engine for a machine that runs it; call it again to resume what was cut off.

    From a store it needs no node and no agent. What has arrived lies beside FILE; FILE is replaced at
    once, by bytes whose hash and signature are right. When it is this engine already, nothing is
    transferred. Without --trust, the signature shows that the engine is as an agent published it to
    that store; with it, which agents.
    """
    places = outputs_at(
        {"--output": output, "--manifest": manifest}, inputs={}, as_json=at.json
    )
    trusted = [trusted_key(each) for each in trust or ()]
    if store is not None:
        pulled = await asyncio.to_thread(
            _pull_from_store, opened_store(store), key, places["--output"], trusted
        )
    else:
        from seatkeeper.cli.engines import find_engine

        async with at.client() as client:
            found = await find_engine(client, key)
            if trusted:
                check_signer(found.manifest, trusted)
            said = build_pb2.EngineManifest.FromString(found.manifest.manifest)
            pulled = await client.pull(said.key, output)
    if manifest is not None:
        write_manifest(places["--manifest"], manifest, pulled.signed_manifest)
    warn_if_unproven(pulled.manifest, as_json=at.json)
    transferred = pulled.manifest.file.size_bytes - pulled.resumed_at
    signer = pulled.signed_manifest.public_key.hex()
    if at.json:
        shown = {
            "path": path_in_json(output),
            "transferred_bytes": transferred,
            "resumed_bytes": pulled.resumed_at,
            "signer": signer,
        }
        write_json(engine_json(pulled.manifest) | shown)
        return
    amount = size(transferred) if transferred else "nothing: the file is this engine already"
    show(
        facts(
            [
                ("file", str(output)),
                ("transferred", amount),
                ("signer", signer),
                *engine_facts(pulled.manifest),
            ]
        )
    )


def _pull_from_store(
    store: ArtifactStore, key: str, to: Output, trusted: list[bytes]
) -> PulledEngine:
    signed, manifest = store.manifest(full_key(store, key))
    if trusted:
        check_signer(signed, trusted)
    return copy_from_store(store, signed, manifest, to)


def copy_from_store(
    store: ArtifactStore,
    signed: build_pb2.SignedManifest,
    manifest: build_pb2.EngineManifest,
    to: Output,
) -> PulledEngine:
    """Have an engine of a store in a file. Blocks. Raises a ``StoreError``, and what `Part` raises."""
    from seatkeeper.client.builds.builds import PulledEngine
    from seatkeeper.client.builds.part import Part, is_there
    from seatkeeper.core import errors as core

    if is_there(to, manifest.file):
        return PulledEngine(signed, manifest, resumed_at=manifest.file.size_bytes)
    with Part(to, manifest.file) as part:
        resumed_at = part.size
        for _ in range(2):  # what was cut off long ago may have become wrong
            for chunk in store.read(manifest.file, part.size):
                part.write(chunk)
            try:
                part.finish()
            except core.EngineDamaged:
                if not resumed_at:
                    raise
                resumed_at = 0
            else:
                break
        else:
            raise EngineDamaged(f"{store.shown} has other bytes than engine {manifest.key} has")
    return PulledEngine(signed, manifest, resumed_at=resumed_at)


def push(
    *,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="An engine, with --manifest.")
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option("--manifest", metavar="FILE", help="Its signed manifest.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            metavar="FOLDER",
            help="An agent's folder: push every engine that it has published.",
        ),
    ] = None,
    store: Store,
    json: Json = False,
) -> None:
    """Store engines that are on this machine: a file with its manifest, or what an agent's folder has.

    Each is checked first. What the store has already is not transferred.
    """
    if (folder is None) == (file is None) or (file is None) != (manifest is None):
        fail(Exit.USAGE, "give FILE with --manifest, or --folder")
    opened = opened_store(store, make=True)
    pushed: list[build_pb2.EngineManifest] = []
    if file is not None and manifest is not None:
        signed = read_manifest(manifest)
        pushed.append(verify_engine_file(file, signed, signed.public_key))
        opened.publish(signed, file)
    elif folder is not None:
        pushed += _push_folder(opened, folder)
    if json:
        write_json({"store": opened.shown, "engines": [engine_json(each) for each in pushed]})
        return
    for each in pushed:
        say(f"{each.key[:SHOWN_CHARS]} {each.model_name}, {size(each.file.size_bytes)}")
    say(f"stored in {opened.shown}: {engines_of(len(pushed))}")


def _push_folder(store: ArtifactStore, folder: Path) -> list[build_pb2.EngineManifest]:
    from seatkeeper.artifacts.store import EngineStore

    if not (folder / "manifests").is_dir():
        fail(Exit.NOT_FOUND, f"{folder}: no agent has engines there; see its setting `engines`")
    engines = EngineStore(folder)
    pushed = []
    for key in engines.keys():  # noqa: SIM118  # it is no mapping
        with engines.open(key) as engine:
            store.publish(engine.signed_manifest, engine.path)
            pushed.append(engine.manifest)
    return pushed


def pin(*, key: Key, store: Store, json: Json = False) -> None:
    """Keep an engine of a store, whatever `gc` is asked to drop."""
    opened = opened_store(store)
    found = full_key(opened, key)
    opened.pin(found)
    _report(json, {"key": found, "pinned": True}, f"{found} is kept")


def unpin(*, key: Key, store: Store, json: Json = False) -> None:
    """Keep an engine of a store no longer than others."""
    opened = opened_store(store)
    found = full_key(opened, key)
    opened.unpin(found)
    _report(json, {"key": found, "pinned": False}, f"{found} is kept no longer than others")


def gc(
    *,
    store: Store,
    older_than: Annotated[
        int,
        typer.Option(
            "--older-than",
            metavar="HOURS",
            min=HOURS_MIN,
            help="Remove what has been unreferenced for so long; a day or more.",
        ),
    ] = HOURS_MIN,
    drop_older_than: Annotated[
        int | None,
        typer.Option(
            "--drop-older-than",
            metavar="DAYS",
            min=1,
            help="First drop engines that were built longer ago, but not those that are pinned.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")
    ] = False,
    json: Json = False,
) -> None:
    """Remove bytes from a store that no engine has any more.

    What is found without an engine for the first time is only noted: it may just now be being
    published, or fetched. A later run removes it, a day after that at the earliest. So run it daily.
    """
    from seatkeeper.artifacts.stores.collecting import collect, time_of

    opened = opened_store(store)
    collected = collect(
        opened,
        # A dry run writes nothing, so it does not ask the store what time it is.
        datetime.now(UTC) if dry_run else time_of(opened),
        grace=timedelta(hours=older_than),
        engines_older_than=None if drop_older_than is None else timedelta(days=drop_older_than),
        dry_run=dry_run,
    )
    if json:
        write_json(
            {
                "store": opened.shown,
                "dry_run": dry_run,
                "engines": collected.engines,
                "dropped": list(collected.dropped),
                "removed": list(collected.removed),
                "removed_bytes": collected.removed_bytes,
                "waiting": list(collected.waiting),
                "waiting_bytes": collected.waiting_bytes,
                "missing": list(collected.missing),
            }
        )
    else:
        would = "would be " if dry_run else ""
        rows = [
            ("engines", f"{collected.engines} stay, {len(collected.dropped)} {would}dropped"),
            (
                "removed",
                f"{len(collected.removed)} files, {size(collected.removed_bytes)}"
                + (", in a run without --dry-run" if dry_run else ""),
            ),
            (
                "waiting",
                f"{len(collected.waiting)} files, {size(collected.waiting_bytes)}, "
                "without an engine for less than that",
            ),
        ]
        show(facts(rows))
    if collected.missing:
        fail(
            Exit.REFUSED,
            f"the bytes of {len(collected.missing)} engines are missing, the first is "
            f"{collected.missing[0]}; push them again",
        )


def list_store(address: str, *, as_json: bool) -> None:
    """List the engines of a store. Blocks."""
    store = opened_store(address)
    pins = store.pins()
    listed: list[dict[str, Any]] = []
    rows = []
    for key in store.engines():
        try:
            signed, manifest = store.manifest(key)
        except (EngineDamaged, EngineNotFound, ManifestUntrusted) as error:
            say(f"seatkeeper: {error.message}", stderr=True)
            continue
        signer = signed.public_key.hex()
        listed.append(engine_json(manifest) | {"pinned": key in pins, "signer": signer})
        rows.append(
            (
                key[:SHOWN_CHARS],
                manifest.model_name,
                manifest.options.backend,
                " ".join(manifest.options.targets),
                size(manifest.file.size_bytes),
                since(manifest.built_at),
                "pinned" if key in pins else "",
                signer[:SHOWN_CHARS],
            )
        )
    if as_json:
        write_json({"store": store.shown, "engines": listed})
    elif not rows:
        say(f"no engine is in {store.shown}")
    else:
        head = ("key", "model", "backend", "targets", ">size", ">age", "kept", "signer")
        show(table(head, rows))


def engines_of(count: int) -> str:
    """Return a number of engines in words."""
    return "1 engine" if count == 1 else f"{count} engines"


def full_key(store: ArtifactStore, key: str) -> str:
    """Return the key that begins so. Ends the command unless there is exactly one."""
    from seatkeeper.artifacts.stores.artifact_store import is_key

    if is_key(key):
        return key
    if len(key) < PREFIX_CHARS_MIN:
        fail(Exit.USAGE, f"{key!r} is no key: give its first {PREFIX_CHARS_MIN} digits or more")
    found = [each for each in store.engines() if each.startswith(key)]
    if not found:
        fail(Exit.NOT_FOUND, f"no engine's key in {store.shown} begins with {key}")
    if len(found) > 1:
        fail(Exit.USAGE, f"{len(found)} engines' keys begin with {key}: give more of it")
    return found[0]


def write_manifest(place: Output, file: Path, signed: build_pb2.SignedManifest) -> None:
    """Write a manifest in the form that the file's name asks for. Ends the command when it has none."""
    if file.suffix != JWS_SUFFIX:
        place.write(signed.SerializeToString())
        return
    if not signed.jws:
        fail(
            Exit.NOT_FOUND,
            "the agent that built this engine signed no JWS; give --manifest a file without "
            f"{JWS_SUFFIX} for the other form",
        )
    place.write(f"{signed.jws}\n".encode())


def read_manifest(file: Path) -> build_pb2.SignedManifest:
    """Return the manifest in a file. Ends the command when it is none."""
    from google.protobuf.message import DecodeError

    if file.suffix == JWS_SUFFIX:
        fail(
            Exit.USAGE, f"{file} is a JWS; give the other form, which carries its signer's key"
        )
    try:
        with file.open("rb") as opened:
            return build_pb2.SignedManifest.FromString(opened.read(MANIFEST_BYTES_MAX))
    except DecodeError:
        fail(Exit.REFUSED, f"{file} is not a manifest; `engines get --manifest` writes one")


def verify_by_jws(file: Path, jws: Path, public_key: bytes) -> build_pb2.EngineManifest:
    """Return the manifest, if it is signed with that key and the file is its engine. Blocks.

    Raises ``ManifestUntrusted`` and ``EngineDamaged``.
    """
    with jws.open("rb") as opened:
        text = opened.read(MANIFEST_BYTES_MAX).decode("ascii", errors="replace")
    manifest = verify_jws_manifest(text, public_key)
    with file.open("rb") as engine:
        check_engine_bytes(engine, manifest.file)
    return manifest


def opened_store(address: str, *, make: bool = False) -> ArtifactStore:
    """Return the store at an address. Raises ``StoreAddressInvalid``.

    ``make``: it need not be there yet. Otherwise a folder that is not there ends the command: a name
    with a mistake in it, and a disk that is not mounted, look like a store without engines.
    """
    from seatkeeper.artifacts.stores.address import StoreAddress
    from seatkeeper.artifacts.stores.artifact_store import ArtifactStore

    parsed = StoreAddress.parse(address)
    if not make and not parsed.scheme and not Path(parsed.path).is_dir():
        fail(
            Exit.NOT_FOUND,
            f"{parsed.path}: no such folder; an agent with --store makes one, and so do `engines push` "
            "and `engines import`",
        )
    return ArtifactStore.at(address)


def warn_if_unproven(manifest: build_pb2.EngineManifest, *, as_json: bool) -> None:
    """Warn on standard error of an engine whose accuracy was not measured, or with noise."""
    accuracy = manifest.precision.accuracy
    if manifest.precision.unchecked:
        why = "unchecked: it was not measured; check it where it is to run"
    elif accuracy.outputs and not accuracy.proven:
        why = "unproven: it was measured with noise; build it with --samples to prove it"
    else:
        return
    warning = (
        f"engine {manifest.key[:16]} was converted to {manifest.precision.precision}, and its accuracy "
        f"is {why}"
    )
    if as_json:
        write_event({"event": "accuracy_unproven", "warning": warning})
    else:
        say(f"seatkeeper: {warning}", stderr=True)


def _report(as_json: bool, shown: dict[str, Any], said: str) -> None:
    if as_json:
        write_json(shown)
    else:
        say(said)
