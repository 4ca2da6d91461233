"""A node's configuration: read from file, environment and flags, and checked, once."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings

from seatkeeper.core.address import Address, parse_address
from seatkeeper.core.serving.settings import (
    ConfigError,
    check_advertised,
    check_endpoints,
    check_listen,
    check_readable,
    load_settings,
    settings_of,
)
from seatkeeper.server.identity import ANONYMOUS, parse_names

__all__ = ["ConfigError", "NodeConfig", "load_config"]


class NodeConfig(BaseSettings):
    """The settings of one node.

    Each can be given in the file as ``name``, in the environment as ``SEATKEEPER_NAME``, or as the
    flag ``--name``; a flag wins over the environment, and that over the file.
    """

    model_config = settings_of("SEATKEEPER_")

    node_id: str = Field(
        default_factory=lambda: f"{socket.gethostname().lower()[:40]}-{uuid.uuid4().hex[:8]}",
        pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$",
        description="Unique among live nodes.",
    )
    listen: str = Field(
        default="127.0.0.1:7420", description="Address to serve gRPC on, host:port."
    )
    advertise: str = Field(
        default="",
        description="Address that clients and other nodes reach this at; default: listen.",
    )
    metrics_listen: str = Field(
        default="",
        description="Address to serve Prometheus metrics on, host:port; empty: do not.",
    )
    store: Literal["etcd", "memory"] = Field(
        default="etcd", description="Where state is kept; memory is for trials of one node."
    )
    etcd_endpoints: str = Field(
        default="127.0.0.1:2379", description="Addresses of etcd, host:port, comma-separated."
    )
    etcd_ca_file: Path | None = Field(default=None, description="CA of etcd's certificates.")
    etcd_cert_file: Path | None = Field(default=None, description="Certificate for etcd.")
    etcd_key_file: Path | None = Field(default=None, description="Key of that certificate.")
    etcd_username: str = Field(default="", description="User name for etcd.")
    etcd_password_file: Path | None = Field(
        default=None, description="File with the password for etcd, in its first line."
    )
    etcd_timeout: float = Field(
        default=2.0, gt=0, le=60, description="Seconds until a call to etcd is given up."
    )
    prefix: str = Field(
        default="seatkeeper",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,100}$",
        description="Prefix of all keys in the store.",
    )
    deployment: str = Field(
        default="",
        pattern=r"^[0-9a-f]{0,64}$",
        description=(
            "Id of the service that etcd must hold, as `seatkeeper doctor` shows it; empty: any, and "
            "one is made where there is none."
        ),
    )
    session_ttl: float = Field(
        default=15.0,
        ge=2,
        le=3600,
        description="Seconds that a session outlives its last renewal; clients may ask for another.",
    )
    queue_max: int = Field(
        default=10_000, ge=1, le=1_000_000, description="Maximum tickets of one pool."
    )
    holder_queue_max: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="Maximum tickets of one holder in a pool.",
    )
    holder_streams_max: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="Maximum session streams of one holder on this node; further ones are refused.",
    )
    calls_max: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="Unary calls in progress on this node above which calls for seats are refused.",
    )
    routing: Literal["owner", "local"] = Field(
        default="owner",
        description="Which node decides for a pool: its owner, or the node that receives the request.",
    )
    tls_cert_file: Path | None = Field(default=None, description="Certificate of this node.")
    tls_key_file: Path | None = Field(default=None, description="Key of that certificate.")
    tls_client_ca_file: Path | None = Field(
        default=None, description="CA of client certificates; given: clients must have one."
    )
    tls_peer_ca_file: Path | None = Field(
        default=None,
        description="CA of the nodes' certificates; default: tls_client_ca_file, or gRPC's.",
    )
    administrators: str = Field(
        default="",
        description=(
            "Clients that may change pools and drain nodes under mutual TLS: names in certificates, "
            "comma-separated, such as dns:admin.example; empty: no client."
        ),
    )
    agents: str = Field(
        default="",
        description=(
            "Clients that may register as build agents, claim and publish under mutual TLS: names as "
            "in administrators; empty: no client."
        ),
    )
    token_key_file: Path | None = Field(
        default=None,
        description="Ed25519 key (PEM) to sign tokens with; default: a new one at each start.",
    )
    start_timeout: float = Field(
        default=10.0, gt=0, le=600, description="Seconds to wait for the store at start."
    )
    drain_delay: float = Field(
        default=0.0,
        ge=0,
        le=600,
        description="Seconds to serve after SIGTERM, while balancers notice NOT_SERVING.",
    )
    stop_grace: float = Field(
        default=5.0,
        ge=0,
        le=600,
        description="Seconds that calls may take to finish after SIGTERM.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe log lines to write."
    )
    log_format: Literal["json", "text"] = Field(
        default="json", description="json: one object a line; text: for people."
    )

    @field_validator("listen", "metrics_listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        return check_listen(value) if value else value

    @field_validator("advertise")
    @classmethod
    def _check_advertise(cls, value: str) -> str:
        return check_advertised(value) if value else value

    @field_validator("etcd_endpoints")
    @classmethod
    def _check_endpoints(cls, value: str) -> str:
        return check_endpoints(value)

    @field_validator("administrators", "agents", mode="before")
    @classmethod
    def _join_names(cls, value: object) -> object:
        if isinstance(value, list):  # as TOML has lists
            if any("," in str(name) for name in value):
                raise ValueError("a name has no comma; give several as several")
            return ",".join(map(str, value))
        return value

    @field_validator("administrators", "agents")
    @classmethod
    def _check_names(cls, value: str) -> str:
        parse_names(value)
        return value

    @field_validator(
        "etcd_ca_file",
        "etcd_cert_file",
        "etcd_key_file",
        "etcd_password_file",
        "tls_cert_file",
        "tls_key_file",
        "tls_client_ca_file",
        "tls_peer_ca_file",
        "token_key_file",
    )
    @classmethod
    def _check_file(cls, value: Path | None) -> Path | None:
        return check_readable(value)

    @model_validator(mode="after")
    def _check_pairs(self) -> NodeConfig:
        for first, second in (
            ("tls_cert_file", "tls_key_file"),
            ("etcd_cert_file", "etcd_key_file"),
            ("etcd_username", "etcd_password_file"),
        ):
            if bool(getattr(self, first)) != bool(getattr(self, second)):
                raise ValueError(f"{first} and {second} go together: give both or neither")
        if _is_same_port(self.listen, self.metrics_listen):
            raise ValueError("metrics_listen has the port of listen; give it another one")
        if not self.advertise and parse_address(self.listen, port_min=0).is_everywhere:
            raise ValueError(
                f"advertise: {self.listen} is no address that others can reach this node at; say "
                "which is"
            )
        if self.tls_client_ca_file and not self.tls_cert_file:
            raise ValueError("tls_client_ca_file needs tls_cert_file and tls_key_file")
        self._check_rights()
        return self

    def _check_rights(self) -> None:
        """Raise ``ValueError`` where names could not be matched, or would not be needed."""
        for setting in ("administrators", "agents"):
            names = parse_names(getattr(self, setting))
            if self.tls_client_ca_file and ANONYMOUS in names:
                raise ValueError(
                    f"{setting}: anonymous is for nodes without tls_client_ca_file, which makes "
                    "every client show a certificate; list the names in these"
                )
            if not self.tls_client_ca_file and names - {ANONYMOUS}:
                raise ValueError(
                    f"{setting} needs tls_client_ca_file: names are those in clients' certificates"
                )

    @property
    def default_session_ttl(self) -> timedelta:
        """``session_ttl`` as a duration."""
        return timedelta(seconds=self.session_ttl)


class AdoptConfig(NodeConfig):
    """The settings of ``seatkeeper adopt``: those of a node, so that it reads the same file."""

    adopt_wait: float = Field(
        default=3600.0,
        ge=0,
        le=86_400,
        description=(
            "Seconds to wait before new grants may be made: the longest ttl of any session that may "
            "live. 0: you have stopped every holder."
        ),
    )


def _is_same_port(one: str, other: str) -> bool:
    """Return whether two addresses to listen on would be in each other's way."""
    if not one or not other:
        return False
    first, second = parse_address(one, port_min=0), parse_address(other, port_min=0)
    overlap = _host(first) == _host(second) or first.is_everywhere or second.is_everywhere
    return overlap and first.port == second.port != 0


def _host(address: Address) -> str:
    return address.host.replace("localhost", "127.0.0.1")


def load_config(file: Path | None, flags: Mapping[str, Any]) -> NodeConfig:
    """Return a node's configuration. Raises ``ConfigError``."""
    return load_settings(NodeConfig, file, flags)
