"""The Python client with a deliberate defect, for test_planted_defects.py: ``... DEFECT``."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import grpc
from grpc import aio
from tests.conformance.python_driver import drive

from seatkeeper.client.session import driver as _session
from seatkeeper.client.session import holding
from seatkeeper.client.session import lease as _lease
from seatkeeper.client.session import machine as _machine
from seatkeeper.client.session import node_link as _link
from seatkeeper.client.session import tables as _tables
from seatkeeper.core.errors import NoSeatFree
from seatkeeper.core.ids import new_id

SessionMachine: Any = _machine.SessionMachine


def believes_any_answer() -> None:
    """An answer to an older renewal counts, from when it comes."""

    def answered(view: Any, *, now: float, ttl: float, renew_in: float, **_: Any) -> Any:
        return dataclasses.replace(
            view, renewed_at=now, ttl=ttl, renew_at=now + renew_in, sent_at=None
        )

    holding.renewal_answered = answered


def asks_anew_after_a_break() -> None:
    """What was not answered gets a new id on the next stream."""
    send_everything = _tables.Tables.send_everything

    def renamed(self: _tables.Tables, now: float) -> None:
        for ask in list(self.asks.values()):
            self._rename(ask, now)
        send_everything(self, now)

    _tables.Tables.send_everything = renamed  # type: ignore[method-assign]  # a planted defect


def opens_anew_after_a_break() -> None:
    """A session is never resumed."""
    hello = _lease.LeaseKeeper.hello

    def forgetful(self: _lease.LeaseKeeper) -> Any:
        self.lease = None
        return hello(self)

    _lease.LeaseKeeper.hello = forgetful  # type: ignore[method-assign]  # a planted defect


def takes_the_transport_for_a_denial() -> None:
    """RESOURCE_EXHAUSTED is a denial, from any source."""
    on_stream_end = SessionMachine.on_stream_end

    def denied(self: Any, error: aio.AioRpcError | None, *, was_open: bool) -> bool:
        if error is not None and error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            self.fail_all(NoSeatFree("no seat is free"))
        return bool(on_stream_end(self, error, was_open=was_open))

    SessionMachine.on_stream_end = denied


def stays_after_go_away() -> None:
    """`go_away` is ignored."""
    _link.NodeLink.leave_for = lambda self, within: None  # type: ignore[method-assign]  # a planted defect


def stays_where_it_is_denied() -> None:
    """What a node cannot decide is sent to the same node again."""
    SessionMachine.leave_undecided = lambda self, *, is_repeated: False


def moves_after_every_denial() -> None:
    """What a node cannot decide is sent to the next one, in circles."""

    def moved(self: Any, *, is_repeated: bool) -> bool:
        self.link.move_on()
        return True

    SessionMachine.leave_undecided = moved


def takes_any_denial_for_a_release() -> None:
    """A release that is denied, for any reason, is taken for done."""
    vars(_tables)["is_released"] = lambda denied: True


def keeps_unwanted_grants() -> None:
    """An unwanted grant is kept, and renewed forever."""
    on_granted = _tables.Tables.on_granted

    def kept(self: _tables.Tables, granted: Any, now: float) -> None:
        if granted.grant_id in self.asks or granted.grant_id in self.held:
            on_granted(self, granted, now)

    _tables.Tables.on_granted = kept  # type: ignore[method-assign]  # a planted defect


def numbers_nothing() -> None:
    """Every renewal has the same number."""
    send_renewal = SessionMachine.send_renewal
    SessionMachine.send_renewal = lambda self, lease, sequence: send_renewal(self, lease, 1)


def uses_random_ids() -> None:
    """Ids are UUIDs of another version."""

    def wrong() -> str:
        made = new_id()
        return f"{made[:14]}4{made[15:]}"

    for module in (_session, _lease, _tables):
        vars(module)["new_id"] = wrong


DEFECTS: dict[str, Callable[[], None]] = {
    function.__name__: function
    for function in (
        believes_any_answer,
        asks_anew_after_a_break,
        opens_anew_after_a_break,
        takes_the_transport_for_a_denial,
        stays_after_go_away,
        stays_where_it_is_denied,
        moves_after_every_denial,
        takes_any_denial_for_a_release,
        keeps_unwanted_grants,
        numbers_nothing,
        uses_random_ids,
    )
}

if __name__ == "__main__":
    DEFECTS[sys.argv[1]]()
    # In this process: a helper process would not have the defect.
    asyncio.run(drive({"keeper": "process"}))
