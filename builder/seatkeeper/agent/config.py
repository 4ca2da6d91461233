"""An agent's configuration."""

from __future__ import annotations

import socket
import uuid
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings

from seatkeeper.agent.places import memory_for_builds
from seatkeeper.artifacts.errors import StoreAddressInvalid
from seatkeeper.artifacts.stores.address import StoreAddress
from seatkeeper.core.address import parse_address
from seatkeeper.core.serving.settings import (
    check_addresses,
    check_advertised,
    check_listen,
    check_readable,
    settings_of,
)

GIB = 1 << 30


def plugin_paths(value: str) -> list[Path]:
    """Return the paths that the setting `plugins` names."""
    return [Path(part.strip()) for part in value.split(",") if part.strip()]


class AgentConfig(BaseSettings):
    """The settings of one agent.

    Each can be given in the file as ``name``, in the environment as ``SEATKEEPER_AGENT_NAME``, or as
    the flag ``--name``; a flag wins over the environment, and that over the file.
    """

    model_config = settings_of("SEATKEEPER_AGENT_")

    agent_id: str = Field(
        default_factory=lambda: f"{socket.gethostname().lower()[:40]}-{uuid.uuid4().hex[:8]}",
        pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$",
        description="Unique among live agents.",
    )
    listen: str = Field(
        default="127.0.0.1:7440", description="Address to serve gRPC on, host:port."
    )
    advertise: str = Field(
        default="", description="Address that clients reach this agent at; default: listen."
    )
    nodes: str = Field(
        default="127.0.0.1:7420", description="Addresses of nodes, host:port, comma-separated."
    )
    engines: Path = Field(
        default=Path(".seatkeeper/engines"), description="Folder to keep engines in."
    )
    store: str = Field(
        default="",
        description="Folder or URL of the store that agents share, such as s3://bucket/engines; "
        "default: none.",
    )
    pool: str = Field(default="tensorrt", description="Pool whose tokens are accepted.")
    builds_max: int = Field(
        default=2, ge=1, le=256, description="Builds that run at the same time."
    )
    model_bytes_max: int = Field(
        default=8 * GIB,
        ge=1,
        description="Largest model that is accepted, in bytes, with all files of its weights.",
    )
    upload_bytes_max: int = Field(
        default=8 * GIB,
        ge=0,
        description="Most bytes of interrupted uploads to keep for their clients; 0: none.",
    )
    upload_keep: float = Field(
        default=900.0, ge=0, description="Seconds that an interrupted upload is kept."
    )
    engine_bytes_max: int = Field(
        default=8 * GIB, ge=1, description="Largest engine that is published, in bytes."
    )
    build_memory_bytes: int = Field(
        default=16 * GIB, ge=1 << 28, description="Maximum memory of one build, in bytes."
    )
    memory_bytes: int = Field(
        default_factory=memory_for_builds,
        ge=1 << 28,
        description="Memory that builds may have together, in bytes; default: 80 % of the host's.",
    )
    memory_wait: float = Field(
        default=10.0,
        ge=0,
        le=600,
        description="Seconds that a build waits for memory before its client tries another agent.",
    )
    build_timeout: float = Field(
        default=4 * 3600.0, gt=0, description="Seconds until a build is given up."
    )
    build_cpu_time: float | None = Field(
        default=None,
        gt=0,
        description="Seconds of processor time until a build is given up; default: build_timeout on "
        "every processor.",
    )
    isolation: Literal["auto", "required", "off"] = Field(
        default="auto",
        description="Whether builds run without a network, and without sight of other processes. auto: "
        "where the kernel allows it; required: or the agent does not start.",
    )
    plugins: str = Field(
        default="",
        description="Libraries of plugins that models may use, as paths, comma-separated.",
    )
    tls_cert_file: Path | None = Field(default=None, description="Certificate of this agent.")
    tls_key_file: Path | None = Field(default=None, description="Key of that certificate.")
    tls_client_ca_file: Path | None = Field(
        default=None, description="CA of client certificates; given: clients must have one."
    )
    nodes_tls: bool = Field(
        default=False, description="Whether nodes use TLS; implied by the files below."
    )
    nodes_ca_file: Path | None = Field(
        default=None, description="CA of the nodes' certificates; without it: well-known CAs."
    )
    nodes_cert_file: Path | None = Field(default=None, description="Certificate for the nodes.")
    nodes_key_file: Path | None = Field(default=None, description="Key of that certificate.")
    register_timeout: float = Field(
        default=45.0,
        ge=0,
        le=7300,
        description="Seconds to wait at start while an earlier session still has the agent_id.",
    )
    stop_grace: float = Field(
        default=5.0,
        ge=0,
        le=24 * 3600,
        description="Seconds that builds may take to finish after SIGTERM.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe log lines to write."
    )
    log_format: Literal["json", "text"] = Field(
        default="json", description="json: one object a line; text: for people."
    )

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        return check_listen(value)

    @field_validator("advertise")
    @classmethod
    def _check_advertise(cls, value: str) -> str:
        return check_advertised(value) if value else value

    @field_validator("store")
    @classmethod
    def _check_store(cls, value: str) -> str:
        try:
            if value:
                StoreAddress.parse(value)
        except StoreAddressInvalid as error:
            raise ValueError(error.message) from None
        return value

    @field_validator("plugins")
    @classmethod
    def _check_plugins(cls, value: str) -> str:
        for path in plugin_paths(value):
            check_readable(path)
        return value

    @field_validator("nodes")
    @classmethod
    def _check_nodes(cls, value: str) -> str:
        return check_addresses(value)

    @field_validator(
        "tls_cert_file",
        "tls_key_file",
        "tls_client_ca_file",
        "nodes_ca_file",
        "nodes_cert_file",
        "nodes_key_file",
    )
    @classmethod
    def _check_file(cls, value: Path | None) -> Path | None:
        return check_readable(value)

    @model_validator(mode="after")
    def _check_pairs(self) -> AgentConfig:
        if not self.advertise and parse_address(self.listen, port_min=0).is_everywhere:
            raise ValueError(
                f"advertise: {self.listen} is no address that others can reach this agent at; say "
                "which is"
            )
        if self.tls_client_ca_file and not self.tls_cert_file:
            raise ValueError("tls_client_ca_file needs tls_cert_file and tls_key_file")
        for first, second in (
            ("tls_cert_file", "tls_key_file"),
            ("nodes_cert_file", "nodes_key_file"),
        ):
            if bool(getattr(self, first)) != bool(getattr(self, second)):
                raise ValueError(f"{first} and {second} go together: give both or neither")
        return self
