"""The seat is lost after stderr's reader has gone: the command ends with its children, exit 76."""

from __future__ import annotations

import os

from tests.cases.place import Place, runs

JOB = "sleep 301 & echo $! > {pids}; setsid sleep 302 & echo $! >> {pids}; wait"


def case(place: Place) -> None:
    node = place.start_node("--session-ttl", "4")
    pids_file = place.folder / "pids"
    job = ("sh", "-c", JOB.format(pids=pids_file))
    reader, writer = os.pipe()
    run = place.spawn("run", "--pool", "p", "--grace", "0.5", "--", *job, stderr=writer)
    os.close(writer)
    os.close(reader)
    place.wait_until(lambda: len(_pids(place)) == 2, what="its children")
    pids = _pids(place)
    node.pause()
    code = run.wait(30)
    assert code == 76, f"exit code {code}, not 76"
    left = [pid for pid in pids if runs(pid)]
    assert not left, f"{left} go on without a seat"


def _pids(place: Place) -> list[int]:
    file = place.folder / "pids"
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []
