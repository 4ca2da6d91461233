"""A web proxy in the environment, where nothing listens: the service is reached all the same."""

from __future__ import annotations

from tests.cases.place import Place

PROXY = "http://127.0.0.1:9"


def case(place: Place) -> None:
    """Run a command under a seat, and ask the doctor, with each kind of `no_proxy`."""
    place.start_node()
    for no_proxy in ("", "10.0.0.0/8", "example.com"):
        environment = {
            "http_proxy": PROXY,
            "https_proxy": PROXY,
            "grpc_proxy": PROXY,
            "all_proxy": PROXY,
            "no_proxy": no_proxy,
        }
        done = place.seatkeeper(
            "run", "--timeout", "10", "--pool", "p", "--", "echo", "ran", env=environment
        )
        assert (done.returncode, done.stdout) == (0, b"ran\n"), (no_proxy, done)
    asked = place.seatkeeper("doctor", env=environment)
    assert b"cannot be reached" not in asked.stdout + asked.stderr, asked
    assert asked.returncode == 0, asked
