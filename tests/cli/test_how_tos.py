"""Pages that say that a test runs them: every command, in order, in an empty folder."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.cli.commands import SCRIPT, address_of, environment, serving
from tests.cli.conftest import Cluster
from tests.cli.test_build import BuildRunner, build_runner
from tests.tree import ROOT

from seatkeeper.client import SeatClient

__all__ = ["build_runner"]
HOW_TO = ROOT / "docs" / "how-to"
SECONDS_MAX = 280


def run(cluster: Cluster, page: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the page's shell; its blocks of Python are files with the name in their first line."""
    text = (HOW_TO / page).read_text(encoding="utf-8")
    shell: list[str] = []
    for language, code in re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL):
        if language == "python":
            name = re.match(r"# (\w+\.py)\n", code)
            assert name is not None, "a file has its name in the first line"
            (folder / name[1]).write_text(code, encoding="utf-8")
        elif language == "sh":
            shell.append(code)
    path = f"{Path(SCRIPT).parent}:{Path(sys.executable).parent}:{environment()['PATH']}"
    return subprocess.run(
        ["sh", "-e", "-c", "\n".join(shell)],
        cwd=folder,
        env=environment(SEATKEEPER_NODES=cluster.address, PATH=path),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


@pytest.fixture
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A node for each page: what one leaves behind is in no other's way."""
    with serving(tmp_path_factory.mktemp("node")) as node:
        address = address_of(node)
        with SeatClient(address) as client:
            yield Cluster(address, client)


@pytest.mark.timeout(SECONDS_MAX + 20)
def test_int8_in_ten_minutes(build_runner: BuildRunner, tmp_path: Path) -> None:
    done = run(build_runner.cluster, "int8-in-ten-minutes.md", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"precision +int8: 6 nodes in fp32, 1 node in int8", done.stdout)
    assert re.search(r"accuracy +differs by .*\(on 8 samples; model, not engine\)", done.stdout)
    assert "exit code 65" in done.stdout
    assert re.search(r"precision +\S+ \(of auto\)", done.stdout)
    assert "'relative_l2'" in done.stdout
    assert re.search(r"precision +fp8: ", done.stdout)
    assert re.search(r"accuracy +unchecked", done.stdout)
    assert {"int8.engine", "best.engine"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.timeout(SECONDS_MAX + 20)
def test_from_trtexec(build_runner: BuildRunner, tmp_path: Path) -> None:
    text = (HOW_TO / "int8-in-ten-minutes.md").read_text(encoding="utf-8")
    example = text.partition("```python\n")[2].partition("```")[0]
    subprocess.run([sys.executable, "-c", example], cwd=tmp_path, check=True)
    done = run(build_runner.cluster, "from-trtexec.md", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "exit code 2" in done.stdout, "--calib is refused"
    assert "exit code 69" in done.stdout, "no agent here makes stripped engines"
    assert "--calib of trtexec: a calibration cache" in done.stderr
    assert "strip_weights: tensorrt_rtx calls CUDA for it" in done.stderr
    assert "--iterations is ignored: the engine is built and not timed here" in done.stderr
    engines = {"model.engine", "half.engine", "int8.engine", "again.engine"}
    assert engines <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.timeout(SECONDS_MAX + 20)
def test_who_waits_and_why(page: Cluster, tmp_path: Path) -> None:
    done = run(page, "who-waits-and-why.md", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "it is next: it wants 1 seat, and 0 of 1 are free (rule `seats`)" in done.stdout
    assert "at position 1 now" in done.stdout
    assert "1 that an administrator's move put before it" in done.stdout
    assert "it ended with exit code 1" in done.stdout
    assert "out of the queue: the nightly build is off today" in done.stderr
    assert "1 seat of scarce taken back" in done.stdout
    assert "the seat of scarce is lost" in done.stderr
    assert "denied, with exit code" in done.stdout
    assert "the licence server is moved at noon" in done.stderr
    assert "no seat is held" in done.stdout
    assert "scarce" not in {each.spec.name for each in page.client.pools.list()}


@pytest.mark.timeout(SECONDS_MAX + 20)
def test_keep_seats_after_a_release(page: Cluster, tmp_path: Path) -> None:
    done = run(page, "keep-seats-after-a-release.md", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"stay +resurrection=300,lock_delay=15", done.stdout)
    assert "KEPT UNTIL" in done.stdout.upper()
    assert "(linger)" in done.stdout
    assert re.search(r"1 seat is kept after a release.* \(rule `stay`\)", done.stderr)
    assert "bo has it\n" not in done.stdout
    assert "the second part" in done.stdout
    assert "bo has it now" in done.stdout
    assert "part 2 under fence" in done.stdout
    assert "the lab has fence 2" in done.stdout
    assert "at the desk: 76" in done.stdout
    assert "taken the seats over" in done.stderr
    assert "+ stay.lock_delay: 15 s" in done.stdout
    assert "1 seat of mesher kept for ada no more" in done.stdout


@pytest.mark.timeout(SECONDS_MAX + 20)
def test_how_long_seats_are_held(page: Cluster, tmp_path: Path) -> None:
    done = run(page, "how-long-seats-are-held.md", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(
        r"1 seat of solver called back from \S+, with a notice of 10 min", done.stdout
    )
    assert "(an administrator calls them back: the release needs it)" in done.stderr
    assert "sh was sent SIGUSR1" in done.stderr
    assert "checkpoint written" in done.stdout
    assert "longest=28800,warning=600" in done.stdout
    assert "the seat of solver may be held for 8 h 0 min" in done.stderr
    assert "HELD UNTIL" in done.stdout.upper()
    assert re.search(r"may hold 1 seat of solver for 2 h 0 min longer, until ", done.stdout)
    assert re.search(r"held until .* at most, 2 h 0 min of it added", done.stdout)
    assert re.search(r"hold.idle.*1800", done.stdout)
    assert "given back" in done.stdout
    assert "solver" not in {each.spec.name for each in page.client.pools.list()}


@pytest.mark.timeout(SECONDS_MAX + 20)
def test_take_a_seat_offline(page: Cluster, tmp_path: Path) -> None:
    done = run(page, "take-a-seat-offline.md", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "longest=2592000,seats=2,low_water=1" in done.stdout
    assert "refused, with exit code" in done.stdout
    assert "borrow.exclude: holder guest-* may borrow no seat of the pool" in done.stderr
    assert re.search(r"a seat of field is borrowed until \S+ \S+ UTC", done.stdout)
    assert "exit code 2" in done.stdout, "one is borrowed here already"
    assert "1 of 1 held" in done.stdout
    assert "nightly build" in done.stdout
    assert "exit code 65" in done.stdout, "it is given up here"
    assert done.stdout.count("is given back") == 1
    assert done.stdout.count("was free already") == 2
    assert "goes on until its day" in done.stderr
    assert "field" not in {each.spec.name for each in page.client.pools.list()}


@pytest.mark.timeout(SECONDS_MAX + 20)
def test_who_may_use_a_pool(page: Cluster, tmp_path: Path) -> None:
    done = run(page, "who-may-use-a-pool.md", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("exit code 1\n") == 3, done.stdout + done.stderr
    assert "(rule `include`)" in done.stderr
    assert re.search(r"host \S+ is excluded \(rule `exclude`\)", done.stderr)
    assert "holder *@build-7 is excluded (rule `exclude`)" in done.stderr
    assert "exit code 75" in done.stdout
    assert "and each may have 1 (rule `per_holder`)" in done.stderr
    assert "bert is served meanwhile" in done.stdout
    assert "holder anna has 1 of the 1 seats that each may hold" in done.stdout
    assert "include.groups: students" in done.stdout
    assert "ruled" not in {each.spec.name for each in page.client.pools.list()}


@pytest.mark.timeout(SECONDS_MAX + 20)
def test_run_beside_your_vendors_server(page: Cluster, tmp_path: Path) -> None:
    done = run(page, "run-beside-your-vendors-server.md", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bert goes on at once" in done.stdout
    assert "and so does eve" in done.stdout
    assert "counted" in done.stdout
    assert re.search(r"dora .* wait \(seats\)", done.stdout)
    assert re.search(r"would have waited +[1-9] requests?", done.stdout)
    assert re.search(r"would be refused +1 request\b", done.stdout)
    assert re.search(r"beyond its seats +1 seat at most", done.stdout)
    assert "exit code 75" in done.stdout
    assert "solver" not in {each.spec.name for each in page.client.pools.list()}


@pytest.mark.timeout(SECONDS_MAX + 20)
def test_seats_that_cost_more(page: Cluster, tmp_path: Path) -> None:
    done = run(page, "seats-that-cost-more.md", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"costs +a100=4,t4=1", done.stdout)
    assert "holding 4 seats" in done.stdout
    assert "holding 8 seats" in done.stdout
    assert "4 seats of weighted" in done.stdout
    assert "exit code 2" in done.stdout
    assert "no cost class h100; it has: a100, t4 (rule `cost_class`)" in done.stderr
    assert "weighted" not in {each.spec.name for each in page.client.pools.list()}


def test_processes_that_count_once(page: Cluster, tmp_path: Path) -> None:
    done = run(page, "processes-that-count-once.md", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"count once +holder, host", done.stdout)
    assert len(re.findall(r"^.* ada ", done.stdout, re.MULTILINE)) == 2, done.stdout
    assert "bo: exit code" in done.stdout
    assert "1 seat held" in done.stdout
    assert "viewer" not in {each.spec.name for each in page.client.pools.list()}


@pytest.mark.timeout(SECONDS_MAX + 20)
def test_share_a_pool(page: Cluster, tmp_path: Path) -> None:
    done = run(page, "share-a-pool.md", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "exit code 2" in done.stdout, done.stdout + done.stderr
    assert "project speech may hold no seat of pool shared (rule `limit`)" in done.stderr
    assert "6 seats: the fewest that serve 95 % of each project's requests" in done.stdout
    assert done.stdout.count("WAITED WHILE") >= 2
    assert "P95 OF VISION" in done.stdout
    assert done.stdout.index("checkpoint written") < done.stdout.index("vision has its seat")
    assert (
        "the seat of lent is called back (project vision is under its guarantee" in done.stderr
    )
    assert "sh was sent SIGUSR1" in done.stderr
    assert (tmp_path / "shared.svg").read_text().startswith("<svg ")
    (pool,) = (each for each in page.client.pools.list() if each.spec.name == "shared")
    assert not pool.spec.policy.projects
    page("pool", "delete", "shared").check()


@pytest.mark.timeout(SECONDS_MAX + 20)
def test_coming_from_flexnet(page: Cluster, tmp_path: Path) -> None:
    done = run(page, "coming-from-flexnet.md", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# license.lic:3: INCREMENT Solver windsim 2026.0 permanent 12 ..." in done.stdout
    assert "wings: {guaranteed: 4, limit: 8}" in done.stdout
    assert "holding a seat" in done.stdout
    assert re.findall("exit code ([0-9]+)", done.stdout) == ["3", "1", "65", "2", "3"]
    assert "ada is let in" in done.stdout
    assert "have ada, bo, NORTH\\carl set SEATKEEPER_PROJECT=wings" in done.stderr
    assert "windsim.opt:8: partly translated: TIMEOUTALL 3600: " in done.stderr
    assert "exclude: {hosts: [kiosk]}" in done.stdout
    assert 'solver: {seats: 4, until: "2099-12-31"}' in done.stdout
    assert "# windsim.opt:6: INCLUDE viewer GROUP wings" in done.stdout
    assert "(wrong.opt:1, license.lic:5)" in done.stderr
    assert "--output pools.yaml: it is there already" in done.stderr
    there = {each.spec.name for each in page.client.pools.list()}
    assert not {"solver", "viewer", "mesher"} & there


@pytest.mark.timeout(SECONDS_MAX + 20)
def test_keep_seats_for_nights(page: Cluster, tmp_path: Path) -> None:
    done = run(page, "keep-seats-for-nights.md", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"ci +2 +project ci +weekdays 22:00-06:00 Europe/Berlin", done.stdout)
    assert "exit code 75" in done.stdout
    assert "1 of the 1 free seats is kept for project ci for another" in done.stderr
    assert "(rule `reservation always`)" in done.stderr
    assert "ci has its seat" in done.stdout
    assert (
        "weekdays 22:00-06:00 Europe/Berlin -> 2 for project ci, weekdays 21:00" in done.stdout
    )
    assert "there is no time zone Europe/Atlantis" in done.stderr
    assert "reservation ci of pool nights deleted" in done.stdout


@pytest.mark.timeout(SECONDS_MAX + 20)
def test_contracts_and_bursts(page: Cluster, tmp_path: Path) -> None:
    began = datetime.now(UTC)
    done = run(page, "contracts-and-bursts.md", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pool simulator created: 3 seats" in done.stdout
    assert "1 without a contract, and 1 lot in force" in done.stdout
    assert re.search(
        r"acme-new +base +4 +pending +2099-07-01 00:00 UTC +2100-07-01", done.stdout
    )
    assert (
        "from 2100-07-01 00:00 UTC on, the 3 guaranteed seats are more than the 1 seat in"
        in (done.stderr)
    )
    assert 'acme-old: {seats: 3, until: "2099-06-30"}' in done.stdout
    assert "0 to create, 0 to change, 0 to delete, 1 unchanged" in done.stdout
    assert "6 seats in force" in done.stdout
    assert "burst burst-1 of pool simulator stopped: 4 seats in force" in done.stdout
    assert "      when: {p95_wait: 1s, for: 2s}" in done.stdout
    assert "the burst serves it" in done.stdout
    assert "1 of rule-1 at 0.80 EUR/seat-hour" in done.stdout
    assert "rule burst" in done.stdout
    left = re.search(
        r"left this month ([\d.]+) of 40 hours, ([\d.]+) EUR of 500 EUR", done.stdout
    )
    assert left is not None
    # A burst of 10 minutes, of which those after the end of the month are of the next one.
    if (began + timedelta(minutes=15)).month == began.month:
        assert left.groups() == ("39.83", "499.73")
    else:
        assert 39.83 <= float(left[1]) <= 40
        assert 499.73 <= float(left[2]) <= 500
    assert "1 of the overdraft" in done.stdout
    assert "overdraft 1, of which 0 held" in done.stdout
    there = {each.spec.name for each in page.client.pools.list()}
    assert not {"simulator", "nightly", "viewer"} & there
