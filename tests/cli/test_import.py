"""``seatkeeper import``: what is written where, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.commands import SCRIPT, environment, in_process, seatkeeper
from tests.cli.conftest import Cluster

from seatkeeper.cli.exits import Exit
from seatkeeper.client.pools_file import read_pools

LICENCE = "INCREMENT solver windsim 2026.0 permanent 12 SIGN=01\n"
OPTIONS = "RESERVE 2 solver PROJECT tunnel\n"
Write = Callable[[str, str], Path]


def test_all_that_is_translated_ends_with_0(write: Write) -> None:
    files = str(write("a.lic", LICENCE)), str(write("a.opt", OPTIONS))
    done = in_process("import", "flexnet", *files).check()
    (spec,) = read_pools(done.out.encode()).pools.values()
    assert (spec.name, spec.seats) == ("solver", 12)
    assert [(each.project, each.guaranteed) for each in spec.policy.projects] == [("tunnel", 2)]
    assert done.err.startswith("2 statements: 2 translated, 0 partly translated, ")


def test_what_has_no_counterpart_ends_with_3_and_the_pools_are_written(write: Write) -> None:
    file = str(
        write(
            "a.lic",
            "LICENSE v mesher 1.0 permanent 4 share=u sig=01\n"
            "LICENSE v metered 1.0 permanent meter(100) sig=02\n",
        )
    )
    done = in_process("import", "rlm", file).check(Exit.DIFFERS)
    assert [*read_pools(done.out.encode()).pools] == ["mesher"]
    assert f"{file}:1: partly translated: " in done.err
    assert f"{file}:2: no counterpart: LICENSE v metered 1.0 " in done.err


def test_a_file_is_made_and_replaced_only_when_asked(write: Write, tmp_path: Path) -> None:
    source, output = str(write("a.lic", LICENCE)), tmp_path / "pools.yaml"
    made = in_process("import", "flexnet", source, "-o", str(output)).check()
    assert made.out == ""
    written = output.read_text()
    assert "  solver:\n" in written
    output.write_text("mine")
    again = in_process("import", "flexnet", source, "-o", str(output))
    assert "replace it with --force" in again.refused(Exit.USAGE)
    assert output.read_text() == "mine"
    in_process("import", "flexnet", source, "-o", str(output), "--force").check()
    assert output.read_text() == written
    over = in_process("import", "flexnet", source, "-o", source, "--force")
    assert "name another file" in over.refused(Exit.USAGE)
    assert Path(source).read_text() == LICENCE
    no_folder = in_process(
        "import", "flexnet", source, "-o", str(tmp_path / "absent" / "p.yaml")
    )
    assert "no such folder" in no_folder.refused(Exit.NOT_FOUND)


def test_what_cannot_be_applied_is_not_written(write: Write, tmp_path: Path) -> None:
    files = (
        str(write("a.lic", LICENCE)),
        str(write("a.opt", "RESERVE 13 solver PROJECT tunnel\n")),
    )
    output = tmp_path / "pools.yaml"
    done = in_process("import", "flexnet", *files, "-o", str(output)).check(Exit.REFUSED)
    assert f"more than the pool has seats: 12 ({files[1]}:1, {files[0]}:1)" in done.err
    assert done.err.splitlines()[-1].startswith("seatkeeper: 1 fault: ")
    assert not output.exists()
    as_json = in_process("import", "flexnet", *files, "--json").check(Exit.REFUSED)
    assert as_json.out == ""
    fault, failed = map(json.loads, as_json.err.splitlines())
    assert (fault["event"], failed["event"]) == ("fault", "failed")
    assert fault["places"] == [f"{files[1]}:1", f"{files[0]}:1"]


def test_programs_get_all_of_it_in_one_object(write: Write) -> None:
    text = f"# comment\n\n{LICENCE}ACTIVATION_LOWWATER solver \\\n 2\n"
    file = str(write("a.lic", text))
    done = in_process("import", "flexnet", file, "--json").check(Exit.DIFFERS)
    assert done.err == ""
    found = done.json
    assert [*read_pools(found["pools_yaml"].encode()).pools] == ["solver"]
    assert found["output"] is None
    nothing = {"partly": 0, "not_needed": 0, "unreadable": 0}
    assert found["counts"] == nothing | {"translated": 1, "none": 1}
    assert found["other_lines"] == {file: {"comments": [1], "blank": [2]}}
    licence, linger = found["statements"]
    assert (licence["lines"], licence["became"]) == ([3], "translated")
    assert licence["targets"] == ["pools.solver.seats"]
    assert (linger["lines"], linger["became"], linger["targets"]) == ([4, 5], "none", [])
    assert linger["reasons"]


def test_the_day_decides_which_licences_count(write: Write) -> None:
    file = str(
        write("a.lic", "INCREMENT f v 1.0 31-dec-2027 5\nINCREMENT f v 1.0 permanent 1\n")
    )
    for day, lots in (("2027-12-31", 1), ("2028-01-01", 0)):
        done = in_process("import", "flexnet", file, "--today", day)
        assert "    seats: 1\n" in done.out
        assert done.out.count('f: {seats: 5, until: "2027-12-31"}') == lots
    assert "not a day" in in_process(
        "import", "flexnet", file, "--today", "31-dec-2027"
    ).refused(Exit.USAGE)


def test_pools_can_be_named(write: Write) -> None:
    a = str(write("a.lic", "INCREMENT F=1 v 1.0 permanent 5\n"))
    b = str(write("b.lic", "INCREMENT F=1 w 1.0 permanent 5\n"))
    named = in_process("import", "flexnet", a, "--name", "F=1=one").check()
    assert [*read_pools(named.out.encode()).pools] == ["one"]
    in_process("import", "flexnet", a, b).check(Exit.REFUSED)
    both = in_process("import", "flexnet", a, b, "--with-vendor").check()
    assert [*read_pools(both.out.encode()).pools] == ["v.f-1", "w.f-1"]
    absent = in_process("import", "flexnet", a, "--name", "g=one").check(Exit.REFUSED)
    assert "no licence of g is in force" in absent.err
    for wrong in ("one", "=one", "F=One", "F="):
        said = in_process("import", "flexnet", a, "--name", wrong).refused(Exit.USAGE)
        assert "write FEATURE=POOL" in said
    twice = ["--name", "F=1=one", "--name", "F=1=two"]
    assert "two names" in in_process("import", "flexnet", a, *twice).refused(Exit.USAGE)


def test_a_file_is_not_counted_twice(write: Write, tmp_path: Path) -> None:
    file = str(write("a.lic", LICENCE))
    link = tmp_path / "link.lic"
    link.symlink_to(file)
    for other in (file, str(link)):
        said = in_process("import", "flexnet", file, other).refused(Exit.USAGE)
        assert "would count twice" in said
    for other in ("-", "/dev/stdin"):
        said = seatkeeper("import", "flexnet", "-", other, stdin=LICENCE).refused(Exit.USAGE)
        assert "would count twice" in said


@pytest.mark.parametrize("stream", ["-", "/dev/stdin"])
def test_standard_input_is_a_file(stream: str) -> None:
    done = seatkeeper("import", "flexnet", stream, stdin=LICENCE).check()
    assert "seats: 12\n" in done.out
    name = "standard input" if stream == "-" else stream
    assert f"# {name}:1: INCREMENT solver" in done.out


def test_what_is_no_file_is_said_in_one_line(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.lic")
    assert absent in in_process("import", "flexnet", absent).refused(Exit.NOT_FOUND)
    said = in_process("import", "flexnet", str(tmp_path)).refused(Exit.FAILED)
    assert "directory" in said
    zero = in_process("import", "rlm", "/dev/zero").check(Exit.REFUSED)
    assert "more than 8388608 bytes" in zero.err
    closed = subprocess.run(
        ["sh", "-c", f"{SCRIPT} import rlm - <&-"],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert closed.returncode == Exit.USAGE
    assert "standard input" in closed.stderr


def test_names_that_are_no_text_and_ascii_terminals(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/l\xf6ser\n.lic"
    with open(path, "wb") as file:
        file.write("INCREMENT Löser windsim 1.0 permanent 3\n".encode("latin-1"))
    done = subprocess.run(
        [SCRIPT, "import", "flexnet", path],
        capture_output=True,
        env=environment(LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0"),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert rb"l\xf6ser\x0a.lic:1: INCREMENT L\xf6ser" in done.stdout
    (spec,) = read_pools(done.stdout).pools.values()
    assert (spec.name, spec.description) == ("loser", "FlexNet: Löser of windsim")


def test_it_goes_into_pool_plan(cluster: Cluster, write: Write) -> None:
    file = write("a.lic", LICENCE.replace("solver", "piped"))
    done = subprocess.run(
        ["sh", "-c", f"seatkeeper import flexnet {file} | seatkeeper pool plan -f -"],
        capture_output=True,
        text=True,
        env=environment(SEATKEEPER_NODES=cluster.address),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "pool piped is to be created\n  + seats: 12\n" in done.stdout
