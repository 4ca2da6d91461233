"""The pytest plugin, in runs of pytest of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from seatkeeper.core.extras import missing

SECONDS_MAX = 120


def run_pytest(
    folder: Path, *arguments: str, before: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run pytest in ``folder`` as a user does; ``before`` is Python that runs first."""
    program = f"{before}\nimport sys, pytest\nsys.exit(pytest.main({['-q', *arguments]!r}))\n"
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


def write(folder: Path, test: str) -> None:
    (folder / "pytest.ini").write_text(
        "[pytest]\naddopts = --strict-markers\nasyncio_default_fixture_loop_scope = function\n"
    )
    (folder / "test_made.py").write_text(textwrap.dedent(test))


LOSS = """
    import pytest
    from seatkeeper.client import HoldingState, SeatLost

    def test_loss_on_demand(seatkeeper):
        pool = seatkeeper.pool("tensorrt")
        with pytest.raises(SeatLost), seatkeeper.client().seat(pool) as grant:
            seatkeeper.lose(grant)
            grant.raise_if_lost()

    @pytest.mark.seatkeeper(pools={"tensorrt": 2}, session_ttl=10)
    def test_time_passes(seatkeeper):
        client = seatkeeper.client()
        grant = client.acquire("tensorrt", seats=2)
        seatkeeper.advance(600)
        assert grant.state is HoldingState.SAFE
        seatkeeper.advance(11, renewing=False)
        assert grant.state is HoldingState.LOST

    def test_each_test_has_a_service_of_its_own(seatkeeper):
        seatkeeper.pool("tensorrt")
        assert seatkeeper.held("tensorrt") == 0
"""


def test_the_fixture_serves_and_loses_seats(tmp_path: Path) -> None:
    write(tmp_path, LOSS)
    ended = run_pytest(tmp_path, "-p", "no:xdist", "-W", "error")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "3 passed" in ended.stdout


def test_it_works_under_xdist(tmp_path: Path) -> None:
    write(tmp_path, LOSS)
    ended = run_pytest(tmp_path, "-n", "2")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "3 passed" in ended.stdout


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_it_works_in_coroutines_under_pytest_asyncio(tmp_path: Path, mode: str) -> None:
    write(
        tmp_path,
        """
        import pytest
        from seatkeeper.client import HoldingState, NoSeatFree, SeatLost

        @pytest.mark.asyncio
        async def test_it(seatkeeper):
            seatkeeper.pool("tensorrt")
            async with seatkeeper.async_client() as client:
                with pytest.raises(SeatLost):
                    async with client.seat("tensorrt") as grant:
                        await seatkeeper.aio.advance(600)
                        assert grant.state is HoldingState.SAFE
                        with pytest.raises(NoSeatFree):
                            await client.acquire("tensorrt", wait=0)
                        await seatkeeper.aio.lose(grant)
        """,
    )
    ended = run_pytest(tmp_path, "-o", f"asyncio_mode={mode}", "-W", "error")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "1 passed" in ended.stdout


def test_a_run_that_does_not_use_it_loads_nothing_of_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        import sys

        def test_it():
            ours = [name for name in sys.modules if name.startswith("seatkeeper")]
            plugin = ["seatkeeper.testing", "seatkeeper.testing.pytest_plugin"]
            assert sorted(ours) == ["seatkeeper", *plugin]
            assert "grpc" not in sys.modules
        """,
    )
    ended = run_pytest(tmp_path, "-p", "no:xdist")
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_where_the_server_is_not_installed_it_says_what_is_missing_and_how_to_get_it(
    tmp_path: Path,
) -> None:
    write(tmp_path, "def test_it(seatkeeper): pass")
    absent = "import sys\nsys.modules['structlog'] = sys.modules['grpc_reflection'] = None"
    ended = run_pytest(tmp_path, before=absent)
    assert ended.returncode == 1
    assert "needs grpcio-reflection, structlog, not installed here" in ended.stdout
    assert "pip install '.[server]' in a checkout" in ended.stdout
    assert "install 'seatkeeper[" not in ended.stdout  # on no index is that name ours
    assert "Traceback" not in ended.stdout


def test_nothing_is_missing_here() -> None:
    assert missing("server", "builder") == ()
