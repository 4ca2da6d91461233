"""The output of a measurement: one JSON object, or lines for people."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every measurement has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument(
        "--json", metavar="FILE", help="write one JSON object to FILE; - is standard output"
    )
    return made


def notify(result: dict[str, Any], json_to: str | None) -> None:
    """Write a result where it was asked for: to people, unless ``--json`` is given."""
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in result.items()}
    if json_to == "-":
        print(json.dumps(rounded))
        return
    if json_to:
        Path(json_to).write_text(json.dumps(rounded) + "\n")
    for key, value in rounded.items():
        print(f"{key:34} {value}")


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that ``percent`` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def median(values: Sequence[float]) -> float:
    """Return the middle value."""
    return statistics.median(values)


def progress(text: str) -> None:
    """Print progress on standard error."""
    print(text, file=sys.stderr, flush=True)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a measurement on the event loop that most clients have. Ctrl-C ends it in order."""
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(130)
