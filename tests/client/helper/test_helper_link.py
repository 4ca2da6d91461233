"""Sending to the helper: in order, whole, and also from within itself.

The garbage collector ends forgotten clients, and does so at any moment, also in the middle of a send
of the same thread. One that waited for the sender's lock would wait forever.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from seatkeeper.client import HelperLost
from seatkeeper.client.helper import link as links
from seatkeeper.client.helper import spawn
from seatkeeper.client.helper.frames import Decoder, frame
from seatkeeper.client.helper.link import Link
from seatkeeper.client.helper.slots import boot_ms

PIECE = 7


class Wire:
    """A socket that takes a few bytes at a time, and does something else in between."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.takes = PIECE
        self.meanwhile: Callable[[], None] | None = None

    def send(self, data: memoryview) -> int:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        if not self.takes:
            raise BlockingIOError
        return self._sock.send(data[: self.takes])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


@pytest.fixture
def ends() -> Iterator[tuple[Link, Wire, socket.socket]]:
    """A link whose thread does not run, its wire, and the helper's end of it."""
    ours, theirs = socket.socketpair()
    wire = Wire(ours)
    helper = spawn.Helper(
        cast("socket.socket", wire), cast("Any", bytearray(64)), boot_ms(), errors=-1
    )
    link = Link(helper)
    theirs.settimeout(10)
    with ours, theirs, link._woken, link._wake:
        yield link, wire, theirs


def received(theirs: socket.socket, count: int) -> list[str]:
    decoder, ops = Decoder(), list[str]()
    while len(ops) < count:
        ops += [message.op for message in decoder.feed(theirs.recv(1 << 16))]
    return ops


def test_what_is_sent_within_a_send_comes_after_it_and_holds_nothing_up(
    ends: tuple[Link, Wire, socket.socket],
) -> None:
    link, wire, theirs = ends
    wire.meanwhile = lambda: link.notify(frame("forget", client=1))
    link.send(frame("acquire", id=2))
    assert received(theirs, 2) == ["acquire", "forget"]


def test_what_is_not_taken_now_is_sent_later_in_order(
    ends: tuple[Link, Wire, socket.socket],
) -> None:
    link, wire, theirs = ends
    wire.takes = 0
    for op in ("open", "acquire", "release"):
        link.send(frame(op))
    wire.takes = PIECE
    link._flush()
    assert received(theirs, 3) == ["open", "acquire", "release"]


def test_a_helper_that_does_not_read_has_a_bounded_outbox(
    ends: tuple[Link, Wire, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    link, wire, theirs = ends
    monkeypatch.setattr(links, "BACKLOG_BYTES_MAX", 100)
    wire.takes = 0
    for _ in range(2):
        link.send(frame("acquire", pool="p" * 60))
    with pytest.raises(HelperLost, match="does not read"):
        link.send(frame("acquire"))
    # Once it reads again, there is room again.
    wire.takes = 1 << 16
    link._flush()
    link.send(frame("acquire"))
    assert "acquire" in received(theirs, 1)
