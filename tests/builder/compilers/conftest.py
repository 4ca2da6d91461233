from __future__ import annotations

from pathlib import Path

import pytest
from tests.builder.build_runner import BuildRunner


@pytest.fixture
def build_runner(tmp_path: Path) -> BuildRunner:
    return BuildRunner(tmp_path)
