"""What the holder of a session believes, and what it does next. Pure: the time is passed in.

Theory of operation
-------------------
A session is one lease in the store; every grant lives and dies with it. The holder may count on its
seats while it can *prove* that the lease is alive:

    until = (when the last answered renewal was SENT) + its ttl - margin

The service counts the same ttl from when it RECEIVED that renewal, which is later, and so frees the
seats no earlier than ``until + margin``. That holds whatever is lost, delayed or repeated on
the way, for any node, and needs no common clock: only that the two clocks run at nearly one rate,
which the margin pays for. An answer says nothing about renewals sent after the one it answers,
and `resume` renews nothing.

States, and what moves them::

    SAFE ----> JEOPARDY   half of the believed time has gone by without an answered renewal, or no
                          node could be reached at all: finish soon, start nothing that takes long
    JEOPARDY -> SAFE      a renewal was answered
    any -----> LOST       `until` has passed, or the service said so: stop using the licence

LOST is final. It is never true that a view in SAFE or JEOPARDY is at or past ``until`` once
`next_step` has been asked; `believes` answers by the clock alone, for callers between two steps.

Renewals go out at the service's hint, and never later than a third of the ttl after the last one
was sent, so that two may be lost. One that is not answered in time is not repeated on the same
stream, where it would only wait behind itself: the holder moves on to the next node.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

ANSWER_SHARE = 0.25
"""Most of the ttl that one node gets to answer a renewal."""
MARGIN_SHARE = 0.25
"""Most of the ttl that the safety margin takes."""
RENEW_SHARE = 1 / 3
"""Most of the ttl that passes between two renewals."""
JEOPARDY_SHARE = 0.5
"""The part of the believed time after which the holder is in jeopardy."""


class HoldingState(enum.Enum):
    """How sure the holder is of its seats."""

    SAFE = "safe"
    JEOPARDY = "jeopardy"
    RECLAIMING = "reclaiming"
    """Of single grants: the seats are called back, and are lost when the notice is over."""
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing until then, or until something happens."""

    until: float


@dataclass(frozen=True, slots=True)
class Renew:
    """Send a renewal now."""


@dataclass(frozen=True, slots=True)
class MoveOn:
    """The node does not answer: go on with the next one."""


@dataclass(frozen=True, slots=True)
class EnterJeopardy:
    """Notify the holders that their seats are in jeopardy."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Notify the holders that their seats are lost."""


Step = Wait | Renew | MoveOn | EnterJeopardy | Lost


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """What the holder knows of its session. Times are seconds of one clock that never goes back."""

    state: HoldingState
    ttl: float
    """Of the last answered renewal."""
    margin: float
    """Taken off the ttl."""
    answer_timeout: float
    """How long a renewal may go unanswered."""
    probe_after: float
    """How long a node that owes an answer may be silent."""
    renewed_at: float
    """When the last answered renewal was sent."""
    renew_at: float
    """When the next renewal is due."""
    sequence: int = 0
    """Of the last renewal sent."""
    sent_at: float | None = None
    """When the renewal now unanswered on this stream was sent."""
    owed_since: float | None = None
    """Since when the node owes an answer to a command and has said nothing."""
    connected: bool = True
    """Whether there is a stream to send on."""
    unreachable: bool = False
    """Whether every node was tried since the stream broke, and none answered."""

    @property
    def until(self) -> float:
        """Until when the holder counts on its seats."""
        return self.renewed_at + self.ttl - min(self.margin, self.ttl * MARGIN_SHARE)

    @property
    def jeopardy_at(self) -> float:
        """When the holder begins to doubt."""
        return self.renewed_at + (self.until - self.renewed_at) * JEOPARDY_SHARE

    @property
    def give_up_at(self) -> float | None:
        """When the node is given up; None while it owes no renewal."""
        if self.sent_at is None:
            return None
        return self.sent_at + min(self.answer_timeout, self.ttl * ANSWER_SHARE)


