"""The way of a usage event from where it is known to those who want to know."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypeAlias

from seatkeeper.server.events.lines import log_usage
from seatkeeper.server.events.usage import UsageEvent

logger = logging.getLogger(__name__)

Subscriber: TypeAlias = Callable[[UsageEvent], None]


class UsageFeed:
    """Publishes each event to every subscriber, in the order of subscription. The log is the first.

    A subscriber is called on the event loop: it must be quick. One that raises misses that event; the
    others, and the caller, go on.
    """

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = [log_usage]

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call ``subscriber`` with every event from now on."""
        self._subscribers.append(subscriber)

    def publish(self, event: UsageEvent) -> None:
        """Publish one event. Never raises."""
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception:
                logger.exception("usage_subscriber_failed", extra={"kind": event.kind})

    def publish_all(self, events: Iterable[UsageEvent]) -> None:
        """Publish several events, in order."""
        for event in events:
            self.publish(event)
