"""The Debian archive that a machine already trusts, used without root.

The machine's own sources name the archive and the keyring, so a mirror or a proxy that works for
``apt`` works here, and no address is written into this project. apt runs on private folders: the
machine's package lists, sources and database are neither used nor changed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SUITES = ("sid", "testing", "stable")
"""Newest first."""

APT_SECONDS_MAX = 300
LIBRARY_ROUNDS_MAX = 8
"""Libraries may miss libraries; so often is looked again."""
DEFAULT_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class FetchError(Exception):
    """Nothing was fetched; the message says why."""


@dataclass(frozen=True)
class Archive:
    """A Debian archive, as the machine's own sources name it."""

    uri: str
    keyring: str
    suite: str
    """The suite that the machine itself uses."""


def machine_archive() -> Archive:
    """Return the archive that this machine takes its packages from. Raises ``FetchError``."""
    missing = [tool for tool in ("apt-get", "apt-cache", "dpkg") if shutil.which(tool) is None]
    if missing:
        raise FetchError(f"this is not a Debian machine (no {missing[0]})")
    archive = find_archive(Path("/etc/apt"), _codename(Path("/etc/os-release")))
    if archive is None:
        raise FetchError("the machine's apt sources name no Debian archive")
    return archive


def find_archive(apt: Path, codename: str) -> Archive | None:
    """Return the archive that the sources below ``apt`` (``/etc/apt``) take ``codename`` from.

    Reads both forms of sources, ``*.sources`` and ``*.list``. Suites of security updates and of
    other vendors have other names, and are passed over.
    """
    files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    wanted = {codename, *SUITES, "unstable", "oldstable"}
    for file in files:
        try:
            text = file.read_text(errors="replace")
        except OSError:
            continue
        entries = {".sources": _parse_deb822, ".list": _parse_lines}.get(file.suffix)
        for uris, suites, components, keyring in entries(text) if entries else ():
            suite = next((suite for suite in suites if suite in wanted), None)
            uri = next((uri for uri in uris if not uri.startswith("cdrom:")), None)
            if suite is not None and uri is not None and "main" in components:
                return Archive(uri, keyring or DEFAULT_KEYRING, suite)
    return None


_Source = tuple[list[str], list[str], list[str], str | None]
"""URIs, suites, components, and the keyring's path."""


def _parse_deb822(text: str) -> Iterator[_Source]:
    for stanza in re.split(r"\n\s*\n", text):
        lines = [line for line in stanza.splitlines() if not line.startswith("#")]
        fields = _fields("\n".join(lines))
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes") != "no":
            keyring = fields.get("signed-by", "").strip()
            yield (
                fields.get("uris", "").split(),
                fields.get("suites", "").split(),
                fields.get("components", "").split(),
                keyring if keyring.startswith("/") else None,
            )


