"""``seatkeeper pool edit``: editors that are programs or fail, and a person at a terminal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.cli.commands import SCRIPT
from tests.cli.conftest import Cluster
from tests.cli.terminal import Terminal

from seatkeeper.cli.exits import Exit

KEPT = re.compile(r"what you wrote is kept in (\S+)")


def an_editor(folder: Path, script: str, name: str = "an editor") -> str:
    """Return a command of an editor whose path has a blank, and that needs its argument."""
    program = folder / name
    program.write_text(f'#!/bin/sh -e\n[ "$1" = --wait ]\nfile=$2\n{script}\n')
    program.chmod(0o755)
    return f"'{program}' --wait"


def kept(said: str) -> Path:
    found = KEPT.search(said)
    assert found is not None, said
    return Path(found[1])


def test_what_an_editor_changes_is_shown_and_applied(cluster: Cluster, tmp_path: Path) -> None:
    name = cluster.pool(seats=2)
    left = tmp_path / "seen"
    editor = an_editor(
        tmp_path, f'cp "$file" {left}; sed -i "s/seats: 2/seats: 5/" "$file"; ls -l "$file"'
    )
    done = cluster(
        *("pool", "edit", name, "--yes", "--reason", "more"), VISUAL=editor, EDITOR="false"
    ).check()
    assert "~ seats: 2 -> 5" in done.out
    assert "applied at revision" in done.out
    assert "-rw-------" in done.out or "-rw-r--r--" in done.out
    assert f"# Pool {name}." in left.read_text()
    assert cluster.client.pools.get(name).spec.seats == 5
    assert not list(Path(tmp_path).glob("seatkeeper-edit-*"))


def test_a_file_that_the_editor_removes_is_not_said_to_be_kept(
    cluster: Cluster, tmp_path: Path
) -> None:
    name = cluster.pool(seats=2)
    editor = an_editor(tmp_path, 'rm "$file"')
    done = cluster("pool", "edit", name, "--yes", EDITOR=editor)
    said = done.refused(Exit.NOT_FOUND)
    assert f"{name}.yaml" in said
    assert KEPT.search(said) is None


@pytest.mark.parametrize("script", ["true", 'echo "# a comment" >> "$file"'])
def test_nothing_changed_is_nothing_applied(
    cluster: Cluster, tmp_path: Path, script: str
) -> None:
    name = cluster.pool(seats=2)
    before = cluster.client.pools.get(name).revision
    (tmp_path / "tmp").mkdir()
    editor = an_editor(tmp_path, script)
    environ = {"EDITOR": editor, "TMPDIR": str(tmp_path / "tmp")}
    done = cluster.here("pool", "edit", name, "--yes", **environ).check()
    assert f"pool {name} is as it was: nothing was changed" in done.out
    assert cluster.client.pools.get(name).revision == before
    assert not list((tmp_path / "tmp").iterdir()), "nothing is kept, as nothing was written"


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ('sed -i "s/seats: 2/seats: 5/" "$file"; exit 7', Exit.FAILED, "with exit code 7"),
        ('sed -i "s/seats: 2/seets: 5/" "$file"', Exit.REFUSED, "the file has faults"),
        (
            'printf "version: 1\\npools: {other: {seats: 1}}\\n" > "$file"',
            Exit.REFUSED,
            "and no other",
        ),
        (': > "$file"', Exit.REFUSED, "the file has faults"),
    ],
    ids=["fails", "fault", "another pool", "empty"],
)
def test_what_is_not_applied_is_kept(
    cluster: Cluster, tmp_path: Path, script: str, code: Exit, said: str
) -> None:
    name = cluster.pool(seats=2)
    editor = an_editor(tmp_path, script)
    result = cluster.here("pool", "edit", name, "--yes", EDITOR=editor)
    shown = result.err
    assert result.code == int(code)
    assert said in shown
    assert kept(shown).exists()
    assert cluster.client.pools.get(name).spec.seats == 2
    kept(shown).unlink()


def test_one_that_others_changed_meanwhile_is_not_overwritten(
    cluster: Cluster, tmp_path: Path
) -> None:
    name = cluster.pool(seats=2)
    other = f"seatkeeper pool update {name} --seats 3 --nodes {cluster.address} > /dev/null"
    editor = an_editor(tmp_path, f'sed -i "s/seats: 2/seats: 5/" "$file"; {other}')
    path = str(Path(SCRIPT).parent)
    result = cluster.here(
        "pool", "edit", name, "--yes", EDITOR=editor, PATH=f"{path}:/usr/bin:/bin"
    )
    shown = result.err
    assert result.code == int(Exit.FAILED), shown
    assert f"pool {name} was changed" in shown
    assert "~ seats: 2 -> 3" in shown
    assert "seats: 5" in kept(shown).read_text()
    assert cluster.client.pools.get(name).spec.seats == 3


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "set VISUAL or EDITOR"),
        ({"EDITOR": "  "}, "set VISUAL or EDITOR"),
        ({"EDITOR": "vi 'x"}, "cannot be read: No closing quotation"),
        ({"EDITOR": "/no/such/editor -w"}, "cannot be started: No such file"),
    ],
)
def test_without_an_editor_it_says_what_to_do(
    cluster: Cluster, environ: dict[str, str], said: str
) -> None:
    name = cluster.pool()
    given = {"VISUAL": "", "EDITOR": ""} | environ
    result = cluster.here("pool", "edit", name, "--yes", **given)
    assert result.code in {int(Exit.USAGE), int(Exit.FAILED)}
    assert said in result.err


def test_without_a_terminal_it_cannot_ask(cluster: Cluster) -> None:
    name = cluster.pool()
    shown = cluster.here("pool", "edit", name, EDITOR="true").refused(Exit.USAGE)
    assert "there is no terminal to ask at; give --yes" in shown
    cluster.here("pool", "edit", "absent", "--yes", EDITOR="true").refused(Exit.NOT_FOUND)


def test_a_person_corrects_a_fault_and_agrees(cluster: Cluster, tmp_path: Path) -> None:
    name = cluster.pool(seats=2)
    script = (
        'if grep -q seets "$file"; then sed -i "s/seets: 5/seats: 5/" "$file"; '
        'else sed -i "s/seats: 2/seets: 5/" "$file"; fi'
    )
    editor = an_editor(tmp_path, script)
    environ = {"EDITOR": editor, "SEATKEEPER_NODES": cluster.address}
    with Terminal("pool", "edit", name, **environ) as terminal:
        terminal.shows("edit it again? [y/N]")
        terminal.type("y\n")
        terminal.shows("~ seats: 2 -> 5")
        terminal.shows("apply this? [y/N]")
        terminal.type("y\n")
        terminal.shows("applied at revision")
        assert terminal.ends() == 0
    assert cluster.client.pools.get(name).spec.seats == 5


@pytest.mark.parametrize("answer", ["n\n", "\n", "\x04", "\x03"])
def test_a_person_who_does_not_agree_keeps_the_file(
    cluster: Cluster, tmp_path: Path, answer: str
) -> None:
    name = cluster.pool(seats=2)
    editor = an_editor(tmp_path, 'sed -i "s/seats: 2/seats: 5/" "$file"')
    environ = {"EDITOR": editor, "SEATKEEPER_NODES": cluster.address}
    with Terminal("pool", "edit", name, **environ) as terminal:
        terminal.shows("apply this? [y/N]")
        terminal.type(answer)
        assert terminal.ends() == int(Exit.FAILED)
        terminal.shows("what you wrote is kept in")
    assert cluster.client.pools.get(name).spec.seats == 2
