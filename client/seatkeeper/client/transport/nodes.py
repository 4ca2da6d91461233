"""Which node to call next. Pure: time and randomness are passed in.

The last node that answered is called first, then the others in an order drawn once per client,
so that many clients with the same list spread over it. A node whose breaker is open is left out,
and so is one that said it is going away. One that denied a request because it could not decide is
called after the others for a while. When that leaves none, breakers show nothing any more
(a load balancer is one address, and an outage opens them all): the one that would be tried
soonest is tried, and the caller's backoff keeps the rate down.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from seatkeeper.client.config.values import BreakerConfig
from seatkeeper.client.transport.breaker import Breaker, BreakerState
from seatkeeper.core.address import parse_list
from seatkeeper.core.errors import InvalidArgument

NODES_MAX = 64
"""Most addresses that one client takes."""

SHUNNED_SECONDS = 10.0
"""How long a node that failed is not gone to on purpose, only when it is its turn."""

DENIED_SECONDS = 60.0
"""How long a node that could not decide a request is not gone to on purpose; from half of that to one
and a half times as long, so that many clients that were denied together do not return together."""


def parse_addresses(addresses: str | Iterable[str]) -> tuple[str, ...]:
    """Return the addresses in ``"host:port,host:port"`` or in a sequence of such, in order.

    Raises `InvalidArgument` naming the first that is not ``host:port``, or when there is none.
    """
    try:
        unique = tuple(str(address) for address in parse_list(addresses))
    except ValueError as error:
        raise InvalidArgument(f"address: {error}", field="address") from None
    if not 1 <= len(unique) <= NODES_MAX:
        raise InvalidArgument(
            f"address: give from 1 to {NODES_MAX} of host:port, not {len(unique)}",
            field="address",
        )
    return unique


class NodePicker:
    """Picks nodes, and learns from what became of the calls."""

    def __init__(
        self, addresses: Sequence[str], config: BreakerConfig, *, random: float = 0.0
    ) -> None:
        first = int(random * len(addresses)) % len(addresses)
        self._order = [*addresses[first:], *addresses[:first]]
        self._given = frozenset(addresses)
        self._config = config
        self._shunned: dict[str, float] = {}
        self._breakers = {address: Breaker() for address in addresses}
        self._leaving: dict[str, float] = {}
        self._denying: dict[str, float] = {}

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every address, in the order in which they would be tried."""
        return tuple(self._order)

    def pick(self, now: float, *, tried: Iterable[str] = ()) -> str:
        """Return the address to call at ``now``, rather one that is not among ``tried``."""
        behind = frozenset(tried)
        address = min(self._order, key=lambda a: self._reluctance(a, now, behind))
        self._breakers[address] = self._breakers[address].tried(now)
        return address

    def learn(self, addresses: Iterable[str]) -> None:
        """Apply which nodes there are, besides the addresses that were given."""
        known = self._given.union(list(addresses)[:NODES_MAX])
        self._order = [address for address in self._order if address in known]
        for address in sorted(known.difference(self._order)):
            self._order.append(address)
            self._breakers.setdefault(address, Breaker())

    def prefer(self, address: str) -> None:
        """Call this one first from now on, if it is known."""
        if address in self._order:
            self._order.remove(address)
            self._order.insert(0, address)

    def succeeded(self, address: str) -> None:
        """Note that the node answered: it is called first from now on."""
        self._breakers[address] = self._breakers[address].succeeded()
        self.prefer(address)

    def failed(self, address: str, now: float) -> None:
        """Note that the node could not be reached or did not answer."""
        self._breakers[address] = self._breakers[address].failed(now, self._config)
        self._shunned[address] = now + SHUNNED_SECONDS

    def is_welcoming(self, address: str, now: float) -> bool:
        """Return whether nothing speaks against going to a node on purpose."""
        return (
            address in self._order
            and now >= self._shunned.get(address, now)
            and now >= self._leaving.get(address, now)
            and now >= self._denying.get(address, now)
        )

    def denied(
        self, address: str, now: float, *, random: float, is_repeated: bool = False
    ) -> bool:
        """Note that the node could not decide a request; return whether to go to another one.

        There is another one if nothing is known against it: it has not failed lately, stays, and has
        not denied lately. Each node counts once in `DENIED_SECONDS`. So where all of them deny (the
        store is full), a client goes to each once, and stays at the last: to connect costs more than
        to ask.

        Behind a single address there may be a balancer, and many nodes; more likely there is one. So
        the request is repeated there first; only when it ``is_repeated``, a new connection may help.
        """
        is_new = now >= self._denying.get(address, now)
        is_alone = self._order == [address]
        if is_new and (is_repeated or not is_alone):
            self._denying[address] = now + DENIED_SECONDS * (0.5 + random)
        if is_alone:
            return is_new and is_repeated
        return any(self._may_decide(other, now) for other in self._order if other != address)

    def leaving(self, address: str, until: float) -> None:
        """Note that the node asked to be left alone until then. This is no failure."""
        self._leaving[address] = until

    def state(self, address: str, now: float) -> BreakerState:
        """Return what the node's breaker says."""
        return self._breakers[address].state(now, self._config)

    def _may_decide(self, address: str, now: float) -> bool:
        """Return whether a node may be asked what another one could not decide."""
        return self.is_welcoming(address, now) and self._breakers[address].allows(
            now, self._config
        )

    def _reluctance(
        self, address: str, now: float, tried: frozenset[str]
    ) -> tuple[bool, bool, bool, bool, float]:
        breaker = self._breakers[address]
        is_open = not breaker.allows(now, self._config)
        return (
            is_open,
            address in tried,
            now < self._leaving.get(address, now),
            now < self._denying.get(address, now),
            breaker.retry_at(self._config) if is_open else 0.0,
        )