def _fields(stanza: str) -> Mapping[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line[:1].isspace():
            fields[name] = fields.get(name, "") + "\n" + line
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields


def _parse_lines(text: str) -> Iterator[_Source]:
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[(?P<options>[^]]*)\]\s*)?(?P<rest>[^#]+)", line.strip())
        if match is None:
            continue
        uri, suite, *components = [*match["rest"].split(), ""][:12]
        keyring = re.search(r"signed-by=(/\S+)", match["options"] or "")
        yield [uri], [suite], components, keyring[1] if keyring else None


def _codename(os_release: Path) -> str:
    try:
        match = re.search(
            r"^VERSION_CODENAME=\"?([\w-]+)", os_release.read_text(), re.MULTILINE
        )
    except OSError:
        return ""
    return match[1] if match else ""


def open_suite(folder: Path, archive: Archive, suite: str) -> None:
    """Make ``folder`` one that `apt` works on, and read what the suite has. Raises ``FetchError``."""
    for part in ("parts", "state/lists/partial", "cache/archives/partial", "root"):
        (folder / part).mkdir(parents=True)
    (folder / "state" / "status").touch()
    (folder / "parts" / "archive.sources").write_text(
        f"Types: deb\nURIs: {archive.uri}\nSuites: {suite}\nComponents: main\n"
        f"Signed-By: {archive.keyring}\n"
    )
    apt(folder, "apt-get", "update", "--quiet=2")
    if not any((folder / "state" / "lists").glob("*Release")):
        # Which apt calls a warning.
        raise FetchError(f"{archive.uri} cannot be reached, or has no such suite")


def candidate(folder: Path, package: str) -> str | None:
    """Return the version of ``package`` that the suite of ``folder`` has, if it has one."""
    policy = apt(folder, "apt-cache", "policy", package)
    found = re.search(r"Candidate: (\S+)", policy)
    return None if found is None or found[1] == "(none)" else found[1]


def unpack(folder: Path, debs: Path) -> None:
    """Unpack the packages in ``debs`` below ``folder / "root"``. Raises ``FetchError``."""
    for package in sorted(debs.glob("*.deb")):
        _run(["dpkg", "-x", str(package), str(folder / "root")], folder)


def unpack_packages(folder: Path, packages: Sequence[str]) -> None:
    """Download packages of the suite of ``folder`` and unpack them below ``folder / "root"``.

    Those that the suite does not have are passed over. Raises ``FetchError`` if it has none of them.
    """
    there = [name for name in packages if candidate(folder, name) is not None]
    if not there:
        raise FetchError(f"it has no {packages[0]}, or cannot be reached")
    debs = folder / "debs"
    debs.mkdir(exist_ok=True)
    for old in debs.glob("*.deb"):
        old.unlink()
    apt(folder, "apt-get", "download", "--quiet=2", *there)
    for deb in folder.glob("*.deb"):
        deb.replace(debs / deb.name)
    unpack(folder, debs)


def add_libraries(folder: Path, program: Path, packages: Sequence[str]) -> None:
    """Put into ``folder / "lib"`` the shared libraries of ``program`` that the machine does not have.

    They are looked for in ``packages``, which it came in, and in what those depend on. Raises
    ``FetchError`` if one of them is in none.
    """
    libraries = folder / "lib"
    libraries.mkdir(exist_ok=True)
    for _ in range(LIBRARY_ROUNDS_MAX):
        missing = _missing_libraries(program, libraries)
        if not missing:
            return
        # One step further from the program each time: most need no more than one or two.
        packages = _library_packages(folder, packages)
        if packages:
            unpack_packages(folder, packages)
        for name in missing:
            for source in (folder / "root").rglob(name):
                shutil.copy2(source.resolve(), libraries / name)
    raise FetchError(f"{program.name} needs {missing[0]}, which none of its packages has")


def _missing_libraries(program: Path, libraries: Path) -> list[str]:
    answer = subprocess.run(
        ["ldd", program],
        capture_output=True,
        text=True,
        env=os.environ | {"LD_LIBRARY_PATH": str(libraries), "LC_ALL": "C"},
        check=False,
    )
    return re.findall(r"^\s*(\S+) => not found", answer.stdout, re.MULTILINE)


def _library_packages(folder: Path, packages: Sequence[str]) -> list[str]:
    """Return the packages with libraries that these depend on."""
    answer = apt(folder, "apt-cache", "depends", "--important", *packages)
    found = re.findall(r"^\s*(?:Pre)?Depends: (lib\S+)", answer, re.MULTILINE)
    # The C library must be the one that the machine's loader belongs to.
    return [name for name in dict.fromkeys(found) if not name.startswith("libc6")]


def apt(folder: Path, *command: str) -> str:
    """Run an apt program on folders of our own, in ``folder``, and return what it says."""
    settings = {
        "Dir::Etc::sourcelist": "/nonexistent",
        "Dir::Etc::sourceparts": folder / "parts",
        "Dir::Etc::preferences": "/nonexistent",
        "Dir::Etc::preferencesparts": "/nonexistent",
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "state" / "status",
        "Dir::Cache": folder / "cache",
        "Acquire::Languages": "none",
        "Acquire::Retries": "1",
        "Acquire::http::Timeout": "20",
        "Acquire::https::Timeout": "20",
        # apt's own lesser user could not write into our folder.
        **({"APT::Sandbox::User": "root"} if os.geteuid() == 0 else {}),
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    return _run([command[0], *options, *command[1:]], folder)


def _run(command: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=APT_SECONDS_MAX,
            env=os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise FetchError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["failed"]
        raise FetchError(f"{command[0]}: {lines[0]}")
    return done.stdout
