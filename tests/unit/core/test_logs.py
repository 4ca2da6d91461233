"""Every line of the log is one event, from any writer and with any text."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

HOSTILE = 'p\n{"event": "fake"}\x1b[31m\u202e\r\x00'
PROGRAM = """
import asyncio, gc, logging, os, sys, threading, warnings
from seatkeeper.core.serving.logs import configure_logs
configure_logs("debug", sys.argv[1])
log = logging.getLogger("seatkeeper.test")
HOSTILE = sys.argv[2].encode().decode("unicode_escape")
"""


def run(log_format: str, body: str, *, stderr: int = subprocess.PIPE) -> str:
    """Run a program that logs; return what is on its standard error."""
    hostile = HOSTILE.encode("unicode_escape").decode()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + body, log_format, hostile],
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        timeout=60,
        check=False,
    )
    return (done.stderr or b"").decode()


def events(body: str) -> list[dict[str, Any]]:
    """Run a program that logs in JSON; return its lines, each of which is an object."""
    return [json.loads(line) for line in run("json", body).splitlines()]


def test_text_from_outside_is_a_value() -> None:
    (event,) = events('log.info("granted", extra={"holder": HOSTILE, HOSTILE: 1})')
    assert (event["event"], event["holder"]) == ("granted", HOSTILE)


def test_values_without_a_json_form_are_logged() -> None:
    values = '{"a": float("nan"), "b": b"x", "c": {1: (2, {3})}, "d": object(), "e": "\\udc80"}'
    (event,) = events(f'log.info("e", extra={values})')
    assert (event["a"], event["c"]) == ("nan", {"1": [2, [3]]})


def test_a_line_that_cannot_be_formatted_is_reported() -> None:
    assert events('log.info("%d", "x")')[0]["event"] == "log_line_failed"


def test_what_libraries_write_to_the_descriptor_is_an_event() -> None:
    absl = "E0000 00:00:1764345600.123456   12345 ssl.cc:1884] Handshake failed"
    one, two = events(f'os.write(2, b"{absl}\\nraw "); os.write(2, b"\\xff\\n")')
    assert (one["event"], one["level"], one["text"]) == (
        *("grpc_core", "error", "Handshake failed"),
    )
    assert (two["event"], two["line"]) == ("stderr", "raw \\xff")


def test_a_flood_of_a_library_is_cut_short_and_counted() -> None:
    flood = 'import time\nfor _ in range(5000): os.write(2, b"x\\n")\n'
    seen = events(flood + 'time.sleep(1.1)\nos.write(2, b"y\\n")')
    assert len(seen) < 1500
    assert any(event["event"] == "stderr_lines_dropped" for event in seen)


def test_warnings_and_tracebacks_are_events() -> None:
    seen = events(
        """
warnings.warn("careful")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
class Bad:
    def __del__(self):
        raise RuntimeError("in del")
bad = Bad()
del bad
async def main():
    async def fails():
        raise KeyError("never retrieved")
    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task
    gc.collect()
asyncio.run(main())
print("plain", file=sys.stderr)
raise TypeError("the last")
"""
    )
    text = "\n".join(json.dumps(event) for event in seen)
    for part in ("careful", "ZeroDivisionError", "in del", "never retrieved", "the last"):
        assert part in text
    assert {"line": "plain"}.items() <= next(e for e in seen if e["event"] == "stderr").items()


def test_how_a_command_failed_stays_an_object() -> None:
    failed = {"event": "failed", "error": "x", "exit_code": 78, "exit_name": "CONFIG"}
    (event,) = events(f"print({json.dumps(failed)!r}, file=sys.stderr)")
    assert failed.items() <= event.items()


def test_text_has_an_event_a_line_too() -> None:
    text = run("text", 'log.info("granted", extra={"holder": HOSTILE}); log.info(HOSTILE)')
    assert len(text.splitlines()) == 2
    assert text.isascii()
    assert not set(text) & {"\x1b", "\r", "\x00"}


def test_in_text_a_traceback_is_set_in() -> None:
    body = 'try: raise ValueError("x\\n2026-01-01T00:00:00Z [info] granted")\n'
    text = run("text", body + 'except ValueError: log.exception("bad")')
    for line in text.splitlines()[2:]:
        assert line.startswith("    |")


def test_debug_lines_of_libraries_are_left_out() -> None:
    body = (
        'logging.getLogger("grpc._cython").debug("x"); logging.getLogger("asyncio").debug("y")'
    )
    assert events(body + '; log.debug("ours")')[0]["event"] == "ours"


def test_a_reader_that_is_gone_ends_nothing() -> None:
    gone = "import os\nr, w = os.pipe()\nos.dup2(w, 2)\nos.close(w)\nos.close(r)\n"
    done = subprocess.run(
        [sys.executable, "-c", gone + PROGRAM + 'log.info("x"); print("alive")', "json", ""],
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    assert done.stdout == b"alive\n"


def test_a_reader_that_does_not_read_blocks_no_caller() -> None:
    stuck = "import os\nr, w = os.pipe()\nos.dup2(w, 2)\n"
    much = 'for _ in range(20_000): log.info("x" * 100)\nprint("alive")'
    done = subprocess.run(
        [sys.executable, "-c", stuck + PROGRAM + much, "json", ""],
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    assert done.stdout == b"alive\n"
