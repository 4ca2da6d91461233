"""Where etcd is and how it is called."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

PING_INTERVAL_MIN = timedelta(seconds=5)
"""etcd hangs up on a client that pings more often (its ``--grpc-keepalive-min-time`` default)."""


@dataclass(frozen=True, kw_only=True)
class EtcdConfig:
    """Where etcd is and how it is called. Raises ``ValueError`` when that cannot work."""

    endpoints: tuple[str, ...]
    """Client addresses of the members, as ``host:port``; ``http://`` and ``https://`` before them
    are understood. The first that answers is used until it fails."""
    ca_file: Path | None = None
    """Certificates that the members' certificates are checked against. Unset, with TLS on: the
    system's."""
    cert_file: Path | None = None
    """Our certificate, for ``--client-cert-auth``. Its CN is our user where etcd's
    authentication is on and no ``username`` is set."""
    key_file: Path | None = None
    """The key of ``cert_file``."""
    username: str = ""
    """etcd user; empty: none."""
    password: str = field(default="", repr=False)
    """Its password."""
    call_timeout: timedelta = timedelta(seconds=2)
    """Longest that a call takes, whatever happens meanwhile."""
    watch_silence: timedelta = timedelta(seconds=10)
    """A watch without a message for so long, after a progress request, is ended."""
    endpoint_avoided: timedelta = timedelta(seconds=5)
    """How long a member that failed is used only when no other can be reached."""
    ping_interval: timedelta = timedelta(seconds=6)
    """Time between pings on a connection with a stream. At least 5 s, or etcd hangs up."""
    ping_timeout: timedelta = timedelta(seconds=2)
    """A connection whose ping is unanswered for so long is given up."""
    list_page_keys: int = 512
    """Keys read at a time by a listing."""

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise ValueError("endpoints: name at least one, such as 127.0.0.1:2379")
        for endpoint in self.endpoints:
            host, _, port = endpoint.split("://")[-1].rpartition(":")
            if not host or not port.isdigit():
                raise ValueError(f"endpoints: {endpoint!r} is not host:port")
        if self.tls and any(endpoint.startswith("http://") for endpoint in self.endpoints):
            raise ValueError("endpoints: http:// beside https:// or TLS files")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        if self.ping_interval < PING_INTERVAL_MIN:
            raise ValueError(f"ping_interval: at least {PING_INTERVAL_MIN}, or etcd hangs up")

    @property
    def tls(self) -> bool:
        """True where an endpoint is ``https://`` or a TLS file is set."""
        return (
            self.ca_file is not None
            or self.cert_file is not None
            or any(endpoint.startswith("https://") for endpoint in self.endpoints)
        )

    @property
    def addresses(self) -> tuple[str, ...]:
        """The endpoints as ``host:port``."""
        return tuple(endpoint.split("://")[-1] for endpoint in self.endpoints)
