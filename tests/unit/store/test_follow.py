"""A view of a prefix stays up to date, whatever is raised while it is brought up to date."""

from __future__ import annotations

import logging

import pytest
from tests.unit.kit import eventually

from seatkeeper.server.store import Listing, MemoryStore, Put, WatchBatch
from seatkeeper.server.store import follow as following
from seatkeeper.server.store.follow import Follower


class View:
    """The values below a prefix; a change of the key ``odd`` is a surprise, twice in a listing."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.surprises = 2

    def reset(self, listing: Listing) -> None:
        values = {entry.key: entry.value for entry in listing.entries}
        if "/a/odd" in values and self.surprises:
            self.surprises -= 1
            raise KeyError("a surprise in a listing")
        self.values = values

    def apply(self, batch: WatchBatch) -> None:
        if batch.changes:
            raise ValueError("a surprise in a watch")


class Observer:
    def __init__(self) -> None:
        self.reasons: list[str] = []

    def relisted(self, what: str, reason: str, /) -> None:
        assert what == "/a/"
        self.reasons.append(reason)


async def test_a_surprise_ends_no_view(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PAUSE_MIN", 0.01)
    store, view, observer = MemoryStore(now=lambda: 1.0), View(), Observer()
    follower = Follower(store, "/a/", view, observer)
    follower.start()
    await follower.ready()
    await eventually(lambda: follower.is_current)

    await store.commit([Put("/a/odd", b"1")])
    await eventually(lambda: view.values == {"/a/odd": b"1"})

    assert observer.reasons == [
        "ValueError: a surprise in a watch",
        *["KeyError: 'a surprise in a listing'"] * 2,
    ]
    logged = [each for each in caplog.records if each.getMessage() == "view_failed"]
    assert [each.levelno for each in logged] == [logging.ERROR] * 3
    assert all(each.exc_info for each in logged)
    await follower.stop()
