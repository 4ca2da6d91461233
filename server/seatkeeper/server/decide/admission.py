"""Who is let into the queue of a pool.

A queue without a bound fails everybody at once, late; one with a bound refuses the last to come, at
once and with a time to come back. The same rule is asked twice: by the node that receives a request, on
its own view, so that a refusal costs the store nothing; and by the decision, which knows for sure.
"""

from __future__ import annotations

from seatkeeper.server.domain.commands import Acquire
from seatkeeper.server.domain.limits import Limits
from seatkeeper.server.domain.state import PoolState


def refusal(
    pool: PoolState, command: Acquire, limits: Limits, *, ahead: int, ahead_of_holder: int
) -> str | None:
    """Return why a request may not wait in the queue; None: it may.

    ``ahead`` and ``ahead_of_holder`` are requests, of all and of the same holder, that will be in the
    queue before it and are not in ``pool`` yet.
    """
    if len(pool.tickets) + ahead >= limits.queue_max:
        return f"the queue is full ({limits.queue_max} tickets)"
    if pool.tickets_of[command.holder] + ahead_of_holder >= limits.holder_queue_max:
        return f"{command.holder} has {limits.holder_queue_max} tickets in the queue, and may not more"
    return None


def would_wait(pool: PoolState, command: Acquire) -> bool:
    """Return whether a request that is new would join the queue, by what is known of ``pool``."""
    known = command.grant_id in pool.tickets or command.grant_id in pool.grants
    served = not pool.tickets and command.seats <= pool.free
    return command.may_wait and not known and not served
