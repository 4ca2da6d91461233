"""Structured logs: one JSON object a line, or text for people.

The code logs through the standard library, with facts in ``extra``; here they get their shape, and
so do the lines of the libraries we use.

Theory of operation. In JSON, every line on standard error is an object, from any writer. Our lines
go through ``logging`` to a duplicate of the descriptor. Warnings, tracebacks and unraisable errors
are led there by Python's hooks. What is left is written to descriptor 2 itself, by gRPC's C core
above all: that is the end of a pipe, whose lines a thread turns into objects. The pipe never blocks
its writer, who may hold the interpreter that the thread needs: when it is full, lines are lost.

What comes from outside is escaped: no text that a client or a peer sends can begin a line of its
own, nor move a terminal's cursor.
"""

from __future__ import annotations

import atexit
import json
import logging
import math
import os
import queue
import re
import sys
import threading
import time
import traceback
from contextlib import suppress
from types import TracebackType
from typing import Any, TextIO

import structlog

LINES_WAITING_MAX = 10_000
"""Lines that wait for a slow reader of the log; more are counted, and dropped."""
PIPE_BYTES = 1 << 20
LINE_BYTES_MAX = 8192
"""A longer line of a library is cut."""
FOREIGN_LINES_PER_SECOND = 200
"""Lines that libraries write by themselves; more are counted, and dropped."""
FLUSH_SECONDS_MAX = 1.0
VALUE_DEPTH_MAX = 6
CHATTY = ("grpc", "asyncio", "urllib3")
"""Libraries whose debug lines say nothing about seats."""

_ABSL = re.compile(r"([IWEF])\d{4} [\d:.]+\s+\d+ ([^\]\s]+:\d+)\] (.*)")
_ABSL_LEVELS = {
    "I": logging.INFO,
    "W": logging.WARNING,
    "E": logging.ERROR,
    "F": logging.CRITICAL,
}
_ABSL_PREAMBLE = "All log messages before absl::InitializeLog()"
_CONTROL = re.compile(
    r"[^\x20-\x7e\xa0-\U0010ffff]|[\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_libraries = logging.getLogger("seatkeeper.libraries")


def configure_logs(level: str, log_format: str) -> None:
    """Send all log lines to standard error, in ``log_format`` (``json`` or ``text``).

    In JSON, standard error belongs to the log from now on: whatever else the process writes there
    becomes a line of it. Call it once a process.
    """
    as_json = log_format == "json"
    is_open = sys.stderr is not None
    colors = is_open and sys.stderr.isatty()
    if not is_open:
        stream: TextIO = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # stays open as long as the process
    else:
        stream = _own_stderr() if as_json else sys.stderr
    writer = _Writer(stream)
    atexit.register(writer.finish)
    if as_json and is_open:
        # Ends before the writer does: what it finds last is written, too.
        atexit.register(_Foreign.take_over().finish)
    handler = _Handler(writer)
    handler.setFormatter(_formatter(as_json=as_json, colors=colors))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def set_level(level: str) -> None:
    """Write lines from ``level`` on. Of libraries, nothing below ``info``."""
    logging.getLogger().setLevel(level.upper())
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(logging.INFO, logging.getLogger().level))


def escaped(text: str, *, kept: str = "") -> str:
    """Return ``text`` without anything that ends a line or moves a cursor."""

    def shown(match: re.Match[str]) -> str:
        letter = match[0]
        return letter if letter in kept else letter.encode("unicode_escape").decode()

    return _CONTROL.sub(shown, text)


def _formatter(*, as_json: bool, colors: bool) -> logging.Formatter:
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor]
    if as_json:
        renderer = [_plain_values, structlog.processors.JSONRenderer(serializer=_dumps)]
    else:
        renderer = [
            _escape_values,
            structlog.dev.ConsoleRenderer(
                colors=colors, exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            *renderer,
        ],
    )


def _dumps(value: object, **_: object) -> str:
    return json.dumps(value, default=repr, allow_nan=False, skipkeys=True)


