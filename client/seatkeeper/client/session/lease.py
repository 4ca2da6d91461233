"""Keeps one session's lease: its credentials, what is believed of it, and when to do what."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from seatkeeper.client.config.values import ClientConfig
from seatkeeper.client.session import holding
from seatkeeper.client.session.holding import HoldingState, SessionView
from seatkeeper.client.session.introduction import client_info
from seatkeeper.client.transport.translate import as_duration, seconds
from seatkeeper.core.clock import Clock
from seatkeeper.core.ids import new_id
from seatkeeper.v1 import seat_service_pb2 as pb

STEPS_MAX = 8
"""Steps that one look at the lease may take before it must wait."""
LOOK_AGAIN_SECONDS = 0.25
NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a session is opened for."""

    holder: str
    """Who holds."""
    project: str
    """Who is charged where a request does not say; empty: the service's default."""


@dataclass(slots=True, eq=False)
class Lease:
    """One session: who we are to the service, and what we believe of it."""

    credentials: pb.SessionCredentials
    asked_at: float
    """When `open` was sent."""
    on_view: Callable[[Lease], None] | None = None
    """Called whenever `view` has changed."""
    renewing: frozenset[str] = frozenset()
    """Grants that the renewal now unanswered asked tokens for."""
    confirming: frozenset[str] = frozenset()
    """Grants that it asked to confirm: they may be called back."""
    _view: SessionView | None = None

    @property
    def view(self) -> SessionView | None:
        """What is believed; None until the service has opened it."""
        return self._view

    @view.setter
    def view(self, view: SessionView) -> None:
        self._view = view
        if self.on_view is not None:
            self.on_view(self)

    def state(self, now: float) -> HoldingState:
        """Return what may be believed at ``now``."""
        return HoldingState.LOST if self.view is None else holding.believes(self.view, now)

    def until(self) -> float:
        """Return until when it may be counted on if it is not renewed."""
        return self.asked_at if self.view is None else self.view.until

    def ends_at(self) -> float:
        """Return when the service may give the seats to another."""
        return self.asked_at if self.view is None else self.view.renewed_at + self.view.ttl

    def own_until(self) -> float:
        """Return that no grant ends before its session by what this knows."""
        return NEVER


class LeaseOwner(Protocol):
    """The party that acts on what the lease needs."""

    def send_renewal(self, lease: Lease, sequence: int) -> None:
        """Send a renewal of that number."""

    def leave_node(self) -> None:
        """Go on with another node: this one does not answer."""

    def on_doubt(self) -> None:
        """Notify the holders that their seats are in jeopardy."""

    def on_lease_over(self, message: str) -> None:
        """Notify the holders that their seats are lost."""


