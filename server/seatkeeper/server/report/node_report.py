"""What one node says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from google.protobuf.duration_pb2 import Duration

from seatkeeper.server.deployment.deployment import Deployment
from seatkeeper.server.domain import Instant
from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.identity import Authorizer, Right
from seatkeeper.server.report.certificate_expiry import certificates
from seatkeeper.server.routing.membership import Membership
from seatkeeper.server.telemetry.tally import Tally
from seatkeeper.v1 import cluster_service_pb2 as pb


@dataclass(frozen=True, slots=True)
class NodeVersion:
    """What a node is."""

    node_id: str
    version: str
    store: str
    store_version: str
    store_warnings: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class NodeReporter:
    """Says how this node is."""

    version: NodeVersion
    clock: Clock
    tally: Tally
    address: str
    """Where clients and other nodes reach it."""
    membership: Membership | None = None
    """None: it is alone."""
    certificate_files: Mapping[str, Path]
    """By the settings that name them."""
    deployment: Deployment | None = None
    authorizer: Authorizer | None = None
    """None: it is for one program's tests, and does not ask who calls."""
    store_trouble: Callable[[], str] = field(init=False, default=str)
    """Says why nothing is served from the store; empty: it is."""
    started_at: Instant = field(init=False)

    def __post_init__(self) -> None:
        self.started_at = self.clock.now()

    @property
    def deployment_id(self) -> str:
        """The service that it serves."""
        return "" if self.deployment is None else self.deployment.id

    def report(self) -> pb.NodeReport:
        """Return how this node is now."""
        report = pb.NodeReport(
            node_id=self.version.node_id,
            address=self.address,
            version=self.version.version,
            tls="tls_cert_file" in self.certificate_files,
            certificates=certificates(self.certificate_files),
            work=self._work(),
            access=self._access(),
            deployment_id=self.deployment_id,
            store_trouble=self.store_trouble(),
        )
        report.started_at.FromMilliseconds(self.started_at)
        report.clock.FromMilliseconds(self.clock.now())
        if self.membership is None:
            report.ring.append(self.version.node_id)
        else:
            report.ring.extend(self.membership.ring.addresses)
            report.silent.extend(sorted(self.membership.silent))
        return report

    def _access(self) -> pb.NodeAccess:
        authorizer = self.authorizer
        if authorizer is None:
            return pb.NodeAccess()
        return pb.NodeAccess(
            asks_for_certificates=authorizer.asks_for_certificates,
            administrators=authorizer.count(Right.ADMINISTRATOR),
            agents=authorizer.count(Right.AGENT),
            names_digest=authorizer.digest(),
            is_open_to_anybody=authorizer.is_open_to_anybody,
        )

    def _work(self) -> pb.NodeWork:
        tally = self.tally
        return pb.NodeWork(
            commits=tally.commits,
            commands=tally.commands,
            commit_p50=_duration(tally.commit_time(0.5)),
            commit_p99=_duration(tally.commit_time(0.99)),
            conflicts=tally.conflicts,
            outcomes_unknown=tally.outcomes_unknown,
            store_failures=tally.store_failures,
            forwarded=tally.commands_forwarded,
            forward_failures=tally.forward_failures,
            relists=tally.relists,
            streams=tally.streams,
        )


def _duration(length: timedelta | None) -> Duration | None:
    if length is None:
        return None
    duration = Duration()
    duration.FromTimedelta(length)
    return duration
