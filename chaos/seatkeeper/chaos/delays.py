"""What may have held things up while a run went on, and when they must be done all the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from seatkeeper.oracle.record import Denied

SERVED_SECONDS = 10.0
"""How long after a fault is recovered everything must work again, and who waited has an answer (I8)."""
Span = tuple[float, float]


class Delays:
    """Times of faults, of a machine that was too busy, and of new leaders of etcd."""

    def __init__(
        self, restarts: Callable[[], Sequence[float]], slow: Callable[[], Sequence[Span]]
    ) -> None:
        """``restarts``: when a new leader of etcd may have given leases their whole time again.

        ``slow``: when etcd, or the machine, was too slow for anything to be in time.
        """
        self._restarts = restarts
        self._slow = slow
        self._faults: list[Span] = []

    def add(self, began: float, ended: float) -> None:
        """Take that a fault lasted so long."""
        self._faults.append((began, ended))

    def explains(self, denied: Denied) -> bool:
        """Return whether a fault, or what had to be made good after one, may have held it up."""
        return any(
            began <= denied.at and denied.asked_at <= ended + SERVED_SECONDS
            for began, ended in self._all
        )

    def latest(self, since: float, time_limit: float) -> float:
        """Return when what takes so long must be over; what holds it up has it begin anew."""
        deadline = since + time_limit
        restarts = [(at, at) for at in self._restarts()]
        for began, ended in sorted([*self._all, *restarts]):
            if began <= deadline and ended >= since:
                deadline = max(deadline, ended + time_limit)
        return deadline

    @property
    def _all(self) -> list[Span]:
        return [*self._faults, *self._slow()]
