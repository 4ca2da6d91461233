from __future__ import annotations

from datetime import timedelta

from seatkeeper.client.config.values import BreakerConfig
from seatkeeper.client.transport.breaker import Breaker, BreakerState

CONFIG = BreakerConfig(failures_max=3, open_for=timedelta(seconds=5))


def opened(now: float = 10.0) -> Breaker:
    breaker = Breaker()
    for _ in range(CONFIG.failures_max):
        breaker = breaker.failed(now, CONFIG)
    return breaker


def test_a_breaker_opens_after_failures_in_a_row() -> None:
    breaker = Breaker().failed(1.0, CONFIG).failed(2.0, CONFIG)
    assert breaker.state(2.0, CONFIG) is BreakerState.CLOSED
    assert breaker.failed(3.0, CONFIG).state(3.0, CONFIG) is BreakerState.OPEN


def test_a_success_in_between_is_a_new_beginning() -> None:
    breaker = Breaker().failed(1.0, CONFIG).failed(2.0, CONFIG).succeeded()
    assert breaker.failed(3.0, CONFIG).state(3.0, CONFIG) is BreakerState.CLOSED


def test_an_open_breaker_lets_one_trial_through_after_a_while() -> None:
    breaker = opened(10.0)
    assert not breaker.allows(14.9, CONFIG)
    assert breaker.state(15.0, CONFIG) is BreakerState.HALF_OPEN
    during = breaker.tried(15.0)
    assert not during.allows(15.1, CONFIG)


def test_the_trial_decides() -> None:
    during = opened(10.0).tried(15.0)
    assert during.succeeded().allows(15.2, CONFIG)
    failed = during.failed(15.2, CONFIG)
    assert not failed.allows(20.1, CONFIG)
    assert failed.allows(20.2, CONFIG)


def test_a_trial_without_a_report_does_not_close_the_node_forever() -> None:
    assert opened(10.0).tried(15.0).allows(20.0, CONFIG)
