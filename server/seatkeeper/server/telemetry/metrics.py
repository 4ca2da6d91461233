"""Prometheus metrics of a node.

Counters and histograms count what happens. Gauges are not kept at all: they are computed for each
scrape from what the node follows at that moment. So the gauge of a pool, or of anything else that is
not followed any more, is gone, and none shows an old value.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from seatkeeper.core.version import seatkeeper_version
from seatkeeper.server.events.observer import Watched
from seatkeeper.server.events.usage import UsageEvent, UsageKind
from seatkeeper.server.telemetry.tally import Tally

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128)
_HOUR, _DAY = 3600.0, 86_400.0
_WAIT = (
    *(0.01, 0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0),
    *(_HOUR, 4 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 4 * _DAY, 7 * _DAY),
)
"""Up to the longest wait that can be asked for."""
NO_POOL = ""
"""The label of what happened to no pool that exists: names that clients make up are no labels."""
DENIALS = frozenset({UsageKind.DENIED, UsageKind.GAVE_UP})
"""What is counted as a denial."""


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
        self._watches: set[str] = set()
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
        self._overdrawn = self._counter(
            "overdraft_grants", "Grants decided by this node with seats beyond those in force."
        )
        self._waited = self._histogram(
            "grant_wait_seconds", "Time from request to grant.", _WAIT
        )
        self._advisory = self._counter(
            "advisory_grants",
            "Grants of advisory pools that would have waited or been refused, by rule.",
            "rule",
        )
        self._store_failures = self._counter(
            "store_failures", "Commits that the store refused or could not take.", "reason"
        )
        self._denied = self._counter(
            "denials", "Requests refused by this node, also those whose wait ran out.", "reason"
        )
        self._failed = Counter(
            "seatkeeper_calls_failed",
            "Calls that this node ended with another status than OK.",
            ["call", "code"],
            registry=self.registry,
        )
        self._relists = Counter(
            "seatkeeper_relists", "Watches that ended.", ["what"], registry=self.registry
        )
        self._forwards = self._counter(
            "forwarded_commands", "Commands forwarded to the pool's owner."
        )
        self._forward_failures = self._counter(
            "forward_failures", "Times that the pool's owner did not answer."
        )
        self._per_pool = (
            *(self._commit_seconds, self._commit_commands, self._writes, self._conflicts),
            *(self._unknown, self._dead, self._granted, self._waited, self._store_failures),
            *(self._denied, self._advisory, self._forwards, self._forward_failures),
            self._overdrawn,
        )
        self._usage: dict[tuple[str, UsageKind], int] = {}
        self.usage.subscribe(self._count_usage)
        self.registry.register(_Gauges(self))
        self.registry.register(_UsageCounts(self._usage))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

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
        """Count a commit that the store did not accept."""
        super().store_failed(pool, reason)
        self._store_failures.labels(pool, reason).inc()

    def dead_session(self, pool: str) -> None:
        """Count a session found dead."""
        self._dead.labels(pool).inc()

    def relisted(self, what: str, reason: str) -> None:
        """Count a watch that ended."""
        super().relisted(what, reason)
        self._watches.add(what)
        self._relists.labels(what).inc()

    def _count_usage(self, event: UsageEvent) -> None:
        """Count what happened to a request. One of a pool that does not exist is counted for none."""
        kind, pool = event.kind, event.pool
        if kind is UsageKind.GRANTED:
            of = self._of(pool)
            of.granted.inc()
            of.waited.observe(event.seconds or 0.0)
            if event.marks is not None and event.marks.overdraft:
                self._overdrawn.labels(pool).inc()
            if event.reason:
                self._advisory.labels(pool, event.reason).inc()
        elif kind in DENIALS:
            pool = self._known(event)
            self._denied.labels(pool, event.reason).inc()
        self._usage[pool, kind] = self._usage.get((pool, kind), 0) + 1

    def _known(self, event: UsageEvent) -> str:
        """Return the pool that a refusal is counted for."""
        # A node that follows nothing yet does not know which names are made up.
        missing = event.reason == "POOL_NOT_FOUND"
        known = self.watched is None or self.watched.has_pool(event.pool)
        return NO_POOL if missing or not known else event.pool

    def call_failed(self, call: str, code: str) -> None:
        """Count a call that failed."""
        self._failed.labels(call, code).inc()

    def forwarded(self, pool: str, *, commands: int) -> None:
        """Count commands forwarded."""
        super().forwarded(pool, commands=commands)
        self._forwards.labels(pool).inc(commands)

    def forward_failed(self, pool: str) -> None:
        """Count an owner that did not answer."""
        super().forward_failed(pool)
        self._forward_failures.labels(pool).inc()

    def pool_gone(self, pool: str) -> None:
        """Forget a pool that was deleted: names that come and go must not add up."""
        self._pools.pop(pool, None)
        for what in [w for w in self._watches if w.endswith(f"/seats/{pool}/")]:
            self._watches.discard(what)
            self._relists.remove(what)
        for counted in [each for each in self._usage if each[0] == pool]:
            del self._usage[counted]
        for metric in self._per_pool:
            metric.remove_by_labels({"pool": pool})

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

    def _counter(self, name: str, text: str, *more: str) -> Counter:
        return Counter(f"seatkeeper_{name}", text, ["pool", *more], registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(
            f"seatkeeper_{name}", text, ["pool"], buckets=buckets, registry=self.registry
        )


class _Gauges(Collector):
    """What there is now, by what the node follows. Asked in the scrape's thread."""

    def __init__(self, observer: MetricsObserver) -> None:
        self._observer = observer

    def describe(self) -> list[Metric]:
        """Claim no names ahead: nothing is followed yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges of what is followed."""
        about = {"version": seatkeeper_version(), "python": platform.python_version()}
        yield _gauge("build_info", "The software; always 1.", about, 1)
        foreign = "Endpoints of another etcd; 1 more where etcd holds another service, or none."
        yield _gauge("store_foreign", foreign, {}, self._observer.foreign)
        watched = self._observer.watched
        if watched is None:
            return
        yield _gauge("session_streams", "Session streams open here.", {}, watched.streams())
        nodes = watched.nodes()
        followed = "1 while this node's watches of the store work; 0: gauges are left out."
        yield _gauge("store_followed", followed, {}, int(nodes is not None))
        if nodes is not None:
            yield _gauge("nodes", "Nodes registered.", {}, nodes[0])
            yield _gauge(
                "nodes_silent", "Registered nodes that do not answer this one.", {}, nodes[1]
            )
        yield from _pool_gauges(watched)


