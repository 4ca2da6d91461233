"""Which names settings may give, and which of a certificate's names they match."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from cryptography import x509
from tests.client.certificates import Authority

from seatkeeper.server.config import ConfigError, load_config
from seatkeeper.server.identity import ANONYMOUS, Name, parse_names
from seatkeeper.server.identity.names import names_in


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def names_shown(authority: Authority, *sans: x509.GeneralName) -> tuple[Name, ...]:
    certificate, _ = authority.issue("admin.example", sans=sans)
    return names_in(certificate.read_bytes())


def dns_as_written(text: str) -> x509.DNSName:
    """Return a DNS name that a careless authority signed, whatever is in it."""
    return x509.DNSName._init_without_validation(text)


def uri_as_written(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier._init_without_validation(text)


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("", set()),
        ("  ", set()),
        ("admin", {Name("dns", "admin")}),
        ("dns:Admin.Example.", {Name("dns", "admin.example")}),
        (" dns:a , uri:spiffe://a/b ", {Name("dns", "a"), Name("uri", "spiffe://a/b")}),
        ("email:Ops@Example.ORG", {Name("email", "Ops@example.org")}),
        ("ip:0:0:0:0:0:0:0:1", {Name("ip", "::1")}),
        ("dns:xn--mller-kva.example", {Name("dns", "xn--mller-kva.example")}),
        ("anonymous", {ANONYMOUS}),
    ],
)
def test_a_setting_is_a_list_of_names(setting: str, names: set[Name]) -> None:
    assert parse_names(setting) == names


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("dns:a,,dns:b", "empty"),
        ("dns:a,", "empty"),
        (",", "empty"),
        ("host:a", "begins with none of dns:, uri:, email:, ip:"),
        ("DNS:a", "begins with none of"),
        ("spiffe://a/b", "begins with none of"),
        ("cn:admin", "common names are not matched"),
        ("dns:*.example", "wildcard"),
        ("*", "wildcard"),
        ("dns:", "not a DNS name"),
        ("dns:a b", "not a DNS name"),
        ("dns:a\0b", "not a DNS name"),
        ("dns:münchen.example", "xn--"),
        ("ops@example.org", "email:"),
        ("10.0.0.1", "ip:"),
        ("ip:10.0.0.0/8", "10.0.0.0/8"),
        ("ip:fe80::1%eth0", "zone"),
        ("uri:admin", "URI"),
        ("uri:spiffe://a/b c", "URI"),
        ("email:admin", "email address"),
    ],
)
def test_what_is_no_name_is_refused_at_start(setting: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        parse_names(setting)
    file = tmp_path / "node.toml"
    with pytest.raises(ConfigError, match="administrators"):
        load_config(file if file.exists() else None, {"administrators": setting})


def test_a_file_may_have_a_list(tmp_path: Path, authority: Authority) -> None:
    cert, key = authority.issue("node")
    file = tmp_path / "node.toml"
    file.write_text(
        f'tls_cert_file = "{cert}"\ntls_key_file = "{key}"\ntls_client_ca_file = "{authority.ca}"\n'
        'administrators = ["dns:a", "uri:spiffe://a/b"]\nagents = []\n'
    )
    config = load_config(file, {})
    assert config.administrators == "dns:a,uri:spiffe://a/b"
    assert config.agents == ""


def test_names_without_certificates_to_match_are_refused() -> None:
    with pytest.raises(ConfigError, match="administrators needs tls_client_ca_file"):
        load_config(None, {"administrators": "dns:admin"})
    with pytest.raises(ConfigError, match="agents needs tls_client_ca_file"):
        load_config(None, {"agents": "dns:agent"})
    assert load_config(None, {"administrators": "anonymous"}).administrators == "anonymous"


def test_anonymous_is_refused_where_everybody_shows_a_certificate(authority: Authority) -> None:
    cert, key = authority.issue("node")
    flags = {
        "tls_cert_file": str(cert),
        "tls_key_file": str(key),
        "tls_client_ca_file": str(authority.ca),
        "administrators": "anonymous",
    }
    with pytest.raises(ConfigError, match="anonymous is for nodes without"):
        load_config(None, flags)


def test_a_certificates_names_keep_their_types(authority: Authority) -> None:
    shown = names_shown(
        authority,
        x509.DNSName("Admin.Example"),
        x509.UniformResourceIdentifier("spiffe://Example/Ops"),
        x509.RFC822Name("ops@Example.org"),
        x509.IPAddress(ipaddress.ip_address("10.0.0.7")),
    )
    assert set(map(str, shown)) == {
        "dns:admin.example",
        "uri:spiffe://Example/Ops",
        "email:ops@example.org",
        "ip:10.0.0.7",
    }


@pytest.mark.parametrize(
    "san",
    [
        uri_as_written("admin.example"),
        uri_as_written("dns:admin.example"),
        uri_as_written("https://admin.example"),
        x509.RFC822Name("admin@admin.example"),
        dns_as_written("*.example"),
        dns_as_written("admin.example\0.evil.example"),
        dns_as_written("admin.example "),
        dns_as_written("admin.example,admin.example"),
        dns_as_written("sub.admin.example"),
        dns_as_written("admin.example.."),
        x509.DirectoryName(
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "admin.example")])
        ),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
    ],
    ids=repr,
)
def test_what_only_looks_like_the_name_is_another(
    authority: Authority, san: x509.GeneralName
) -> None:
    allowed = parse_names("dns:admin.example")
    assert allowed.isdisjoint(names_shown(authority, san))


@pytest.mark.parametrize("written", ["admin.example", "ADMIN.example", "admin.example."])
def test_case_and_a_dot_at_the_end_do_not_make_another_host(
    authority: Authority, written: str
) -> None:
    assert names_shown(authority, dns_as_written(written)) == (Name("dns", "admin.example"),)


def test_a_common_name_is_no_name(authority: Authority) -> None:
    assert names_shown(authority) == ()


def test_any_of_several_names_counts(authority: Authority) -> None:
    shown = names_shown(authority, *(x509.DNSName(f"host-{n}.example") for n in range(50)))
    assert not parse_names("dns:host-49.example").isdisjoint(shown)


def test_bytes_that_are_no_certificate_have_no_names() -> None:
    assert names_in(b"") == names_in(b"-----BEGIN CERTIFICATE-----\nAAAA\n") == ()
