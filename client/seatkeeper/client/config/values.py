"""Settings of a client: frozen values, checked once, when they are made.

A value out of range raises `InvalidArgument` whose ``field`` is the setting's name.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

from seatkeeper.core.errors import InvalidArgument
from seatkeeper.core.typed import check_fields

_ZERO = timedelta(0)


def _check(setting: str, ok: bool, must: str) -> None:
    if not ok:
        raise InvalidArgument(f"{setting} must be {must}", field=setting)


@dataclass(frozen=True, kw_only=True)
class RenewalConfig:
    """When a session is renewed, and when a silent node is given up."""

    answer_timeout: timedelta = timedelta(seconds=2)
    """A node that leaves a renewal unanswered for so long is given up for the next one.
    At most a quarter of the lease is used, so that several nodes can be tried."""
    probe_after: timedelta = timedelta(seconds=1)
    """A node that owes an answer and has said nothing for so long is asked for a renewal, to find
    out whether it is alive."""

    def __post_init__(self) -> None:
        check_fields(self, "renewal.")
        _check("renewal.answer_timeout", self.answer_timeout > _ZERO, "over 0 s")
        _check("renewal.probe_after", self.probe_after > _ZERO, "over 0 s")


@dataclass(frozen=True, kw_only=True)
class BackoffConfig:
    """How long to wait between rounds over the nodes. Doubles, with full jitter."""

    initial: timedelta = timedelta(seconds=1)
    """Longest wait before the second round."""
    longest: timedelta = timedelta(seconds=30)
    """Longest wait of all. The holder of seats waits less when its lease is running out."""

    def __post_init__(self) -> None:
        check_fields(self, "backoff.")
        _check("backoff.initial", self.initial > _ZERO, "over 0 s")
        _check("backoff.longest", self.longest >= self.initial, "at least backoff.initial")


@dataclass(frozen=True, kw_only=True)
class BreakerConfig:
    """When a node is left alone."""

    failures_max: int = 3
    """Failures in a row that open a node's breaker."""
    open_for: timedelta = timedelta(seconds=5)
    """How long an open breaker keeps calls away before one is let through as a trial."""

    def __post_init__(self) -> None:
        check_fields(self, "breaker.")
        _check("breaker.failures_max", self.failures_max >= 1, "at least 1")
        _check("breaker.open_for", self.open_for > _ZERO, "over 0 s")