class LeaseKeeper:
    """Knows the present session, if there is one."""

    def __init__(
        self,
        owner: LeaseOwner,
        config: ClientConfig,
        account: Account,
        clock: Clock,
    ) -> None:
        self._owner = owner
        self._config = config
        self._account = account
        self._clock = clock
        self.on_view: Callable[[Lease], None] | None = None
        """Called whenever what may be believed of the session has changed."""
        self._received_at = 0.0
        self._silent_since: float | None = None
        self.lease: Lease | None = None
        """The session that is open or being opened."""
        self.ever_opened = False
        """Whether any session of this client was ever opened."""

    @property
    def opened(self) -> Lease | None:
        """The session, if the service has opened it."""
        return self.lease if self.lease is not None and self.lease.view is not None else None

    def hello(self) -> pb.SessionCommand:
        """Return `resume` for a session that the service knows; otherwise begin a new one."""
        if self.opened is not None:
            return pb.SessionCommand(resume=pb.Resume(credentials=self.opened.credentials))
        # A new session at every attempt: one whose answer was lost holds nothing, because nothing
        # is sent before that answer; and its lease may have begun long ago.
        credentials = pb.SessionCredentials(session_id=new_id(), secret=secrets.token_bytes(32))
        self.lease = Lease(credentials, self._clock.now(), self.on_view)
        ttl = self._config.ttl
        return pb.SessionCommand(
            open=pb.Open(
                credentials=credentials,
                holder=self._account.holder,
                project=self._account.project,
                ttl=None if ttl is None else as_duration(ttl.total_seconds()),
                client=client_info(self._config),
                heeds_reclaim=True,
            )
        )

    def seconds_left(self) -> float | None:
        """Return how long the lease may still be counted on; None: there is none to lose."""
        view = None if self.lease is None else self.lease.view
        return None if view is None else max(0.0, view.until - self._clock.now())

    def sent(self) -> None:
        """Note that a command was sent."""
        if self._silent_since is None:
            self._silent_since = self._clock.now()

    def received(self) -> float:
        """Note that the node has said something; return the time."""
        self._received_at = self._clock.now()
        self._silent_since = None
        return self._received_at

    def on_opened(self, answer: pb.Opened) -> Lease | None:
        """Begin or go on with the session that the service has opened."""
        lease = self.lease
        if lease is None:
            return None
        self.ever_opened = True
        if lease.view is not None:
            lease.view = holding.resumed(lease.view, self._received_at)
            return lease
        lease.view = holding.opened(
            sent_at=lease.asked_at,
            now=self._received_at,
            ttl=seconds(answer.ttl),
            renew_in=seconds(answer.renew_in),
            margin=self._config.safety_margin.total_seconds(),
            answer_timeout=self._config.renewal.answer_timeout.total_seconds(),
            probe_after=self._config.renewal.probe_after.total_seconds(),
        )
        return lease

    def on_renewed(self, answer: pb.Renewed) -> bool:
        """Count from an answered renewal; return whether the seats are safe again by it."""
        lease = self.opened
        if lease is None or lease.view is None:
            return False
        before = lease.view
        lease.view = after = holding.renewal_answered(
            before,
            sequence=answer.sequence,
            now=self._received_at,
            ttl=seconds(answer.ttl),
            renew_in=seconds(answer.renew_in),
        )
        return before.state is not after.state

    def renew_soon(self) -> None:
        """Have the next renewal sent as soon as none is unanswered."""
        if self.lease is not None and self.lease.view is not None:
            now = self._clock.now()
            self.lease.view = holding.renewal_due(self.lease.view, now)

    @property
    def is_renewal_due(self) -> bool:
        """Whether a renewal was asked for that has not been sent."""
        view = None if self.lease is None else self.lease.view
        return view is not None and view.sent_at is None and view.renew_at <= self._clock.now()

    def on_disconnected(self) -> None:
        """Note that the stream is gone."""
        self._silent_since = None
        if self.lease is not None and self.lease.view is not None:
            self.lease.view = holding.disconnected(self.lease.view)

    def on_outage(self) -> None:
        """Note that every node was tried and none answered."""
        if self.lease is not None and self.lease.view is not None:
            self.lease.view = holding.unreachable(self.lease.view)

    def end(self) -> Lease | None:
        """Forget the session; return it, over. None when there was none."""
        lease, self.lease = self.lease, None
        self._silent_since = None
        if lease is not None and lease.view is not None:
            lease.view = holding.lost(lease.view)
        return lease

    def look(self, *, node_owes: bool) -> float:
        """Do what the lease needs now; return when to look again."""
        now = self._clock.now()
        owed_since = None
        if node_owes:
            owed_since = self._received_at if self._silent_since is None else self._silent_since
        for _ in range(STEPS_MAX):
            lease = self.opened
            if lease is None or lease.view is None:
                return NEVER
            view = holding.owing(lease.view, owed_since)
            lease.view = view
            match holding.next_step(view, now):
                case holding.Wait(until):
                    return until
                case holding.Renew():
                    lease.view = sent = holding.renewal_sent(view, now)
                    self._owner.send_renewal(lease, sent.sequence)
                case holding.MoveOn():
                    self.on_disconnected()
                    owed_since = None
                    self._owner.leave_node()
                case holding.EnterJeopardy():
                    lease.view = holding.in_jeopardy(view)
                    self._owner.on_doubt()
                case holding.Lost():
                    self._owner.on_lease_over(
                        "the session could not be renewed before its lease ran out"
                    )
        return now + LOOK_AGAIN_SECONDS
