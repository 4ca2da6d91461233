"""How long to wait before trying again. Pure: randomness is passed in."""

from __future__ import annotations

from seatkeeper.client.config.values import BackoffConfig


def delay_seconds(
    attempt: int,
    config: BackoffConfig,
    *,
    random: float,
    retry_after: float | None = None,
    longest: float | None = None,
) -> float:
    """Return the seconds to wait before attempt number ``attempt``, counted from 1.

    Doubles from ``config.initial`` up to ``config.longest``, with full jitter: ``random``, drawn
    from 0 to 1, picks a moment between nothing and the whole. A ``retry_after`` that the service
    gave wins over both. ``longest`` shortens the result for a caller who has less time than that,
    such as the holder of a seat whose lease is running out; it shortens nothing that the
    service asked for.
    """
    if retry_after is not None:
        return max(0.0, retry_after)
    initial, ceiling = config.initial.total_seconds(), config.longest.total_seconds()
    # 2**attempt overflows a float long before a client gives up; the ceiling is reached earlier.
    whole = min(ceiling, initial * 2.0 ** min(max(attempt - 1, 0), 32))
    delay = whole * random
    return delay if longest is None else min(delay, max(0.0, longest))