@dataclass(frozen=True, kw_only=True)
class TlsConfig:
    """Files of the client's side of TLS. Read again at every connection, so they may be renewed."""

    ca: Path | None = None
    """Certificates to trust, PEM. None: those that gRPC ships."""
    cert: Path | None = None
    """The client's certificate chain, PEM, for mutual TLS."""
    key: Path | None = None
    """The private key of ``cert``, PEM."""
    server_name: str | None = None
    """Name that the node's certificate must carry, where it is not the address's host."""

    def __post_init__(self) -> None:
        check_fields(self, "tls.")
        _check(
            "tls.cert", (self.cert is None) == (self.key is None), "given together with tls.key"
        )
        for name in ("ca", "cert", "key"):
            path = getattr(self, name)
            _check(
                f"tls.{name}", path is None or Path(path).is_file(), f"a readable file: {path}"
            )
        for name in ("ca", "cert"):
            path = getattr(self, name)
            _check(
                f"tls.{name}",
                path is None or b"-----BEGIN CERTIFICATE" in Path(path).read_bytes(),
                f"a file with a certificate in PEM: {path}",
            )
        self._try()

    def _try(self) -> None:
        """Read the files as a handshake would: gRPC says of a wrong one only that no node answers."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # How strong keys must be is for the handshake to check.
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        try:
            if self.ca is not None:
                context.load_verify_locations(self.ca)
        except OSError as error:
            raise InvalidArgument(
                f"tls.ca must be certificates in PEM: {self.ca} has one that cannot be read",
                field="tls.ca",
            ) from error
        if self.cert is None or self.key is None:
            return
        try:
            # Never asks at a terminal for a password, which gRPC could not be given.
            context.load_cert_chain(self.cert, self.key, password="")
        except OSError as error:
            raise InvalidArgument(
                f"tls.key must be the certificate's key, in PEM and without a password: {self.key} "
                f"cannot be used with {self.cert}",
                field="tls.key",
            ) from error


@dataclass(frozen=True, kw_only=True)
class ClientConfig:
    """How a client behaves. The defaults suit leases of 5 s and more."""

    ttl: timedelta | None = None
    """How long seats outlive the last renewal, from 2 s to 1 h. None: the node's default."""
    safety_margin: timedelta = timedelta(seconds=1)
    """How long before the service may free the seats the holder stops counting on them. Covers
    clocks that run at different rates and the time it takes to stop. At most a quarter of the lease
    is used."""
    connect_timeout: timedelta = timedelta(seconds=10)
    """How long the first request waits until any node answers; then `ServiceUnavailable`."""
    attempt_timeout: timedelta = timedelta(seconds=3)
    """How long one node has to accept a connection, and to answer a call that may be repeated, before
    the next is tried. Once all have been, each has twice as long to answer, and so on."""
    call_timeout: timedelta = timedelta(seconds=10)
    """How long a call waits for its answer, beyond what it may wait in the queue."""
    linger: timedelta = _ZERO
    """How long released seats are kept for the next request of this process that wants the same.
    Zero: given back at once. Kept seats are held: they are charged, and others wait for them."""
    linger_max: int = 64
    """Most grants kept by ``linger``."""
    keepalive: timedelta = timedelta(seconds=20)
    """Time between pings of an idle connection, so that balancers do not cut it off."""
    follow_ring: bool = True
    """Learn from the nodes which others there are, and go to the one that decides for the pools in
    use. Does nothing behind a load balancer; False: keep to the addresses given."""
    keeper: Literal["helper", "process"] = "helper"
    """Which process keeps the session alive, and with it the seats. "helper": a small one beside this,
    so that neither native code that holds the interpreter, nor a blocked event loop, nor a fork loses
    seats. "process": this one, where gRPC runs then. Seats are lost when the interpreter or the event
    loop is held for longer than the lease, and a forked child can use no such client. For thousands of
    clients in one process, and where no other process may be started."""
    on_loss: Literal["tell", "kill"] = "tell"
    """What happens to this process when it loses seats that it holds. "tell": it is notified, as soon
    as its interpreter is free. "kill": it gets SIGKILL at that moment, also in native code."""
    program: str | None = None
    """Name of this program, which `seatkeeper status` shows beside the host and the process id. None:
    that of the script or module that runs, without folders and arguments. Empty: none of the three
    is sent to nodes."""
    program_pid: int | None = None
    """The process id that is sent. None: this process's."""
    renewal: RenewalConfig = field(default_factory=RenewalConfig)
    """When the session is renewed, and when a silent node is given up."""
    backoff: BackoffConfig = field(default_factory=BackoffConfig)
    """How long to wait between rounds over the nodes."""
    breaker: BreakerConfig = field(default_factory=BreakerConfig)
    """When a node is left alone."""

    def __post_init__(self) -> None:
        check_fields(self)
        hour, two = timedelta(hours=1), timedelta(seconds=2)
        _check("ttl", self.ttl is None or two <= self.ttl <= hour, "from 2 s to 1 h")
        _check("safety_margin", self.safety_margin >= _ZERO, "at least 0 s")
        for name in ("connect_timeout", "attempt_timeout", "call_timeout"):
            _check(name, getattr(self, name) > _ZERO, "over 0 s")
        _check("linger", _ZERO <= self.linger <= hour, "from 0 s to 1 h")
        _check("linger_max", self.linger_max >= 1, "at least 1")
        pid = self.program_pid
        _check("program_pid", pid is None or 0 <= pid < 1 << 31, "a process id")
        # A kept seat that is lost while it is unused is no reason to kill the process.
        _check(
            "on_loss", self.on_loss == "tell" or not self.linger, '"tell" where seats linger'
        )
        # Nodes refuse connections that are pinged more often than this.
        _check("keepalive", self.keepalive >= timedelta(seconds=10), "at least 10 s")
