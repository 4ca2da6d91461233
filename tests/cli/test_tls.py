"""The options for TLS: against a node that wants a certificate of its clients."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.commands import address_of, in_process, seatkeeper, serving
from tests.client.certificates import Authority

from seatkeeper.cli.exits import Exit


def test_a_node_that_wants_certificates(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("node")
    our_cert, our_key = authority.issue("alice")
    flags = ("--tls-cert-file", str(cert), "--tls-key-file", str(key))
    asking = ("--tls-client-ca-file", str(authority.ca), "--administrators", "dns:alice")
    with serving(tmp_path / "node", *flags, *asking) as node:
        address = address_of(node)
        ours = {
            "SEATKEEPER_NODES": address,
            "SEATKEEPER_TLS_CA": str(authority.ca),
            "SEATKEEPER_TLS_CERT": str(our_cert),
            "SEATKEEPER_TLS_KEY": str(our_key),
        }
        in_process("pool", "create", "tensorrt", "--seats", "1", environ=ours).check()
        show = "seatkeeper token show $SEATKEEPER_TOKEN_FILE --json"
        shown = seatkeeper("run", "--", "sh", "-c", show, environ=ours).check()
        assert "x5t#S256" in json.loads(shown.out)["claims"]["cnf"]

        status = ("status", "--nodes", address, "--timeout", "1")
        assert "speaks TLS" in seatkeeper(*status).refused(Exit.UNAVAILABLE)
        ca_only = seatkeeper(*status, "--tls-ca", str(authority.ca))
        assert "client certificate" in ca_only.refused(Exit.UNAVAILABLE)
    missing = in_process("status", "--tls-ca", str(tmp_path / "absent.pem"))
    assert "absent.pem" in missing.refused(Exit.USAGE)
