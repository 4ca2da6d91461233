"""The grants of one client that its helper keeps, and the last notification of their holders.

Usable from any thread: a step is one operation of a dictionary, and none takes a lock.
"""

from __future__ import annotations

import os
import signal
from datetime import timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from seatkeeper.client.helper.belief import KeptBelief
from seatkeeper.client.helper.frames import Frame
from seatkeeper.client.helper.link import Link
from seatkeeper.client.helper.slots import Slot
from seatkeeper.client.session.holding import HoldingState
from seatkeeper.client.session.reclaiming import CalledBack
from seatkeeper.client.session.requests import Held, OnState, Wanted

NEVER = float("inf")
_RAN_OUT = "the lease ran out before it was renewed"


class KeptGrants:
    """A grant is known by the request that took it."""

    def __init__(self, *, kills: bool) -> None:
        """``kills``: a grant that is lost ends this process at that moment."""
        self.kills = kills
        self._held: dict[int, Held] = {}
        self._said: dict[int, HoldingState] = {}
        """The last state reported to holders, unless that was that all is well."""

    def __contains__(self, number: int) -> bool:
        return number in self._held

    def add(
        self,
        link: Link,
        number: int,
        wanted: Wanted,
        granted: Frame,
        on_state: OnState | None,
    ) -> Held:
        """Return the grant that the helper took under that number."""
        belief = KeptBelief(link, number, Slot(*granted["lease"]), Slot(*granted["slot"]))
        held = Held(
            grant_id=granted["grant_id"],
            wanted=wanted,
            granted_seats=granted["seats"],
            fence=granted["fence"],
            token=granted["token"],
            granted_at=Timestamp.FromString(granted.body),
            lease=belief,
            on_state=on_state,
            holder=granted["holder"],
            project=granted["project"],
            longest_hold=_length(granted.header.get("longest_hold")),
            notice=granted["notice"],
        )
        self._held[number] = held
        return held

    def drop(self, number: int) -> bool:
        """Forget a grant that is given back; return whether there was one, and it was not lost."""
        self._said.pop(number, None)
        return self._held.pop(number, None) is not None

    def on_update(self, number: int, update: Frame) -> None:
        """Note what the helper says about a grant."""
        held = self._held.get(number)
        if held is None:
            return
        if update.op == "token":
            held.renew_token(str(update["token"]))
        elif update.op == "state":
            state = HoldingState(update["state"])
            if state is HoldingState.LOST:
                self._lose(number, str(update["why"]))
            elif not held.lost:
                held.called = None
                if state is HoldingState.RECLAIMING:
                    # How long the helper may believe stands in the slot.
                    held.called = CalledBack(0.0, str(update["why"]), 0.0)
                self._say(number, held, state)

    def on_helper_lost(self) -> None:
        """Notify holders that no helper renews their grants any more."""
        for number, held in list(self._held.items()):
            if held.state(0.0) is HoldingState.JEOPARDY:
                self._say(number, held, HoldingState.JEOPARDY)

    def lose_all(self, why: str) -> None:
        """End every grant."""
        for number in list(self._held):
            self._lose(number, why)

    def look(self) -> float:
        """Report leases that have run out by the clock; return seconds until the next one may."""
        left = NEVER
        for number, held in list(self._held.items()):
            belief = held.lease
            assert isinstance(belief, KeptBelief)
            if held.lost:
                continue
            state = held.state(0.0)
            if state is HoldingState.LOST:
                called = held.called
                why = f"the seats were called back: {called.message}" if called else _RAN_OUT
                self._lose(number, why, keep=True)
                continue
            # The helper says this, too, while it runs.
            self._say(number, held, state)
            left = min(left, belief.seconds_left())
        return left

    def is_believing(self) -> bool:
        """Return whether any grant is still believed in."""
        return any(h.state(0.0) is not HoldingState.LOST for h in list(self._held.values()))

    def _say(self, number: int, held: Held, state: HoldingState) -> None:
        """Send a holder its pending notifications."""
        if self._said.get(number, HoldingState.SAFE) is not state:
            self._said[number] = state
            held.notify(state)

    def _lose(self, number: int, why: str, *, keep: bool = False) -> None:
        """End a grant. ``keep``: the helper has not said so, and must be notified of its release."""
        held = self._held.get(number) if keep else self._held.pop(number, None)
        if held is None or held.lost:
            return
        held.lost = why
        self._said.pop(number, None)
        if self.kills:
            # The helper does this when it runs, also while native code holds the interpreter.
            os.kill(os.getpid(), signal.SIGKILL)
        held.notify(HoldingState.LOST)


def _length(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
