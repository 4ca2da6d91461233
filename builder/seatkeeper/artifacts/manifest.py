"""What is known of a published engine, signed so that it can be checked wherever it is copied."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from seatkeeper.artifacts.bundle import ExternalFile, model_hash
from seatkeeper.artifacts.errors import AgentKeyUnusable, EngineDamaged, ManifestUntrusted
from seatkeeper.artifacts.model_shape import ModelShape
from seatkeeper.artifacts.plan import BuildPlan, engine_key, plan_to_options
from seatkeeper.artifacts.precision_report import PrecisionReport, report_message
from seatkeeper.core.jws import JWS_MAX, MANIFEST_KIND, JwsInvalid, sign_jws, verify_jws
from seatkeeper.v1 import build_pb2

# cryptography is imported where it is used: `seatkeeper.core.tokens` says why.
if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PUBLIC_KEY_BYTES = 32
MANIFEST_BYTES_MAX = 1 << 20
CHUNK_BYTES = 1 << 20

_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)


class AgentKey:
    """The key with which an agent signs its manifests."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        self.public_key = private_key.public_key().public_bytes_raw()
        """32 raw bytes, as the catalogue carries them."""

    @classmethod
    def generate(cls) -> AgentKey:
        """Return a new key that is stored nowhere."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load_or_create(cls, path: Path) -> AgentKey:
        """Return the key in the PEM file ``path``, made with mode 0600 if there is none.

        Two processes that come at once get the same key. Raises ``AgentKeyUnusable`` for a file
        that is no Ed25519 key, or that other users can read or write.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if not path.exists():
            _create_key_file(path)
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise AgentKeyUnusable(f"{path.name} is open to other users")
            pem = file.read(MANIFEST_BYTES_MAX)
        try:
            private_key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise AgentKeyUnusable(f"{path.name} is not a PEM key") from error
        if not isinstance(private_key, Ed25519PrivateKey):
            raise AgentKeyUnusable(f"{path.name} is not an Ed25519 key")
        return cls(private_key)

    def sign(self, manifest: build_pb2.EngineManifest) -> build_pb2.SignedManifest:
        """Return the manifest with this key's signature over its exact bytes, and as a JWS."""
        serialised = manifest.SerializeToString(deterministic=True)
        jws = sign_jws(_in_json(manifest), self._private_key, kind=MANIFEST_KIND)
        return build_pb2.SignedManifest(
            manifest=serialised,
            signature=self._private_key.sign(serialised),
            public_key=self.public_key,
            jws=jws if len(jws) <= JWS_MAX else "",
        )


@dataclass(frozen=True, kw_only=True)
class SourceModel:
    """The model that an engine was built of."""

    sha256: str
    name: str
    """Its file's name. Folders in it are not published."""
    files: tuple[ExternalFile, ...] = ()
    """What it keeps outside that file."""
    size_bytes: int = 0
    """Of the model's own file; needed only where there are others."""


@dataclass(frozen=True, kw_only=True)
class BuildCosts:
    """What a build took, and of what: later ones are estimated by it."""

    shape: ModelShape
    peak_memory_bytes: int
    """Most memory of the host that the worker was seen to have."""
    convert_time: timedelta
    """Of the build's time, what converting and comparing took."""
    seat_time: timedelta = timedelta(0)
    """From the claim of the seat until the engine was signed."""
    processors: int = 0
    """Of the host."""


@dataclass(frozen=True, kw_only=True)
class BuiltEngineFile:
    """The compiler's output, and how it came to be."""

    sha256: str
    size_bytes: int
    backend_version: str
    built_at: datetime
    """Must know its time zone."""
    build_time: timedelta
    precision: PrecisionReport | None = None
    """What became of the model's precision; None: it was compiled as it was."""
    costs: BuildCosts | None = None
    """None: not measured."""
    conversion: str = ""
    """What converted the model, where its key has it."""


@dataclass(frozen=True, kw_only=True)
class SeatUsed:
    """The grant under which an engine was built, as the service signed it."""

    pool: str
    grant_id: str
    fence: int
    holder: str
    project: str


def build_manifest(
    plan: BuildPlan, model: SourceModel, engine: BuiltEngineFile, seat: SeatUsed, agent_id: str
) -> build_pb2.EngineManifest:
    """Return what is known of an engine that was just built.

    The key is computed here, so a manifest never carries another key than its contents have.
    """
    assert engine.built_at.tzinfo is not None
    hashed = model_hash(model.sha256, model.files)
    timestamp = Timestamp()
    timestamp.FromDatetime(engine.built_at)
    manifest = build_pb2.EngineManifest(
        key=engine_key(hashed, plan, engine.backend_version, engine.conversion),
        file=build_pb2.EngineFile(sha256=engine.sha256, size_bytes=engine.size_bytes),
        model_sha256=model.sha256,
        model_name=re.split(r"[/\\]", model.name)[-1],
        options=plan_to_options(plan),
        backend_version=engine.backend_version,
        agent_id=agent_id,
        pool=seat.pool,
        grant_id=seat.grant_id,
        fence=seat.fence,
        holder=seat.holder,
        project=seat.project,
        built_at=timestamp,
        build_millis=engine.build_time // timedelta(milliseconds=1),
        conversion=engine.conversion if plan.precision.is_conversion else "",
    )
    if engine.precision is not None:
        manifest.precision.CopyFrom(report_message(engine.precision))
    if model.files:
        manifest.bundle.sha256 = hashed
        manifest.bundle.files = len(model.files)
        manifest.bundle.size_bytes = model.size_bytes + sum(f.size_bytes for f in model.files)
    if engine.costs is not None:
        manifest.stats.CopyFrom(_stats_message(engine.costs))
    return manifest


