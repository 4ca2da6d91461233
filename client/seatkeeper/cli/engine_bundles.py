"""``seatkeeper engines export`` and ``import``: engines in one file, for machines without a network."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seatkeeper.artifacts.trust import trusted_key
from seatkeeper.cli import completion
from seatkeeper.cli.command import connected
from seatkeeper.cli.connection import Connection, Json
from seatkeeper.cli.engine_check import check_samples
from seatkeeper.cli.engine_store import (
    SHOWN_CHARS,
    Store,
    StoreOption,
    Trust,
    engines_of,
    full_key,
    opened_store,
)
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.files import outputs_at, written
from seatkeeper.cli.render import engine_json, say, write_json
from seatkeeper.core.amounts import size
from seatkeeper.core.text import path_in_json
from seatkeeper.v1 import build_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from seatkeeper.artifacts.stores.artifact_store import ArtifactStore
    from seatkeeper.artifacts.stores.bundle import Exported
    from seatkeeper.client.builds.output import Output

CHUNK_BYTES = 1 << 20

EXPORT_EXAMPLES = examples(
    "seatkeeper engines export 0123456789ab -o engines.bundle --store s3://bucket/engines",
    "seatkeeper engines export 0123456789ab -o engines.bundle --samples inputs.npz "
    "--expected outputs.npz",
)
IMPORT_EXAMPLES = examples(
    "seatkeeper engines import engines.bundle --trust agent.pem --store /var/lib/engines"
)


@connected
async def export(
    at: Connection,
    keys: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY...",
            help="The engines' keys, or their beginnings.",
            autocompletion=completion.engines,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to put the bundle; -: on standard output.",
            parser=written,
        ),
    ],
    store: StoreOption = None,
    samples: Annotated[
        Path | None,
        typer.Option(
            "--samples",
            metavar="FILE.npz",
            help="Inputs to check the engine with where it is to run; for one KEY.",
        ),
    ] = None,
    expected: Annotated[
        Path | None,
        typer.Option(
            "--expected", metavar="FILE.npz", help="The outputs that are expected of them."
        ),
    ] = None,
) -> None:
    """Write engines into one file, with their signed manifests and their signers' public keys.

    They come from a store, or without --store from agents. With samples and the outputs expected of
    them, `seatkeeper engines check` runs the engine on the machine that it is for.
    """
    if (samples is None) != (expected is None) or (samples is not None and len(keys) > 1):
        fail(Exit.USAGE, "give --samples with --expected, and with one KEY")
    given = {"samples": samples, "expected": expected}
    inputs = {name: path for name, path in given.items() if path is not None}
    for path in inputs.values():
        if not path.is_file():
            fail(Exit.NOT_FOUND, f"{path}: no such file")
    place = outputs_at({"--output": output}, inputs=inputs, as_json=at.json)["--output"]
    if samples is not None and expected is not None:
        await asyncio.to_thread(check_samples, samples, expected)
    with tempfile.TemporaryDirectory(prefix="seatkeeper-export-") as folder:
        if store is not None:
            found = await asyncio.to_thread(_from_store, opened_store(store), keys, inputs)
        else:
            found = await _from_agents(at, keys, Path(folder), inputs)
        await asyncio.to_thread(_write, place, found)
    manifests = [build_pb2.EngineManifest.FromString(each.signed.manifest) for each in found]
    if at.json:
        shown = {"path": path_in_json(output), "with_samples": samples is not None}
        write_json(shown | {"engines": [engine_json(each) for each in manifests]})
        return
    for each, manifest in zip(found, manifests, strict=True):
        said = f"{manifest.key[:SHOWN_CHARS]} {manifest.model_name}"
        say(
            f"{said}, signed with {each.signed.public_key.hex()}",
            stderr=place.is_standard_output,
        )
    say(f"written to {output}: {engines_of(len(found))}", stderr=place.is_standard_output)


def import_(
    *,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The file.")],
    store: Store,
    trust: Trust = None,
    json: Json = False,
) -> None:
    """Import engines from a file into a store, such as a folder. Asks no service.

    All of it is checked first: names, sizes, hashes, and that one of the keys of --trust has signed
    each engine. When anything is wrong, nothing is imported.
    """
    from seatkeeper.artifacts.stores.bundle import Bundle, signers

    if not trust:
        says = ", ".join(signers(bundle)) or "no key at all"
        fail(
            Exit.USAGE,
            f"say whose signature to trust with --trust; {bundle} says it is signed with {says}",
        )
    opened = opened_store(store, make=True)
    with Bundle.open(bundle, [trusted_key(each) for each in trust]) as found:
        found.import_into(opened)
        engines = found.engines
    if json:
        shown = [engine_json(each.manifest) | {"samples": each.has_samples} for each in engines]
        write_json({"store": opened.shown, "engines": shown})
        return
    for each in engines:
        with_samples = ", with samples" if each.has_samples else ""
        amount = size(each.manifest.file.size_bytes)
        say(
            f"{each.manifest.key[:SHOWN_CHARS]} {each.manifest.model_name}, {amount}{with_samples}"
        )
    say(f"imported into {opened.shown}: {engines_of(len(engines))}")


def _write(place: Output, found: Sequence[Exported]) -> None:
    from seatkeeper.artifacts.stores.bundle import write_bundle

    with place.writer() as writer:
        write_bundle(writer, found)
        writer.finish()


def _from_store(
    store: ArtifactStore, keys: Sequence[str], samples: dict[str, Path]
) -> list[Exported]:
    from seatkeeper.artifacts.stores.bundle import Exported

    found = []
    for key in dict.fromkeys(full_key(store, key) for key in keys):
        signed, manifest = store.manifest(key)
        chunks = store.read(manifest.file)
        found.append(Exported(signed, chunks, samples.get("samples"), samples.get("expected")))
    return found


async def _from_agents(
    at: Connection, keys: Sequence[str], folder: Path, samples: dict[str, Path]
) -> list[Exported]:
    from seatkeeper.artifacts.stores.bundle import Exported
    from seatkeeper.cli.engines import find_engine

    found: dict[str, Exported] = {}
    async with at.client() as client:
        for key in keys:
            engine = await find_engine(client, key)
            said = build_pb2.EngineManifest.FromString(engine.manifest.manifest)
            path = folder / said.key
            await client.fetch(said.key, path)
            found[said.key] = Exported(
                engine.manifest, _chunks(path), samples.get("samples"), samples.get("expected")
            )
    return list(found.values())


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
