"""``seatkeeper engines``: what has been built."""

from __future__ import annotations

import asyncio
import hashlib
import string
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seatkeeper.artifacts.manifest import verify_engine_file
from seatkeeper.cli import completion, engine_bench, engine_bundles, engine_check, engine_store
from seatkeeper.cli.command import connected
from seatkeeper.cli.connection import Connection
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
    write_json,
)
from seatkeeper.core.amounts import size
from seatkeeper.core.text import path_in_json
from seatkeeper.v1 import build_pb2
from seatkeeper.v1 import engine_service_pb2 as pb

if TYPE_CHECKING:
    from seatkeeper.client import AsyncSeatClient

KEY_CHARS = 64
PREFIX_CHARS_MIN = 6
SHOWN_CHARS = 16

app = typer.Typer(
    help="List, fetch, verify and keep published engines. None of it needs a seat.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

app.command(epilog=engine_bench.BENCH_EXAMPLES)(engine_bench.bench)

KEY_HELP = f"The engine's key, or its first {PREFIX_CHARS_MIN} characters or more."


app.command(epilog=engine_store.PULL_EXAMPLES)(engine_store.pull)
app.command(epilog=engine_store.PUSH_EXAMPLES)(engine_store.push)
app.command(epilog=engine_store.PIN_EXAMPLES)(engine_store.pin)
app.command(epilog=engine_store.UNPIN_EXAMPLES)(engine_store.unpin)
app.command(epilog=engine_store.GC_EXAMPLES)(engine_store.gc)
app.command(epilog=engine_bundles.EXPORT_EXAMPLES)(engine_bundles.export)
app.command("import", epilog=engine_bundles.IMPORT_EXAMPLES)(engine_bundles.import_)
app.command(epilog=engine_check.CHECK_EXAMPLES)(engine_check.check)


@app.command(
    "list",
    epilog=examples(
        "seatkeeper engines list", "seatkeeper engines list --store s3://bucket/engines"
    ),
)
@connected
async def list_(at: Connection, store: engine_store.StoreOption = None) -> None:
    """List every published engine; with --store, those of a store, and ask no node."""
    if store is not None:
        await asyncio.to_thread(engine_store.list_store, store, as_json=at.json)
        return
    async with at.client() as client:
        engines = [engine async for engine in client.engines.list()]
    manifests = [_manifest(engine) for engine in engines]
    if at.json:
        listed = [
            engine_json(manifest) | {"addresses": list(engine.addresses)}
            for engine, manifest in zip(engines, manifests, strict=True)
        ]
        write_json({"engines": listed})
        return
    if not engines:
        say("no engine is published yet; `seatkeeper build MODEL.onnx` makes one")
        return
    show(
        table(
            ("key", "model", "backend", "targets", ">size", ">age", ">fence", "at"),
            [
                (
                    manifest.key[:SHOWN_CHARS],
                    manifest.model_name,
                    manifest.options.backend,
                    " ".join(manifest.options.targets),
                    size(manifest.file.size_bytes),
                    since(manifest.built_at),
                    str(manifest.fence),
                    " ".join(engine.addresses) or "nowhere now",
                )
                for engine, manifest in zip(engines, manifests, strict=True)
            ],
        )
    )


@app.command(
    epilog=examples(
        "seatkeeper engines get 0123456789ab --output model.engine --manifest model.manifest"
    )
)
@connected
async def get(
    at: Connection,
    key: Annotated[
        str, typer.Argument(metavar="KEY", help=KEY_HELP, autocompletion=completion.engines)
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to put the engine; -: on standard output.",
            parser=written,
        ),
    ],
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--manifest",
            metavar="FILE",
            help="Where to put its signed manifest, as a JWS if it ends in .jws; -: standard output.",
            parser=written,
        ),
    ] = None,
) -> None:
    """Fetch an engine, and verify it on the way: FILE is whole and true, or not there at all.

    FILE keeps its mode and owner where there is one. A device or a pipe, such as /dev/stdout, stays
    what it is and gets the bytes; then what is said goes to standard error.
    """
    places = outputs_at(
        {"--output": output, "--manifest": manifest}, inputs={}, as_json=at.json
    )
    async with at.client() as client:
        engine = await find_engine(client, key)
        fetched = await client.fetch(_manifest(engine).key, output)
    if manifest is not None:
        engine_store.write_manifest(places["--manifest"], manifest, engine.manifest)
    engine_store.warn_if_unproven(fetched, as_json=at.json)
    if at.json:
        write_json(engine_json(fetched) | {"path": path_in_json(output)})
        return
    aside = any(place.is_standard_output for place in places.values())
    show(facts([("file", str(output)), *engine_facts(fetched)]), aside=aside)


