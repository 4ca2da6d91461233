"""Lowering a pool answers who can no longer be served, and serves those behind."""

from __future__ import annotations

import json
import os

from tests.cases.place import Place


def case(place: Place) -> None:
    place.start_node(seats=3)
    go_on = place.folder / "go-on"
    os.mkfifo(go_on)
    holder = place.spawn(
        "run", "--pool", "p", "--seats", "1", "--", "sh", "-c", f"read x < {go_on}"
    )
    place.wait_until(lambda: place.held() == 1, what="a holder of one seat")
    large = place.spawn("run", "--pool", "p", "--seats", "3", "--", "true")
    place.wait_until(lambda: _queued(place) == 1, what="a large request that waits")
    small = place.spawn("run", "--pool", "p", "--", "true")
    place.wait_until(lambda: _queued(place) == 2, what="a small request behind it")

    lowered = place.seatkeeper("pool", "update", "p", "--seats", "2")
    assert lowered.returncode == 0, lowered.stderr.decode()

    _, reported = large.communicate(timeout=60)
    assert large.returncode != 0, "the large request was served"
    assert b"3 seats" in reported, f"the reason is missing: {reported!r}"
    assert small.wait(60) == 0, "the small request was not served"
    go_on.write_text("x\n")
    assert holder.wait(60) == 0


def _queued(place: Place) -> int:
    listed = place.seatkeeper("pool", "list", "--json")
    assert listed.returncode == 0, listed.stderr.decode()

    return int(
        next(p["queued"] for p in json.loads(listed.stdout)["pools"] if p["name"] == "p")
    )
