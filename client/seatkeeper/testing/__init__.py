"""The service in memory, a clock to move, and the pytest plugin, for users' tests.

Nothing is loaded until a name is used: every run of pytest loads the plugin, which is in here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seatkeeper.testing.movable_clock import MovableClock
    from seatkeeper.testing.service import AsyncControls, InMemoryService

__all__ = ["AsyncControls", "InMemoryService", "MovableClock"]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562: whatever stands in ``__all__``
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "MovableClock":
        from seatkeeper.testing.movable_clock import MovableClock

        return MovableClock
    from seatkeeper.testing import service

    return getattr(service, name)
