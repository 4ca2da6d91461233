"""Prometheus metrics of a node."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from seatkeeper.server.report.tally import Tally

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128)
_WAIT = (0.01, 0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)


@dataclass(frozen=True, slots=True)
class _PoolMetrics:
    """One pool's children: looking them up for each grant costs more than counting does."""

    commit_seconds: Histogram
    commit_commands: Histogram
    writes: Counter
    granted: Counter
    waited: Histogram


class MetricsObserver(Tally):
    """Counts what happens: for the node's own report, and for Prometheus."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = CollectorRegistry()
        self._pools: dict[str, _PoolMetrics] = {}
        self._commit_seconds = self._histogram(
            "commit_seconds", "Time of a commit, from sending to its answer.", _SECONDS
        )
        self._commit_commands = self._histogram(
            "commit_commands", "Commands decided in one commit.", _BATCH
        )
        self._writes = self._counter("commit_writes", "Keys written by commits.")
        self._conflicts = self._counter(
            "commit_conflicts", "Commits refused because another node had decided."
        )
        self._unknown = self._counter(
            "commit_outcomes_unknown", "Commits that the store did not answer."
        )
        self._dead = self._counter("dead_sessions", "Sessions found dead while committing.")
        self._granted = self._counter("grants", "Grants decided by this node.")
        self._waited = self._histogram(
            "grant_wait_seconds", "Time from request to grant.", _WAIT
        )
        self._store_failures = Counter(
            "seatkeeper_store_failures",
            "Commits that the store refused or could not take.",
            ["pool", "reason"],
            registry=self.registry,
        )
        self._denied = Counter(
            "seatkeeper_denials",
            "Commands refused by this node.",
            ["pool", "reason"],
            registry=self.registry,
        )
        self._relists = Counter(
            "seatkeeper_relists", "Watches that ended.", ["what"], registry=self.registry
        )
        self._capacity = self._gauge("pool_capacity", "Seats of the pool.")
        self._held = self._gauge("pool_held", "Seats held.")
        self._queued = self._gauge("pool_queued", "Tickets waiting.")
        self._forwards = self._counter(
            "forwarded_commands", "Commands passed on to the pool's owner."
        )
        self._forward_failures = self._counter(
            "forward_failures", "Times that the pool's owner did not answer."
        )
        self._nodes = Gauge("seatkeeper_nodes", "Nodes registered.", registry=self.registry)
        self._silent = Gauge(
            "seatkeeper_nodes_silent",
            "Registered nodes that do not answer this one.",
            registry=self.registry,
        )
        self._streams = Gauge(
            "seatkeeper_session_streams", "Session streams open here.", registry=self.registry
        )

    def serve(self, host: str, port: int) -> None:
        """Serve the metrics over HTTP. Raises ``OSError`` when the port is in use."""
        start_http_server(port, addr=host, registry=self.registry)

    def committed(self, pool: str, *, commands: int, writes: int, seconds: float) -> None:
        """Count a decision that took effect."""
        super().committed(pool, commands=commands, writes=writes, seconds=seconds)
        of = self._of(pool)
        of.commit_seconds.observe(seconds)
        of.commit_commands.observe(commands)
        of.writes.inc(writes)

    def conflicted(self, pool: str) -> None:
        """Count a decision made on an old view."""
        super().conflicted(pool)
        self._conflicts.labels(pool).inc()

    def outcome_unknown(self, pool: str) -> None:
        """Count a commit that was not answered."""
        super().outcome_unknown(pool)
        self._unknown.labels(pool).inc()

    def store_failed(self, pool: str, reason: str) -> None:
        """Count a commit that failed."""
        super().store_failed(pool, reason)
        self._store_failures.labels(pool, reason).inc()

    def dead_session(self, pool: str) -> None:
        """Count a session found dead."""
        self._dead.labels(pool).inc()

    def relisted(self, what: str, reason: str) -> None:
        """Count a watch that ended."""
        super().relisted(what, reason)
        self._relists.labels(what).inc()

    def granted(self, pool: str, *, waited_millis: int) -> None:
        """Count a grant."""
        of = self._of(pool)
        of.granted.inc()
        of.waited.observe(max(0, waited_millis) / 1000)

    def denied(self, pool: str, reason: str) -> None:
        """Count a refusal."""
        self._denied.labels(pool, reason).inc()

    def pool_changed(self, pool: str, *, capacity: int, held: int, queued: int) -> None:
        """Show a pool as it stands."""
        self._capacity.labels(pool).set(capacity)
        self._held.labels(pool).set(held)
        self._queued.labels(pool).set(queued)

    def forwarded(self, pool: str, *, commands: int) -> None:
        """Count commands passed on."""
        super().forwarded(pool, commands=commands)
        self._forwards.labels(pool).inc(commands)

    def forward_failed(self, pool: str) -> None:
        """Count an owner that did not answer."""
        super().forward_failed(pool)
        self._forward_failures.labels(pool).inc()

    def ring_changed(self, *, nodes: int, silent: int) -> None:
        """Show the nodes."""
        self._nodes.set(nodes)
        self._silent.set(silent)

    def stream_opened(self) -> None:
        """Count a session stream."""
        super().stream_opened()
        self._streams.inc()

    def stream_closed(self) -> None:
        """Count a session stream."""
        super().stream_closed()
        self._streams.dec()

    def _of(self, pool: str) -> _PoolMetrics:
        if (of := self._pools.get(pool)) is None:
            of = self._pools[pool] = _PoolMetrics(
                self._commit_seconds.labels(pool),
                self._commit_commands.labels(pool),
                self._writes.labels(pool),
                self._granted.labels(pool),
                self._waited.labels(pool),
            )
        return of

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"seatkeeper_{name}", text, ["pool"], registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"seatkeeper_{name}", text, ["pool"], registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(
            f"seatkeeper_{name}", text, ["pool"], buckets=buckets, registry=self.registry
        )
