"""The grants of one client whose seats may be called back, and what renewals say of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from seatkeeper.client.session.holding import HoldingState
from seatkeeper.client.session.holdings import Holdings
from seatkeeper.client.session.lease import NEVER, Lease
from seatkeeper.client.session.requests import Held, PendingRequest
from seatkeeper.client.transport.translate import seconds
from seatkeeper.v1 import seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb

NOT_CONFIRMED = "no node confirmed in time that the seats were not called back"


class RecallableOwner(Protocol):
    """The tables that the grants are in."""

    @property
    def asks(self) -> Mapping[str, PendingRequest]:
        """The requests that were not answered for good."""

    def granted_lease(self, ask: PendingRequest) -> Lease | None:
        """Take a request out that was granted; return the session. None: it is over, or unwanted."""

    def look_for(self, grant_ids: Iterable[str]) -> None:
        """Ask whether grants still exist."""

    def send_ask(self, ask: PendingRequest, now: float) -> None:
        """Send a request again."""

    def give_up(self, held: Held, why: str, now: float) -> None:
        """End a grant that cannot be counted on any more, and give its seats back."""


class Recallable:
    """What is held and may be called back, and what was granted so and is to be confirmed first."""

    def __init__(
        self, owner: RecallableOwner, holdings: Holdings, renew_soon: Callable[[], None]
    ) -> None:
        self._owner = owner
        self._holdings = holdings
        self._held = holdings.recallable
        self.renew_soon = renew_soon
        """Has a renewal sent that confirms what may be called back."""

    def refs(self) -> list[pb.GrantRef]:
        """Return the grants that a renewal is to confirm."""
        found = [(held.pool, held.grant_id) for held in self._held.values()]
        found += [(ask.pool, ask.grant_id) for ask in self._unconfirmed()]
        return [pb.GrantRef(pool=pool, grant_id=grant_id) for pool, grant_id in found]

    def on_confirmed(
        self,
        confirmed: Iterable[pb.ConfirmedGrant],
        asked: Iterable[str],
        sent_at: float,
        now: float,
    ) -> None:
        """Note what a node has of the grants that a renewal, sent at ``sent_at``, asked about."""
        found = {each.grant.grant_id: each for each in confirmed}
        for grant_id in asked:
            each = found.get(grant_id)
            ask = self._owner.asks.get(grant_id)
            if ask is not None and ask.granted is not None:
                self._on_ask_confirmed(ask, each, sent_at, now)
            elif (held := self._held.get(grant_id)) is not None:
                self._on_held_confirmed(held, each, sent_at, now)
        if self._unconfirmed():
            self.renew_soon()

    def on_reclaiming(self, reclaiming: seat_pb2.Reclaiming, now: float) -> None:
        """Note that seats are called back, or not any more: which a renewal has to confirm."""
        held = self._held.get(reclaiming.grant_id)
        if held is None and reclaiming.HasField("within"):
            held = self._holdings.make_recallable(reclaiming.grant_id, now)
            # Its notice begins when a renewal names it.
            self.renew_soon()
        if held is None:
            return
        if reclaiming.HasField("within"):
            _call_back(held, reclaiming, now)
        else:
            self.renew_soon()

    def sweep(self, now: float) -> float:
        """End what cannot be counted on any more; return when the next one may be over."""
        if not self._held:
            return NEVER
        for held in list(self._held.values()):
            if held.recall is not None and now >= held.recall.until:
                called = held.recall.called
                why = (
                    f"the seats were called back: {called.message}" if called else NOT_CONFIRMED
                )
                self._owner.give_up(held, why, now)
        left = (held.recall.until for held in self._held.values() if held.recall is not None)
        return min(left, default=NEVER)

    def _unconfirmed(self) -> list[PendingRequest]:
        return [ask for ask in self._owner.asks.values() if ask.granted is not None]

    def _on_held_confirmed(
        self, held: Held, confirmed: pb.ConfirmedGrant | None, sent_at: float, now: float
    ) -> None:
        if confirmed is None or held.recall is None:
            if held.recall is not None:
                held.recall.not_reported()
                held.recalled()
            self._owner.look_for([held.grant_id])
        elif confirmed.HasField("reclaiming"):
            _call_back(held, confirmed.reclaiming, now, sent_at)
        else:
            is_safe_again = held.recall.confirm(sent_at)
            held.recalled()
            if is_safe_again:
                held.notify(HoldingState.SAFE)

    def _on_ask_confirmed(
        self,
        ask: PendingRequest,
        confirmed: pb.ConfirmedGrant | None,
        sent_at: float,
        now: float,
    ) -> None:
        granted, ask.granted = ask.granted, None
        if granted is None or confirmed is None:
            self._owner.send_ask(ask, now)  # it may be gone: what is said to this decides
        elif (lease := self._owner.granted_lease(ask)) is not None:
            held = self._holdings.hold(ask, granted, lease, sent_at)
            if confirmed.HasField("reclaiming"):
                _call_back(held, confirmed.reclaiming, now, sent_at)


def _call_back(
    held: Held, reclaiming: seat_pb2.Reclaiming, now: float, sent_at: float | None = None
) -> None:
    assert held.recall is not None
    within = seconds(reclaiming.within)
    is_new = held.recall.call(within, reclaiming.message, now, sent_at=sent_at)
    held.recalled()
    if is_new:
        held.notify(HoldingState.RECLAIMING)
