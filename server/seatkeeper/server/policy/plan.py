"""What a policy is asked, and what it answers.

Theory of operation
-------------------
A policy is a pure function of a pool and a time. Its plan is the only order of service: the decision
grants what the plan serves, the loop wakes when there is something to serve and at ``next_wake``,
admission and estimates read ``hold_back``, and positions are those of ``order``. The oracle has an
order of its own, on purpose.

The same pool at the same time gives the same plan. So a node finds no work that its own decision
would not do (that would be a hot loop), and leaves none undone that the decision would do (a missed
wake). Several nodes may plan for one pool at once, by clocks that differ: the commit is guarded, so
that costs order, never a seat.

A policy is not trusted with safety. What it serves beyond the free seats, twice, without a ticket, or
for work that another holder does is not granted.

Requests that name the same work (``work_key``) are served one at a time, whatever the policy: of
those that wait, ``PoolSnapshot.waiting`` yields one, and none while a grant for it lives. The others
keep their places. When that grant ends, they are denied
if its holder said how the work ended; otherwise the next of them is served, at the place that it kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Protocol

from seatkeeper.server.domain import Grant, Instant, Ticket
from seatkeeper.server.domain.immutable import immutable
from seatkeeper.server.policy.order import Order
from seatkeeper.server.policy.reclaiming import CallBack
from seatkeeper.server.policy.rules import Reason, Rule
from seatkeeper.server.policy.snapshot import PoolSnapshot


def holds_back_none(ticket: Ticket) -> bool:
    """Hold no ticket back."""
    return False


def says_nothing(ticket: Ticket) -> Reason | None:
    """Give no reason."""
    return None


def by_acceptance(first: Ticket, ticket: Ticket) -> Rule:
    """Return why one ticket comes before another: its priority, its number, or a move."""
    if first.priority > ticket.priority:
        return Rule.PRIORITY
    return by_number(first, ticket)


def by_number(first: Ticket, ticket: Ticket) -> Rule:
    """Return why one ticket comes before another, priorities apart."""
    return Rule.MOVED if first.number > ticket.number else Rule.ARRIVAL


def ahead_by_acceptance(
    order: Iterable[Ticket], ticket: Ticket
) -> Iterator[tuple[Ticket, Rule]]:
    """Yield the tickets before one, and the rule that puts each there: priority, or arrival."""
    for each in order:
        if each.grant_id == ticket.grant_id:
            return
        yield each, by_acceptance(each, ticket)


@immutable
class Plan:
    """What a policy wants for a pool, until the pool changes or ``next_wake`` comes."""

    order: Order
    """All waiting tickets. Those held back come after the others."""
    serve: Sequence[Ticket] = ()
    """The tickets to grant now, in order. Together they want at most the free seats. A plan may end
    after ``PoolSnapshot.grants_max`` tickets: more do not fit into one decision."""
    hold_back: Callable[[Ticket], bool] = holds_back_none
    """Whether the policy leaves a ticket waiting for another reason than a want of seats, so that a
    seat that becomes free does not help it: its project has reached a quota, its time has not come.
    A ticket that waits behind one that wants more seats than are free is not held back. Also asked
    of requests that are not in the pool yet; False when in doubt, as the decision asks again."""
    passed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By id of a ticket in ``serve``: the ids of those that came before it, and which it overtakes."""
    why: Callable[[Ticket], Reason | None] = says_nothing
    """Which rule holds a ticket back; None: none that has a name. Also of one that nothing holds back
    now, and that those before it will leave no room for."""
    would_wait: Callable[[Ticket], Reason | None] = says_nothing
    """By which rule a ticket in ``serve`` would wait if the pool were not advisory; None: it would be
    served."""
    ahead: Callable[[Order, Ticket], Iterable[tuple[Ticket, Rule]]] = ahead_by_acceptance
    """The tickets before one that waits, the next one first, and what puts each of them there. Of one
    that is neither held back nor without room. Asked for with the plan's ``order``."""
    reclaim: Sequence[CallBack] = ()
    """Grants whose seats are wanted back, also those that are called back already: one that is, and is
    not among these, is called back no more."""
    returns: Mapping[str, Sequence[Grant]] = field(default_factory=dict)
    """By id of a ticket in ``serve`` that takes over seats which are kept for it: those."""
    takes: Mapping[str, int] = field(default_factory=dict)
    """By id of a ticket in ``serve``: the seats that it takes, where those that it asks for count once
    with others."""
    next_wake: Instant | None = None
    """When the plan of the same pool may differ from this one; None: never. Always in the future."""


class Policy(Protocol):
    """An order of service. Pure: time and the pool are arguments, and nothing is remembered."""

    def plan(self, pool: PoolSnapshot, now: Instant) -> Plan:
        """Return what is to be done for ``pool`` at ``now``, by the node's wall clock.

        Called several times for each decision, so it must not cost more than a look at each ticket
        and each grant. ``Fifo`` looks at those that it serves.
        """
        ...
