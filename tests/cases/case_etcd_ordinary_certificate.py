"""Under mutual TLS an ordinary certificate changes no pool and drains no node; it takes seats."""

from __future__ import annotations

from tests.cases.place import Place
from tests.client.certificates import Authority


def case(place: Place) -> None:
    authority = Authority(place.folder)
    files = {name: authority.issue(name) for name in ("node", "admin", "agent", "ci-runner")}

    def shown(name: str) -> dict[str, str]:
        cert, key = files[name]
        return {"SEATKEEPER_TLS_CERT": str(cert), "SEATKEEPER_TLS_KEY": str(key)}

    place.env = {"SEATKEEPER_TLS_CA": str(authority.ca), **shown("admin")}
    cert, key = files["node"]
    place.start_node(
        *("--tls-cert-file", str(cert), "--tls-key-file", str(key)),
        *("--tls-client-ca-file", str(authority.ca), "--node-id", "n"),
        *("--administrators", "dns:admin", "--agents", "dns:agent"),
    )
    for name in ("ci-runner", "agent"):
        for words in (
            ("pool", "update", "p", "--seats", "1000"),
            ("pool", "create", "mine", "--seats", "1"),
            ("pool", "delete", "p"),
            ("node", "drain", "n"),
        ):
            refused = place.seatkeeper(*words, env=shown(name))
            said = refused.stderr.decode()
            assert refused.returncode != 0, f"{name}: {' '.join(words)} succeeded"
            assert f"dns:{name}" in said, said
            assert "`administrators`" in said, said
    listed = place.seatkeeper("pool", "list", "--json", env=shown("ci-runner"))
    assert b'"seats": 2' in listed.stdout, listed
    taken = place.seatkeeper("run", "--pool", "p", "--", "true", env=shown("ci-runner"))
    assert taken.returncode == 0, taken.stderr
    updated = place.seatkeeper("pool", "update", "p", "--seats", "3")
    assert updated.returncode == 0, updated.stderr