def _stats_message(costs: BuildCosts) -> build_pb2.BuildStats:
    milli = timedelta(milliseconds=1)
    return build_pb2.BuildStats(
        nodes=costs.shape.nodes,
        weight_bytes=costs.shape.weight_bytes,
        model_bytes=costs.shape.model_bytes,
        peak_memory_bytes=costs.peak_memory_bytes,
        convert_millis=costs.convert_time // milli,
        seat_millis=costs.seat_time // milli,
        processors=costs.processors,
    )


def verify_manifest(
    signed: build_pb2.SignedManifest, public_key: bytes
) -> build_pb2.EngineManifest:
    """Return the manifest, if ``public_key`` signed exactly these bytes.

    ``public_key`` comes from the catalogue, never from ``signed``. Raises ``ManifestUntrusted``
    for another key, a signature that does not hold, or bytes that are no manifest.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if signed.public_key != public_key:
        raise ManifestUntrusted("the manifest was signed with another key")
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise ManifestUntrusted(f"a public key of {len(public_key)} bytes is no Ed25519 key")
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signed.signature, signed.manifest)
        manifest = build_pb2.EngineManifest.FromString(signed.manifest)
    except InvalidSignature as error:
        raise ManifestUntrusted("the manifest's signature does not hold") from error
    except (DecodeError, ValueError) as error:
        raise ManifestUntrusted("what was signed is no manifest") from error
    _check_names_engine(manifest)
    if signed.jws:
        other = verify_jws_manifest(signed.jws, public_key)
        if (other.key, other.file) != (manifest.key, manifest.file):
            raise ManifestUntrusted("the manifest's JWS is that of another engine")
    return manifest


def verify_jws_manifest(text: str, public_key: bytes) -> build_pb2.EngineManifest:
    """Return the manifest that a JWS is, if ``public_key`` signed it. Raises ``ManifestUntrusted``.

    Fields that this version does not know are left out.
    """
    if len(text) > MANIFEST_BYTES_MAX:
        raise ManifestUntrusted(f"a manifest has at most {MANIFEST_BYTES_MAX} bytes")
    try:
        payload = verify_jws(text.strip(), public_key, kind=MANIFEST_KIND)
        manifest = json_format.Parse(
            payload, build_pb2.EngineManifest(), ignore_unknown_fields=True
        )
    except JwsInvalid as error:
        raise ManifestUntrusted(f"the manifest's JWS is not to be trusted: {error}") from error
    except (json_format.ParseError, ValueError, RecursionError) as error:
        raise ManifestUntrusted("what was signed is no manifest") from error
    _check_names_engine(manifest)
    return manifest


def _check_names_engine(manifest: build_pb2.EngineManifest) -> None:
    if not (_HEX.fullmatch(manifest.key) and _HEX.fullmatch(manifest.file.sha256)):
        raise ManifestUntrusted("the manifest names no engine")


def _in_json(manifest: build_pb2.EngineManifest) -> bytes:
    fields = json_format.MessageToDict(manifest, preserving_proto_field_name=True)
    return json.dumps(fields, separators=(",", ":"), sort_keys=True).encode()


def verify_engine_file(
    path: Path, signed: build_pb2.SignedManifest, public_key: bytes
) -> build_pb2.EngineManifest:
    """Return the manifest, if the file is the engine that ``public_key`` signed for.

    Raises ``ManifestUntrusted`` for the manifest and ``EngineDamaged`` for the file. Reads the
    file in chunks; a later change of it is not seen.
    """
    manifest = verify_manifest(signed, public_key)
    with path.open("rb") as file:
        check_engine_bytes(file, manifest.file)
    return manifest


class Readable(Protocol):
    """Anything with bytes to read."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, at most ``size``; none at the end."""


def check_engine_bytes(file: Readable, expected: build_pb2.EngineFile) -> None:
    """Raise ``EngineDamaged`` unless the rest of ``file`` is what ``expected`` says."""
    digest, size_bytes = hashlib.sha256(), 0
    while chunk := file.read(CHUNK_BYTES):
        size_bytes += len(chunk)
        if size_bytes > expected.size_bytes:
            break
        digest.update(chunk)
    if size_bytes != expected.size_bytes:
        relation = "more" if size_bytes > expected.size_bytes else f"{size_bytes} bytes, fewer"
        raise EngineDamaged(
            f"the engine has {relation} than the {expected.size_bytes} it should"
        )
    if digest.hexdigest() != expected.sha256:
        raise EngineDamaged(f"the engine's bytes do not hash to {expected.sha256}")


def _create_key_file(path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(
            os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"
        ) as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        # A link fails where the name is taken, a rename would replace another process's key.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)
