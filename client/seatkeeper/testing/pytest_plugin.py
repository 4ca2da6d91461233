"""The pytest plugin: a service in memory for each test that asks for the fixture ``seatkeeper``.

Loaded by every run of pytest in an environment where Seatkeeper is installed, so it loads nothing else
until a test asks: no client, no gRPC.

::

    def test_we_stop_when_the_seat_is_lost(seatkeeper):
        grant = seatkeeper.client().acquire(seatkeeper.pool("tensorrt"))
        seatkeeper.lose(grant)
        with pytest.raises(SeatLost):
            grant.raise_if_lost()
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from seatkeeper.testing.service import InMemoryService

MARKER = "seatkeeper(pools=None, session_ttl=30): pools of the test's service, by name; seconds"
DEFAULT_TTL_SECONDS = 30.0
"""Long enough that a slow machine loses no seat by itself: tests move the clock."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", MARKER)


@pytest.fixture(name="seatkeeper")
def seatkeeper_service(request: pytest.FixtureRequest) -> Iterator[InMemoryService]:
    """Return a licence service in memory, whose clock can be moved and whose seats can be lost."""
    from seatkeeper.core.errors import UsageError
    from seatkeeper.testing.service import InMemoryService

    marker = request.node.get_closest_marker("seatkeeper")
    pools, ttl = _settings(**(marker.kwargs if marker else {}))
    service = InMemoryService(pools, session_ttl=ttl)
    try:
        service.start()
    except UsageError as missing:
        pytest.fail(str(missing), pytrace=False)
    yield service
    service.stop()


def _settings(
    *,
    pools: Mapping[str, int] | None = None,
    session_ttl: float | timedelta = DEFAULT_TTL_SECONDS,
) -> tuple[Mapping[str, int], timedelta]:
    if not isinstance(session_ttl, timedelta):
        session_ttl = timedelta(seconds=session_ttl)
    return pools or {}, session_ttl