def _plain_values(
    logger: object, name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Make every value one that JSON has."""
    return {str(key): _plain(value, VALUE_DEPTH_MAX) for key, value in event.items()}


def _plain(value: object, depth: int) -> object:
    match value:
        case bool() | int() | str() | None:
            return value
        case float():
            return value if math.isfinite(value) else repr(value)
        case dict() if depth > 0:
            return {str(key): _plain(item, depth - 1) for key, item in value.items()}
        case list() | tuple() | set() | frozenset() if depth > 0:
            return [_plain(item, depth - 1) for item in value]
        case _:
            return repr(value)


def _escape_values(
    logger: object, name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Keep every event on lines of its own, for readers of text."""
    made = {}
    for key, value in event.items():
        if key in ("exception", "stack"):
            # A traceback has lines; they are set in, so that none looks like an event.
            made[key] = escaped(str(value), kept="\n\t").replace("\n", "\n    | ")
        else:
            made[key] = escaped(value if isinstance(value, str) else repr(value))
    return made


class _Handler(logging.Handler):
    """Gives lines to the writer. That one cannot be formatted ends nothing."""

    def __init__(self, writer: _Writer) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Format a line and have it written."""
        try:
            line = self.format(record)
        except Exception as error:
            about = {"level": "error", "logger": record.name, "error": repr(error)[:500]}
            line = json.dumps({"event": "log_line_failed"} | about)
        self._writer.put(line)


class _Writer:
    """Writes lines in a thread of its own: a reader that has stopped reading blocks no caller.

    What does not fit into its queue is dropped, and counted.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: queue.Queue[str | threading.Event] = queue.Queue(LINES_WAITING_MAX)
        self._dropped = 0
        threading.Thread(target=self._write_loop, name="log", daemon=True).start()

    def put(self, line: str) -> None:
        """Have a line written, if there is room for it."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def _write_loop(self) -> None:
        while True:
            line = self._lines.get()
            if isinstance(line, threading.Event):
                line.set()
                continue
            # A terminal that is gone, a full disk, a closed pipe: there is nowhere to say it.
            with suppress(OSError, ValueError):
                self._stream.write(line + "\n")
                self._stream.flush()
            dropped, self._dropped = self._dropped, 0
            if dropped:
                _libraries.warning("log_lines_dropped", extra={"lines": dropped})

    def finish(self) -> None:
        """Have written what waits."""
        done = threading.Event()
        with suppress(queue.Full):
            self._lines.put_nowait(done)
            done.wait(FLUSH_SECONDS_MAX)


def _uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("seatkeeper").critical(
        "uncaught_exception", exc_info=(kind, error, trace)
    )


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit or args.exc_value is None:
        return
    name = args.thread.name if args.thread else ""
    logging.getLogger("seatkeeper").error(
        "uncaught_exception",
        exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
        extra={"thread_name": name},
    )


def _unraisable(args: Any) -> None:  # noqa: ANN401  # Python gives it a type of its own that typing lacks
    # Formatted here: what the hook is given must not be kept.
    lines = traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback)
    about = {"what": args.err_msg or "", "object": repr(args.object)}
    logging.getLogger("seatkeeper").error(
        "unraisable_exception", extra={**about, "exception": "".join(lines)}
    )


class _Foreign:
    """Descriptor 2, as libraries write to it: a pipe, and the thread that reads it."""

    def __init__(self, reader: int) -> None:
        self._reader = reader
        self._rest = b""
        self._second = 0
        self._taken = 0
        self._dropped = 0
        self._done = threading.Event()

    @classmethod
    def take_over(cls) -> _Foreign:
        """Lead descriptor 2 to the log."""
        reader, writer = os.pipe()
        _enlarge(writer)
        os.set_blocking(writer, False)
        os.dup2(writer, 2)
        os.close(writer)
        foreign = cls(reader)
        thread = threading.Thread(target=foreign._read, name="stderr", daemon=True)
        thread.start()
        return foreign

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._reader, 1 << 16)
            except OSError:
                return
            *lines, rest = (self._rest + chunk).split(b"\n")
            self._rest = rest[:LINE_BYTES_MAX]
            for line in lines:
                if line == _END:
                    self._done.set()
                    continue
                self._take(line)

    def _take(self, line: bytes) -> None:
        now = int(time.monotonic())
        if now != self._second:
            dropped, self._dropped = self._dropped, 0
            self._second, self._taken = now, 0
            if dropped:
                _libraries.warning("stderr_lines_dropped", extra={"lines": dropped})
        self._taken += 1
        if self._taken > FOREIGN_LINES_PER_SECOND:
            self._dropped += 1
            return
        text = line[:LINE_BYTES_MAX].decode(errors="backslashreplace").strip("\r")
        if text and _ABSL_PREAMBLE not in text:
            _log_foreign(text)

    def finish(self) -> None:
        """Have written what is in the pipe; what comes later is lost, and never raw."""
        try:
            sys.stderr.flush()
            os.write(2, b"\n" + _END + b"\n")
        except (OSError, ValueError):
            return
        self._done.wait(FLUSH_SECONDS_MAX)


def _own_stderr() -> TextIO:
    """Return a stream to where standard error leads now, wherever descriptor 2 leads later."""
    return open(os.dup(2), "w", encoding="utf-8", errors="backslashreplace", buffering=1)


_END = b"\x00seatkeeper-end"


def _enlarge(pipe: int) -> None:
    try:
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except (ImportError, AttributeError, OSError):
        return  # smaller will do


def _log_foreign(text: str) -> None:
    if (failed := _failure_in(text)) is not None:
        _libraries.error("failed", extra=failed)
    elif (match := _ABSL.match(text)) is not None:
        about = {"source": match[2], "text": match[3]}
        _libraries.log(_ABSL_LEVELS[match[1]], "grpc_core", extra=about)
    else:
        _libraries.warning("stderr", extra={"line": text})


def _failure_in(text: str) -> dict[str, object] | None:
    """Return the facts of a line that says how a command failed, which is JSON already."""
    if not text.startswith('{"event": "failed"'):
        return None
    try:
        value = json.loads(text)
        return {name: value[name] for name in ("error", "exit_code", "exit_name")}
    except (ValueError, KeyError):
        return None
