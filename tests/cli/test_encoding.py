"""Names that are not UTF-8, and locales that know only ASCII: found first, or no trouble at all."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from tests.cli.commands import SCRIPT, environment
from tests.cli.conftest import Cluster

from seatkeeper.cli.exits import Exit

LATIN = b"caf\xe9"
PLAIN = {"LC_ALL": "C"}
STRICT = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""Where Python has nothing but ASCII."""


def command(
    cluster: Cluster, *arguments: str | bytes, **more: str | bytes
) -> subprocess.CompletedProcess[bytes]:
    environ = {os.fsencode(k): os.fsencode(v) for k, v in environment(**PLAIN).items()}
    environ |= {
        os.fsencode(k): v.encode() if isinstance(v, str) else v for k, v in more.items()
    }
    environ[b"SEATKEEPER_NODES"] = cluster.address.encode()
    done = subprocess.run(
        [SCRIPT, *arguments],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        env=environ,
        check=False,
    )
    assert b"Traceback" not in done.stderr
    assert b"no node answered" not in done.stderr
    return done


WRONG: dict[str, tuple[tuple[str | bytes, ...], dict[str, str | bytes], bytes]] = {
    "pool": (("run", "--pool", LATIN, "--", "true"), {}, b"pool"),
    "project": (
        ("run", "--project", LATIN, "--", "true"),
        {},
        b"--project or SEATKEEPER_PROJECT",
    ),
    "holder": (
        ("run", "--", "true"),
        {"SEATKEEPER_HOLDER": LATIN},
        b"--holder or SEATKEEPER_HOLDER",
    ),
    "nodes": (("status", "--nodes", LATIN + b":1"), {}, b"--nodes or SEATKEEPER_NODES"),
    "status": (("status", LATIN), {}, b"name"),
    "create": (("pool", "create", LATIN, "--seats", "1"), {}, b"name"),
    "description": (
        ("pool", "create", "p", "--seats", "1", "--description", LATIN),
        {},
        b"description",
    ),
    "update": (("pool", "update", LATIN, "--seats", "1"), {}, b"name"),
    "delete": (("pool", "delete", LATIN), {}, b"name"),
    "show": (("pool", "show", LATIN), {}, b"name"),
    "engine": (("engines", "get", LATIN * 16, "-o", "/dev/null"), {}, b"key"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C.UTF-8"}, PLAIN, STRICT], ids=lambda v: v["LC_ALL"]
)
def test_what_cannot_be_sent_is_refused_before_anybody_is_asked(
    cluster: Cluster, name: str, locale: dict[str, str]
) -> None:
    arguments, more, says = WRONG[name]
    done = command(cluster, *arguments, **locale, **more)
    assert (done.returncode, done.stdout) == (Exit.USAGE, b""), done
    assert done.stderr.startswith(b"seatkeeper: " + says), done
    assert done.stderr.isascii()
    if locale is STRICT:  # where writing it could fail: JSON is ASCII in all of them
        as_json = command(cluster, arguments[0], *_with_json(arguments), **locale, **more)
        assert json.loads(as_json.stderr)["exit_code"] == Exit.USAGE


def _with_json(arguments: tuple[str | bytes, ...]) -> tuple[str | bytes, ...]:
    words = arguments[1:]
    at = 1 if arguments[0] in ("pool", "engines") else 0
    return (*words[:at], "--json", *words[at:])


@pytest.mark.parametrize("locale", [PLAIN, STRICT], ids=lambda v: v["LC_ALL"])
def test_utf8_is_text_where_the_locale_knows_ascii_only(
    cluster: Cluster, locale: dict[str, str]
) -> None:
    pool = cluster.pool()
    name = "René 東京".encode()
    changed = command(cluster, "pool", "update", pool, "--description", name, **locale)
    assert changed.returncode == 0, changed
    shown = command(cluster, "pool", "show", pool, **locale)
    assert shown.returncode == 0, shown
    # Where Python has UTF-8 all the same, it is written.
    assert (rb"Ren\xe9" if locale is STRICT else name) in shown.stdout
    listed = command(cluster, "pool", "show", pool, "--json", **locale)
    assert json.loads(listed.stdout)["description"] == "René 東京"
    held = command(
        cluster,
        "run",
        "--pool",
        pool,
        "--",
        "printf",
        "%s",
        LATIN,
        SEATKEEPER_HOLDER=name,
        **locale,
    )
    assert (held.returncode, held.stdout) == (0, LATIN), held
    missing = command(cluster, "run", "--pool", pool, "--", LATIN, **locale)
    assert missing.returncode == Exit.NO_COMMAND, missing


def test_files_that_are_not_there_are_named_in_any_encoding(
    cluster: Cluster, tmp_path: Path
) -> None:
    gone = os.fsencode(tmp_path) + b"/" + LATIN
    for arguments in (
        ("build", gone, "--target", "SM86"),
        ("engines", "verify", gone),
        ("token", "show", gone),
        ("token", "verify", gone, "--jwks", gone),
    ):
        done = command(cluster, *arguments, **STRICT)
        assert done.returncode == Exit.NOT_FOUND, done
        assert rb"caf\xe9" in done.stderr
