"""Two versions side by side, for about a minute. The whole is ``make compat``."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.compat.__main__ import SHORT, run, wrong
from tests.compat.previous import HistoryMissing, previous_release, this_tree

SEED = 1
SECONDS_MAX = 480
"""It takes a minute on a machine of its own, and more beside other tests."""


@pytest.mark.timeout(SECONDS_MAX)
async def test_nodes_are_upgraded_and_taken_back_under_load_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    try:
        old = await asyncio.to_thread(previous_release)
    except HistoryMissing as error:
        pytest.skip(f"NOT TESTED: {error}")

    result = await run(old, this_tree(), SHORT, SEED, tmp_path)

    assert not wrong(result), result
