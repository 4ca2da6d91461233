"""The Python client library keeps its side of the contract: every script for clients."""

from __future__ import annotations

import asyncio
import sys

import pytest
from tests.conformance.client_runner import run_clients
from tests.conformance.script import Result, scripts

SCRIPTS = {script.name: script for script in scripts("client")}
AT_ONCE = 6


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> dict[str, Result]:
    """What became of the chosen scripts. Several at once: most of them only wait."""
    chosen = [
        script
        for name, script in SCRIPTS.items()
        if any(item.name.endswith(f"[{name}]") for item in request.session.items)
    ]
    command = [sys.executable, "-m", "tests.conformance.python_driver"]
    done = asyncio.run(run_clients(command, chosen, at_once=AT_ONCE))
    return {result.script: result for result in done}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_python_client_keeps_the_contract(name: str, results: dict[str, Result]) -> None:
    assert results[name].ok, results[name].line()


def test_there_are_scripts_enough() -> None:
    assert len(SCRIPTS) >= 12
