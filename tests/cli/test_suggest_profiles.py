"""``seatkeeper build suggest-profiles``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import Cluster

from seatkeeper.cli.exits import Exit

LOG = "x,count\n1x8,90\n2x8,10\n30x8,5\n32x8,45\n"


def test_profiles_are_suggested_from_a_log(
    cluster: Cluster, write: Callable[[str, str], Path]
) -> None:
    log = str(write("requests.csv", LOG))
    suggest = ("build", "suggest-profiles", log, "--profiles", "2")
    said = cluster.here(*suggest, "--json").check().json
    assert said["requests"] == 150
    assert [each["profile"] for each in said["profiles"]] == [
        "x=1x8:1x8:2x8",
        "x=30x8:32x8:32x8",
    ]
    marked = str(write("marked.csv", "\ufeff" + LOG.replace("\n", "\r\n")))
    of_a_spreadsheet = ("build", "suggest-profiles", marked, "--profiles", "2", "--json")
    assert cluster.here(*of_a_spreadsheet).check().json == said
    shown = cluster.here(*suggest).check().out
    assert "100 (67%)" in shown
    assert "--profile x=1x8:1x8:2x8 --profile x=30x8:32x8:32x8" in shown


def test_a_log_that_is_none_is_refused(
    cluster: Cluster, write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    def suggest(path: Path, *more: str) -> tuple[str, ...]:
        return ("build", "suggest-profiles", str(path), *more)

    wrong = write("wrong.csv", "x\n1xtwo\n")
    assert "row 2" in cluster.here(*suggest(wrong)).refused(Exit.REFUSED)
    absent = tmp_path / "absent.csv"
    assert "No such file" in cluster.here(*suggest(absent)).refused(Exit.NOT_FOUND)
    failed = json.loads(cluster.here(*suggest(absent, "--json")).check(Exit.NOT_FOUND).err)
    assert (failed["event"], failed["exit_name"]) == ("failed", "NOT_FOUND")
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in cluster.here(*suggest(binary)).refused(Exit.REFUSED)
    cluster.here(*suggest(wrong, "--profiles", "17")).refused(Exit.USAGE)