@app.command(
    epilog=examples(
        "seatkeeper engines verify model.engine",
        "seatkeeper engines verify model.engine --manifest model.manifest",
    )
)
@connected
async def verify(
    at: Connection,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The engine.")],
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="[KEY]",
            help="The key it must have been built as.",
            autocompletion=completion.engines,
        ),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--manifest", metavar="FILE", help="Signed manifest to check against, offline."
        ),
    ] = None,
    signer: Annotated[
        str | None,
        typer.Option(
            "--signer", metavar="HEX", help="Public key that must have signed the manifest."
        ),
    ] = None,
) -> None:
    """Verify that a file is a published engine; exit 65 and say why when it is not.

    Asks the catalogue: for KEY, or else for any engine with these bytes. With --manifest it asks
    no node; then the signature shows that the manifest is unchanged, and only --signer shows whose
    it is (`seatkeeper status --json` has the public keys of live agents).
    """
    if manifest is not None and key is not None:
        fail(Exit.USAGE, "give KEY or --manifest, not both")
    if not file.is_file():
        fail(Exit.NOT_FOUND, f"{file}: {'not a file' if file.exists() else 'no such file'}")
    if manifest is not None and manifest.suffix == engine_store.JWS_SUFFIX:
        if signer is None:
            fail(Exit.USAGE, "a JWS does not have its signer's key: give --signer")
        trusted = _public_key(signer)
        checked = await asyncio.to_thread(engine_store.verify_by_jws, file, manifest, trusted)
    else:
        if manifest is not None:
            signed = engine_store.read_manifest(manifest)
        else:
            async with at.client() as client:
                found = await (
                    find_engine(client, key) if key else _with_bytes_of(client, file)
                )
            signed = found.manifest
        trusted = signed.public_key if signer is None else _public_key(signer)
        checked = await asyncio.to_thread(verify_engine_file, file, signed, trusted)
    if at.json:
        shown = {"verified": True, "path": path_in_json(file), "signer": trusted.hex()}
        write_json(shown | engine_json(checked))
    else:
        shown_facts = [("verified", str(file)), ("signer", trusted.hex())]
        show(facts([*shown_facts, *engine_facts(checked)]))


async def find_engine(client: AsyncSeatClient, key: str) -> pb.PublishedEngine:
    """Return the engine of a key, or of the beginning of one."""
    if len(key) == KEY_CHARS:
        return await client.engines.get(key)
    if len(key) < PREFIX_CHARS_MIN or not set(key) <= set(string.hexdigits.lower()):
        fail(
            Exit.USAGE,
            f"{key!r} is not a key: give {KEY_CHARS} hexadecimal digits, or the first "
            f"{PREFIX_CHARS_MIN} or more; `seatkeeper engines list` shows them",
        )
    found: list[pb.PublishedEngine] = []
    async for engine in client.engines.list(after=key):
        if not _manifest(engine).key.startswith(key):
            break
        found.append(engine)
    if not found:
        fail(
            Exit.NOT_FOUND,
            f"no engine's key begins with {key}; `seatkeeper engines list` shows what there is",
        )
    if len(found) > 1:
        fail(Exit.USAGE, f"{len(found)} engines' keys begin with {key}: give more of it")
    return found[0]


async def _with_bytes_of(client: AsyncSeatClient, file: Path) -> pb.PublishedEngine:
    digest = await asyncio.to_thread(_sha256, file)
    async for engine in client.engines.list():
        if _manifest(engine).file.sha256 == digest:
            break
    else:
        fail(Exit.REFUSED, f"{file}: no published engine has these bytes (SHA-256 {digest})")
    return engine


def _manifest(engine: pb.PublishedEngine) -> build_pb2.EngineManifest:
    # Only shown or looked up here; fetching and verifying check the signature.
    return build_pb2.EngineManifest.FromString(engine.manifest.manifest)


def _public_key(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        fail(Exit.USAGE, "--signer is not hexadecimal; `seatkeeper status --json` has the keys")


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
