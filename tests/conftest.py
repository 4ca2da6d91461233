"""What many tests share: a real etcd, started once."""

from __future__ import annotations

import asyncio
import functools
import locale
import logging
import os
import signal
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import hypothesis
import pytest
from tests.tree import ROOT

from seatkeeper.builder.backends._driver import host_targets
from seatkeeper.chaos.relay import Relay
from seatkeeper.devcluster.etcd_binary import EtcdNotFoundError, find_etcd
from seatkeeper.devcluster.etcd_process import EtcdCluster, EtcdOptions

TESTS: Final = ROOT / "tests"
QUICK_ETCD = EtcdOptions(
    heartbeat_interval=timedelta(milliseconds=50),
    election_timeout=timedelta(milliseconds=500),
    fsync=False,
)
"""Elects within a second and grants leases of 1 s."""

# Where the environment has a web proxy, the channels that tests make themselves go past it. What is
# ours looks at neither: `tests/unit/core/test_channels.py`.
os.environ.setdefault("no_grpc_proxy", "127.0.0.1,localhost,[::1]")
urllib.request.install_opener(urllib.request.build_opener(urllib.request.ProxyHandler({})))

# The process that runs the tests may have signals ignored (a background job of sh, nohup), and what is
# ignored stays ignored in whatever we start. Tests that want that say so.
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
    if signal.getsignal(number) is signal.SIG_IGN:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)

# What tests start speaks UTF-8, as they do; those about other locales say so to what they start.
if locale.getencoding().lower().replace("-", "") != "utf8":
    for name in ("PYTHONUTF8", "PYTHONCOERCECLOCALE"):
        os.environ.pop(name, None)
    os.environ["LC_ALL"] = "C.UTF-8"


# How long an example takes is the machine's, not the code's.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

SLOW_FIRST: Final = (
    *("processes", "compilers", "compat", "cluster", "conformance", "cases"),
    *("contract", "agent", "cli", "chaos"),
)
"""Folders with files that take up to minutes, mostly waiting. The others follow."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow files, so that no worker is left with one when the others have ended.

    Each file runs on one worker (``--dist loadfile``), and the files are handed out in this order.
    """
    items.sort(key=lambda item: slowness(item.path))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where the driver has none."""
    if item.get_closest_marker("gpu") is not None and not host_targets():
        pytest.skip("needs a GPU: no driver (libcuda.so.1) has one here")


@pytest.fixture(autouse=True)
def logging_is_left_as_it_was() -> Iterator[None]:
    """Fail what changes the level of logs for good: later tests of its process would see none."""
    loggers = [logging.getLogger(name) for name in ("", "seatkeeper")]

    def settings() -> list[int]:
        return [logging.root.manager.disable, *(logger.level for logger in loggers)]

    before = settings()
    yield
    assert settings() == before, "a test changed what is logged in this process, and left it so"


@functools.cache
def slowness(path: Path) -> int:
    """Return when a file's turn comes: 0 is first."""
    folders = path.relative_to(TESTS).parts[:-1] if path.is_relative_to(TESTS) else ()
    if folders and (folder := folders[-1]) in ("processes", "compilers"):
        return SLOW_FIRST.index(folder)
    return (
        SLOW_FIRST.index(folders[0])
        if folders and folders[0] in SLOW_FIRST
        else len(SLOW_FIRST)
    )


async def add_users(etcd_program: Path, etcd: EtcdCluster, prefix: str) -> None:
    """Give etcd users: root, and ``node`` (``hush``), who may use keys below a prefix only."""
    for command in (
        "user add root:secret",
        "user grant-role root root",
        "role add ours",
        f"role grant-permission ours --prefix=true readwrite {prefix}",
        "user add node:hush",
        "user grant-role node ours",
        "auth enable",
    ):
        process = await asyncio.create_subprocess_exec(
            etcd_program.parent / "etcdctl",
            f"--endpoints={etcd.endpoints[0]}",
            *command.split(),
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert await process.wait() == 0


@pytest.fixture
async def proxy_to() -> AsyncIterator[Callable[[str], Awaitable[Relay]]]:
    """Make a proxy to a ``host:port``; it is closed after the test."""
    proxies: list[Relay] = []

    async def make(target: str) -> Relay:
        proxy = Relay(target)
        await proxy.start()
        proxies.append(proxy)
        return proxy

    yield make
    for proxy in proxies:
        await proxy.close()


@pytest.fixture(scope="session")
def etcd_program() -> Path:
    """The etcd program to test with."""
    try:
        return find_etcd().path
    except EtcdNotFoundError as error:
        pytest.fail(f"these tests need a real etcd: run `make etcd`. {error}", pytrace=False)


@pytest.fixture(scope="session")
def etcd_options() -> EtcdOptions:
    """How tests run etcd."""
    return QUICK_ETCD


@pytest.fixture(scope="session")
def etcd(
    etcd_program: Path, etcd_options: EtcdOptions, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EtcdCluster]:
    """One member, shared by all tests: keep below a key prefix of your own, and break nothing."""
    cluster = EtcdCluster(etcd_program, tmp_path_factory.mktemp("etcd"), options=etcd_options)
    asyncio.run(cluster.start())
    yield cluster
    cluster.kill()