class _UsageCounts(Collector):
    """How many usage events there were. Asked in the scrape's thread."""

    def __init__(self, counts: Mapping[tuple[str, UsageKind], int]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """Yield one counter: by pool and kind."""
        text = "Usage events published by this node."
        family = CounterMetricFamily("seatkeeper_usage_events", text, labels=["pool", "kind"])
        for (pool, kind), count in sorted(dict(self._counts).items()):
            family.add_metric([pool, kind], count)
        yield family


def _pool_gauges(watched: Watched) -> Iterator[Metric]:
    capacity = _family("pool_capacity", "Seats of the pool.", ["pool"])
    held = _family("pool_held", "Seats held.", ["pool"])
    queued = _family("pool_queued", "Tickets waiting.", ["pool"])
    drained = _family("pool_drained", "1 while the pool is drained, else 0.", ["pool"])
    for pool in watched.pools():
        drained.add_metric([pool.name], int(pool.is_drained))
        capacity.add_metric([pool.name], pool.capacity)
        held.add_metric([pool.name], pool.held)
        queued.add_metric([pool.name], pool.queued)
    yield from (capacity, held, queued, drained)
    yield from _lot_gauges(watched)
    ends = _family("lot_ends_seconds", "Seconds until a lot in force ends.", ["pool", "lot"])
    for each in watched.lot_ends():
        ends.add_metric([each.pool, each.lot], each.seconds)
    yield ends


def _lot_gauges(watched: Watched) -> Iterator[Metric]:
    held = _family(
        "lot_seats_held", "Seats held that come from a lot.", ["pool", "lot", "kind"]
    )
    cost = _family(
        "burst_cost",
        "What a burst has cost since it began, all of its seats.",
        ["pool", "lot", "currency"],
    )
    over = _family("pool_overdraft_held", "Seats held beyond those in force.", ["pool"])
    for pool in watched.pools():
        if pool.lots or pool.overdraft_held:
            over.add_metric([pool.name], pool.overdraft_held)
        for lot in pool.lots:
            held.add_metric([pool.name, lot.name, lot.kind], lot.held)
            if lot.cost is not None:
                cost.add_metric([pool.name, lot.name, lot.currency], lot.cost)
    yield from (held, cost, over)


def _family(name: str, text: str, labels: list[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"seatkeeper_{name}", text, labels=labels)


def _gauge(name: str, text: str, labels: dict[str, str], value: float) -> Metric:
    family = _family(name, text, list(labels))
    family.add_metric(list(labels.values()), value)
    return family
