from __future__ import annotations

import pytest

from seatkeeper.core.address import parse_address, parse_list


@pytest.mark.parametrize(
    ("given_as", "address"),
    [
        ("a:1", "a:1"),
        (" seats-1.example.com:7420 ", "seats-1.example.com:7420"),
        ("seats.example.com.:7420", "seats.example.com.:7420"),
        ("10.0.0.1:7420", "10.0.0.1:7420"),
        ("[::1]:7420", "[::1]:7420"),
        ("[fe80::1%eth0]:7420", "[fe80::1%eth0]:7420"),
        ("[::ffff:10.0.0.1]:65535", "[::ffff:10.0.0.1]:65535"),
    ],
)
def test_an_address_is_read(given_as: str, address: str) -> None:
    assert str(parse_address(given_as)) == address


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("http://a:1", "without a scheme"),
        ("a:1/path", "from 1 to 65535"),
        ("unix:/run/seats.sock", "without a scheme"),
        ("dns:///a:1", "without a scheme"),
        ("ipv6:[::1]:1", "without a scheme"),
        ("::1", r"\[::1\]:7420"),
        ("::1:7420", r"\[::1\]:7420"),
        ("fe80::1%eth0:7420", r"\[::1\]:7420"),
        ("[::1]", "it has no port"),
        ("[::1]7420", r"is not \[host\]:port"),
        ("[::1", r"is not \[host\]:port"),
        ("[10.0.0.1]:1", "no IPv6 address"),
        ("[::g]:1", "no IPv6 address"),
        ("[fe80::1%]:1", "no IPv6 address|no zone"),
        ("[fe80::1%a/b]:1", "no zone"),
        ("a", "has no port"),
        ("a:", "has no port"),
        (":1", "has no host"),
        ("a:0", "port 0"),
        ("a:65536", "from 1 to 65535"),
        ("a:-1", "from 1 to 65535"),
        ("a:seven", "from 1 to 65535"),
        ("a:\u0661", "from 1 to 65535"),
        ("a b:1", "not host:port"),
        ("-a:1", "not host:port"),
        ("a..b:1", "not host:port"),
        ("user@a:1", "not host:port"),
        ("*:1", "not host:port"),
        ("a\n:1", "not host:port"),
        ("seäts:1", "in ASCII"),
        ("a\udce9:1", "in ASCII"),
        ("999.0.0.1:1", "no IPv4 address"),
        ("10.0.1:1", "no IPv4 address"),
    ],
)
def test_a_wrong_address_is_answered_by_what_is_wrong(wrong: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_address(wrong)


def test_port_0_is_for_who_listens() -> None:
    assert parse_address("[::]:0", port_min=0) == ("::", 0)


@pytest.mark.parametrize(
    ("text", "everywhere"),
    [("0.0.0.0:1", True), ("[::]:1", True), ("[0:0::0]:1", True), ("[::1]:1", False)],
)
def test_it_is_known_which_means_everywhere(text: str, everywhere: bool) -> None:
    assert parse_address(text).is_everywhere is everywhere


def test_a_list_may_end_with_a_comma_and_has_no_holes() -> None:
    assert list(map(str, parse_list("a:1, [::1]:2,"))) == ["a:1", "[::1]:2"]
    with pytest.raises(ValueError, match="empty place"):
        parse_list("a:1,,b:2")
    with pytest.raises(ValueError, match="empty place"):
        parse_list(",a:1")
