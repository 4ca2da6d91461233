"""The Python client library keeps its side of the contract: every script for clients."""

from __future__ import annotations

import asyncio
import sys

import pytest
from tests.conformance.client_runner import run_clients
from tests.conformance.script import Result, scripts

SCRIPTS = {script.name: script for script in scripts("client")}
DRIVER = [sys.executable, "-m", "tests.conformance.python_driver"]
MODES = {"default": DRIVER, "process": [*DRIVER, "--setting", "keeper=process"]}
"""The session kept as it is by default, by a helper process; and in the client's own."""
CASES = [(mode, name) for mode in MODES for name in SCRIPTS]
AT_ONCE = 5


pytestmark = pytest.mark.timeout(900)
"""The first test waits for all scripts."""


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> dict[tuple[str, str], Result]:
    """What became of the chosen scripts. Several at once: most of them only wait."""
    chosen = {
        case
        for item in request.session.items
        if item.path == request.path
        for case in CASES
        if item.name.endswith(f"[{case[0]}-{case[1]}]")
    }
    return asyncio.run(_run(chosen))


async def _run(chosen: set[tuple[str, str]]) -> dict[tuple[str, str], Result]:
    by_mode = {
        mode: [SCRIPTS[name] for each, name in sorted(chosen) if each == mode] for mode in MODES
    }
    done = await asyncio.gather(
        *(run_clients(MODES[mode], some, at_once=AT_ONCE) for mode, some in by_mode.items())
    )
    return {
        (mode, result.script): result
        for mode, results in zip(by_mode, done, strict=True)
        for result in results
    }


@pytest.mark.parametrize(("mode", "name"), CASES, ids=lambda value: str(value))
def test_the_python_client_keeps_the_contract(
    mode: str, name: str, results: dict[tuple[str, str], Result]
) -> None:
    assert results[mode, name].ok, results[mode, name].line()


def test_there_are_scripts_enough() -> None:
    assert len(SCRIPTS) >= 12
