"""Every line of a node's log is JSON, whatever strangers send, and no text begins one of its own."""

from __future__ import annotations

import json
import socket

from tests.cases.place import Place

HOLDER = 'eve {"event": "granted"} \\n'


def case(place: Place) -> None:
    node = place.start_node("--log-level", "debug")
    host, _, port = node.address.rpartition(":")
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\n{}\n"):
        with socket.create_connection((host, int(port))) as stranger:
            stranger.sendall(garbage)
    held = place.seatkeeper("run", "--pool", "p", "--holder", HOLDER, "--", "true")
    assert held.returncode == 0, held
    place.seatkeeper("run", "--pool", "nowhere", "--", "true")
    assert node.stop() == 0
    lines = [json.loads(line) for line in node.log.read_text().splitlines()]
    by_event = {line["event"]: line for line in lines}
    for event in ("granted", "released", "denied", "session_opened", "drain_finished"):
        assert event in by_event, f"no {event} among {sorted(by_event)}"
    assert by_event["granted"]["holder"] == HOLDER
    assert by_event["granted"]["request_id"]
