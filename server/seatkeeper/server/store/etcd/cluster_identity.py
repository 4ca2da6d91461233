"""Which cluster a store is of, and which answers are another's.

Theory of operation. etcd puts the id of its cluster into every answer. The first that is seen is ours;
an answer with another one is not believed, and neither is one whose revision is lower than one that
had been answered before it was asked for: revisions only grow, so that etcd was restored from a
snapshot, or wiped. An endpoint that gave such an answer is *foreign*. It is looked at again every
``RECHECK_SECONDS``, by a question that changes nothing, and left out until it answers as ours would.

A question of that kind also comes before the first use of an endpoint, and before each use after a
failure, which may have been the exchange of one etcd by another. So nothing is written into another's
keys. What is written in the moment between is refused by its comparisons, and not believed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from seatkeeper.etcd.v3 import etcd_pb2 as pb

logger = logging.getLogger(__name__)

RECHECK_SECONDS = 2.0
ADVICE = (
    "take the endpoint out of etcd_endpoints; or, if that etcd was restored or replaced on purpose, "
    "stop all nodes and run `seatkeeper adopt`"
)


class ClusterIdentity:
    """What one store knows of its cluster."""

    def __init__(self) -> None:
        self.cluster_id = 0
        """0: nothing was answered yet."""
        self.revision = 0
        """The highest that a linearizable answer had."""
        self.foreign: dict[str, str] = {}
        """Why endpoints are left out, by their addresses."""
        self.on_change: list[Callable[[], None]] = []
        """Called when ``foreign`` has changed."""

    def pin(self, cluster_id: int) -> None:
        """Take this cluster for ours; raise ``AssertionError`` when another was already."""
        assert self.cluster_id in {0, cluster_id}
        self.cluster_id = cluster_id

    def complaint(self, header: pb.ResponseHeader, floor: int = 0) -> str:
        """Return why an answer is another cluster's, or "" when it may be ours.

        ``floor``: the revision that the answer must have reached; 0: it need not.
        """
        theirs = header.cluster_id
        if theirs == 0:  # not reported
            return ""
        if self.cluster_id == 0:
            self.cluster_id = theirs
        if theirs != self.cluster_id:
            return f"it is of etcd cluster {theirs:x}, and this node serves {self.cluster_id:x}"
        if header.revision < floor:
            return (
                f"its revision went back from {floor} to {header.revision}: it was restored from a "
                "snapshot, or wiped"
            )
        return ""

    def seen(self, revision: int) -> None:
        """Note the revision of a linearizable answer."""
        self.revision = max(self.revision, revision)

    def exclude(self, address: str, complaint: str) -> None:
        """Note that an endpoint is another cluster's."""
        if self.foreign.get(address) == complaint:
            return
        is_new = address not in self.foreign
        self.foreign[address] = complaint
        if is_new:
            logger.error(
                "etcd_foreign",
                extra={"endpoint": address, "reason": complaint, "hint": ADVICE},
            )
            self._notify()

    def admit(self, address: str) -> None:
        """Note that an endpoint is ours."""
        if self.foreign.pop(address, None) is not None:
            logger.warning("etcd_ours_again", extra={"endpoint": address})
            self._notify()

    def describe(self) -> str:
        """Return what is wrong with the endpoints that are left out."""
        said = "; ".join(f"{address}: {why}" for address, why in self.foreign.items())
        return f"{said}. To fix it: {ADVICE}"

    def _notify(self) -> None:
        for callback in self.on_change:
            callback()
