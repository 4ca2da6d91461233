"""Every way to write an address: read, or refused at once by what is wrong with it."""

from __future__ import annotations

from tests.cases.place import Place

WRONG = {
    "::1": b"[::1]:7420",
    "::1:7420": b"[::1]:7420",
    "http://127.0.0.1:7420": b"without a scheme",
    "unix:/run/seats.sock": b"without a scheme",
    "127.0.0.1": b"it has no port",
    "127.0.0.1:0": b"port 0",
    "127.0.0.1:65536": b"from 1 to 65535",
    "127.0.0.1:seven": b"from 1 to 65535",
    "127.0.0.1:1,,127.0.0.1:2": b"empty place",
    ":7420": b"has no host",
}


def case(place: Place) -> None:
    """Serve on IPv6, take a seat there, and give wrong addresses to a client and to a node."""
    node = place.start_node("--listen", "[::1]:0")
    assert node.address.startswith("[::1]:"), node.address
    done = place.seatkeeper("run", "--nodes", node.address, "--pool", "p", "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (0, b"ran\n"), done
    for wrong, why in WRONG.items():
        refused = place.seatkeeper("status", "--nodes", wrong)
        assert refused.returncode == 2, (wrong, refused)
        assert why in refused.stderr, (wrong, refused)
    forbidden = place.seatkeeper("serve", "--store", "memory", "--listen", "192.0.2.1:7420")
    assert forbidden.returncode == 78, forbidden
    assert b"not an address of this machine" in forbidden.stderr, forbidden
