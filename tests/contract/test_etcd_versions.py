"""What is said about versions of etcd."""

from __future__ import annotations

import pytest

from seatkeeper.server.store.etcd import version_warnings


def test_a_good_version_has_no_warnings() -> None:
    for version in ("3.5.33", "3.6.14", "v3.5.40", "3.7.0", "4.0.1"):
        assert version_warnings(version) == ()


def test_each_defect_goes_with_the_release_that_fixed_it() -> None:
    assert "pause" in "".join(version_warnings("3.5.27"))
    assert "pause" not in "".join(version_warnings("3.5.28"))
    assert len(version_warnings("3.5.30")) == 1
    assert len(version_warnings("3.6.0")) == 5


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("3.5.1", "committed writes can be missing"),
        ("3.5.5", "disagree about users"),
        ("3.4.23", "revokes leases that are alive"),
        ("3.4.45", "no fixes"),
        ("3.5.13", "backwards"),
        ("3.3.25", "older than 3.4"),
        ("later", "not a version"),
        ("", "does not report"),
    ],
)
def test_a_version_with_defects_names_them(version: str, says: str) -> None:
    assert any(says in warning for warning in version_warnings(version))


def test_defects_that_came_later_are_not_in_earlier_releases() -> None:
    assert not any("disagree" in warning for warning in version_warnings("3.5.4"))
    assert not any("missing on" in warning for warning in version_warnings("3.4.23"))
