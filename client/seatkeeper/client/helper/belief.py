"""What a program may believe of a grant that its helper keeps: read from memory that both share."""

from __future__ import annotations

import os

from seatkeeper.client.helper.link import Link
from seatkeeper.client.helper.slots import Slot, boot_ms
from seatkeeper.client.session.holding import HoldingState


class KeptBelief:
    """What may be believed of one grant: its own slot's word, and its lease's."""

    __slots__ = ("_lease", "_link", "_over", "_pid", "_slot", "number")

    def __init__(self, link: Link, number: int, lease: Slot, slot: Slot) -> None:
        self._link = link
        self._pid = os.getpid()
        self._lease = lease
        self._slot = slot
        self._over = False
        self.number = number
        """The request that took the grant."""

    def state(self, now: float) -> HoldingState:
        """Return what may be believed right now, by the machine's clock and no other."""
        if self._over or self._pid != os.getpid():
            return HoldingState.LOST
        # The words first, the clock last: the answer is true at the time that was read.
        until = min(
            self._link.slots.until_ms(self._lease), self._link.slots.until_ms(self._slot)
        )
        doubt = self._link.slots.doubt_ms(self._lease)
        moment = boot_ms()
        if moment >= until:
            # Final, even if the helper wakes up and finds that the lease was renewed after all.
            self._over = True
            return HoldingState.LOST
        if moment >= doubt or self._link.lost is not None:
            return HoldingState.JEOPARDY
        return HoldingState.SAFE

    def until(self) -> float:
        """Return until when it may be believed without a renewal, in seconds since boot."""
        slots = self._link.slots
        return min(slots.until_ms(self._lease), slots.until_ms(self._slot)) / 1000

    def own_until(self) -> float:
        """Return until when the grant's own word says that it may be believed."""
        return self._link.slots.until_ms(self._slot) / 1000

    def ends_at(self) -> float:
        """Return the same: the margin is not shared, and earlier is safe."""
        return self.until()

    def seconds_left(self) -> float:
        """Return how long it may still be believed without a renewal."""
        return max(0.0, self.until() - boot_ms() / 1000)
