"""Which node decides for a pool. Pure; nodes and clients share it, so that they agree."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from uhashring import HashRing


@dataclass(frozen=True, slots=True)
class Ring:
    """The nodes that take work, and where they are."""

    revision: int = 0
    """Grows with every change; an older ring says nothing."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Address (``host:port``) by node id."""

    def owner(self, pool: str, *, without: Collection[str] = ()) -> str | None:
        """Return the id of the node that decides for ``pool``; None: there is no node.

        ``without``: nodes to leave out, such as those that do not answer. Consistent hashing (Karger et
        al., 1997): a node that comes or goes moves only the pools that it takes or leaves.
        """
        return _owner(pool, tuple(self.addresses), frozenset(without))


@lru_cache(maxsize=10_000)
def _owner(pool: str, node_ids: tuple[str, ...], without: frozenset[str]) -> str | None:
    """Decide it once: this is asked for every batch of requests."""
    live = tuple(sorted(set(node_ids) - without))
    return str(_hash_ring(live).get_node(pool)) if live else None


@lru_cache(maxsize=16)
def _hash_ring(node_ids: tuple[str, ...]) -> HashRing:
    return HashRing(nodes=list(node_ids))
