"""Scripts without #!, LANG=C, a TMPDIR that cannot be used, few descriptors: `run` runs."""

from __future__ import annotations

import subprocess

from tests.cases.place import SCRIPT, Place


def case(place: Place) -> None:
    node = place.start_node()
    job = place.folder / "job"
    job.write_text("echo no shebang\n")
    job.chmod(0o755)
    bare = f"env -i SEATKEEPER_NODES={node.address}"
    run = f"{SCRIPT} run --pool p --"
    for script, code, expected in (
        (f"{run} {job}", 0, "no shebang\n"),
        (f"{bare} LANG=C {run} /usr/bin/env | grep -v ^SEATKEEPER_", 0, "LANG=C\n"),
        (
            f"TMPDIR=/dev/null {run} sh -c 'test -s $SEATKEEPER_TOKEN_FILE && echo ran'",
            0,
            "ran\n",
        ),
        (f"ulimit -n 8; {run} echo ran", 1, ""),
        (f"mkdir d; cd d; rmdir ../d; {run} /bin/echo ran", 0, "ran\n"),
        (f"unset PATH HOME; {run} /bin/echo ran", 0, "ran\n"),
    ):
        done = subprocess.run(
            ["bash", "-c", script],
            env=place.environment(),
            cwd=place.folder,
            capture_output=True,
            timeout=60,
            check=False,
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        assert (done.returncode, out) == (code, expected), f"{script}: {done}"
        assert "Traceback" not in err, f"{script}: {err}"
    assert place.held() == 0, "a seat is still held"
