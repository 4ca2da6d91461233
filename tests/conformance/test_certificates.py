"""The suite against a server that asks for certificates, and for an administrator's to make pools."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.commands import address_of, serving
from tests.client.certificates import Authority
from tests.conformance.__main__ import main


@pytest.mark.parametrize(("name", "code"), [("admin", 0), ("ordinary", 1)])
def test_the_suite_shows_a_certificate(tmp_path: Path, name: str, code: int) -> None:
    authority = Authority(tmp_path)
    cert, key = map(str, authority.issue("node"))
    ca = str(authority.ca)
    flags = ("--tls-cert-file", cert, "--tls-key-file", key, "--tls-client-ca-file", ca)
    own_cert, own_key = map(str, authority.issue(name))
    with serving(tmp_path, *flags, "--administrators", "admin") as node:
        target = ["server", "--target", address_of(node), "--script", "closed-pool"]
        shown = ["--tls-ca", ca, "--tls-cert", own_cert, "--tls-key", own_key]
        assert main([*target, *shown]) == code


@pytest.mark.parametrize("given", [["--tls-cert", "a"], ["--tls-ca", "a", "--tls-key", "b"]])
def test_what_is_missing_is_reported(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["server", *given]) == 2
    assert "--tls-" in capsys.readouterr().err
