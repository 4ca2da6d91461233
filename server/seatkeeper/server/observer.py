"""What a node tells its operator while it works: the seam between the core and its metrics.

The core calls these; ``metrics.py`` counts them. Doing nothing is the default, so that the core
runs, in tests and in users' tests, without a metrics library.
"""

from __future__ import annotations


class Observer:
    """Hears what happens. Called on the event loop: must be quick, and must not raise."""

    def committed(self, pool: str, *, commands: int, writes: int, seconds: float) -> None:
        """A decision took effect."""

    def conflicted(self, pool: str) -> None:
        """A decision was made on an old view: somebody else had decided. It is made again."""

    def outcome_unknown(self, pool: str) -> None:
        """The store did not answer a commit; the pool is read again."""

    def store_failed(self, pool: str, reason: str) -> None:
        """The store refused a commit or could not be reached."""

    def dead_session(self, pool: str) -> None:
        """A session in a batch had ended; its commands were set apart."""

    def relisted(self, what: str, reason: str) -> None:
        """A watch ended, and its view was read again."""

    def granted(self, pool: str, *, waited_millis: int) -> None:
        """A grant was decided by this node."""

    def denied(self, pool: str, reason: str) -> None:
        """A command was refused by this node."""

    def pool_changed(self, pool: str, *, capacity: int, held: int, queued: int) -> None:
        """The node's view of a pool changed."""

    def forwarded(self, pool: str, *, commands: int) -> None:
        """Commands were passed on to the pool's owner, and answered."""

    def forward_failed(self, pool: str) -> None:
        """The pool's owner did not answer; this node decides itself."""

    def ring_changed(self, *, nodes: int, silent: int) -> None:
        """Nodes have come or gone, or begun or ceased to answer this one."""

    def stream_opened(self) -> None:
        """A session stream began on this node."""

    def stream_closed(self) -> None:
        """A session stream ended on this node."""
