"""``python -m tests.cases.alone FILE FOLDER OUTCOME``: one case, in a process of its own.

Writes ``{"state": "pass" | "FAIL" | "skip", "reason": ...}`` to the file OUTCOME.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
import traceback
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import cast

from tests.cases.place import CannotRun, Place

REASON_LENGTH_MAX = 600


def main(file: str, folder: str, outcome: str) -> None:
    """Run the case; SIGTERM ends it as an exception does, so that it cleans up."""
    _as_from_a_shell()
    signal.signal(signal.SIGTERM, _end)
    place = Place(Path(folder))
    state, reason = "pass", ""
    try:
        _load(Path(file))(place)
    except CannotRun as error:
        state, reason = "skip", str(error)
    except AssertionError as error:
        state, reason = "FAIL", str(error) or _where(error)
    except BaseException as error:
        state, reason = "FAIL", f"{type(error).__name__}: {error} {_where(error)}"
        traceback.print_exc()
    one_line = " ".join(reason.split())[:REASON_LENGTH_MAX]
    Path(outcome).write_text(json.dumps({"state": state, "reason": one_line}))
    place.close()


def _as_from_a_shell() -> None:
    """Undo what is around the runner: ignored signals (nohup, `make cases &`), a web proxy."""
    for number in signal.valid_signals() - {
        signal.SIGPIPE,
        signal.SIGXFSZ,
    }:  # those are Python's
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # What cases fetch is on this machine.
    urllib.request.install_opener(urllib.request.build_opener(urllib.request.ProxyHandler({})))


def _load(file: Path) -> Callable[[Place], None]:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast("Callable[[Place], None]", module.case)


def _where(error: BaseException) -> str:
    (last,) = traceback.extract_tb(error.__traceback__)[-1:]
    return f"(at {Path(last.filename).name}:{last.lineno}: {last.line})"


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main(*sys.argv[1:])