def next_step(view: SessionView, now: float) -> Step:
    """Decide what the holder does at ``now``. Asked again after every step but `Wait`."""
    if view.state is HoldingState.LOST or now >= view.until:
        return Lost()
    doubtful = view.unreachable or now >= view.jeopardy_at
    if view.state is HoldingState.SAFE and doubtful:
        return EnterJeopardy()
    wakes = [view.until]
    if view.state is HoldingState.SAFE:
        wakes.append(view.jeopardy_at)
    if not view.connected:
        return Wait(min(wakes))
    if view.give_up_at is not None:
        if now >= view.give_up_at:
            return MoveOn()
        return Wait(min(*wakes, view.give_up_at))
    due = view.renew_at
    if view.owed_since is not None:
        due = min(due, view.owed_since + view.probe_after)
    if now >= due:
        return Renew()
    return Wait(min(*wakes, due))


def believes(view: SessionView, now: float) -> HoldingState:
    """Return what the holder may believe at ``now``, also between two steps."""
    return HoldingState.LOST if now >= view.until else view.state


def opened(
    *,
    sent_at: float,
    now: float,
    ttl: float,
    renew_in: float,
    margin: float,
    answer_timeout: float,
    probe_after: float,
) -> SessionView:
    """Begin: the service opened the session that was first asked for at ``sent_at``.

    An open that had to be repeated may have begun the lease the first time, so it counts from
    then.
    """
    return SessionView(
        state=HoldingState.SAFE,
        ttl=ttl,
        margin=margin,
        answer_timeout=answer_timeout,
        probe_after=probe_after,
        renewed_at=sent_at,
        renew_at=_renew_at(sent_at, now, ttl, renew_in),
    )


def resumed(view: SessionView, now: float) -> SessionView:
    """Go on with another stream: a renewal is due at once, since resuming renews nothing."""
    return replace(
        view, connected=True, unreachable=False, sent_at=None, owed_since=None, renew_at=now
    )


def disconnected(view: SessionView) -> SessionView:
    """Note that the stream is gone, and with it all answers that were on their way."""
    return replace(view, connected=False, sent_at=None, owed_since=None)


def unreachable(view: SessionView) -> SessionView:
    """Note that every node was tried and none answered."""
    return replace(view, unreachable=True)


def renewal_sent(view: SessionView, now: float) -> SessionView:
    """Note that a renewal goes out, numbered ``view.sequence + 1``. Call it before sending."""
    return replace(view, sequence=view.sequence + 1, sent_at=now)


def renewal_answered(
    view: SessionView, *, sequence: int, now: float, ttl: float, renew_in: float
) -> SessionView:
    """Count from the answered renewal; an answer to any but the last one sent changes nothing.

    Too late an answer does not bring the dead back: no holder believed in between.
    """
    if sequence != view.sequence or view.sent_at is None or now >= view.until:
        return view
    sent_at = view.sent_at
    if now >= sent_at + ttl - min(view.margin, ttl * MARGIN_SHARE):
        return view
    return replace(
        view,
        state=HoldingState.SAFE,
        ttl=ttl,
        renewed_at=sent_at,
        renew_at=_renew_at(sent_at, now, ttl, renew_in),
        sent_at=None,
        unreachable=False,
    )


def renewal_due(view: SessionView, now: float) -> SessionView:
    """Let the next renewal be due now."""
    return replace(view, renew_at=min(view.renew_at, now))


def in_jeopardy(view: SessionView) -> SessionView:
    """Record that the holders were notified of jeopardy."""
    return replace(view, state=HoldingState.JEOPARDY)


def owing(view: SessionView, since: float | None) -> SessionView:
    """Note since when the node owes an answer and is silent; None: it owes nothing."""
    return view if since == view.owed_since else replace(view, owed_since=since)


def lost(view: SessionView) -> SessionView:
    """Note that the session is over."""
    return replace(view, state=HoldingState.LOST)


def _renew_at(sent_at: float, now: float, ttl: float, renew_in: float) -> float:
    return min(now + max(0.0, renew_in), sent_at + ttl * RENEW_SHARE)
