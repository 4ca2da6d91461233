"""The public surface is what ``__init__`` says, and every RPC can be reached from it."""

from __future__ import annotations

import inspect
import pkgutil
import subprocess
import sys

import pytest

import seatkeeper.client as public
from seatkeeper.core import errors


def test_the_table_of_contents_is_complete_and_sorted() -> None:
    offered = {
        name
        for name, value in vars(public).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    # Those about builds are there once they were used.
    offered |= set(public._LATER)
    assert list(public.__all__) == sorted(public.__all__)
    assert offered == set(public.__all__) == set(dir(public))


def test_what_is_about_builds_is_loaded_when_it_is_used() -> None:
    loads = "import sys, seatkeeper.client; print('seatkeeper.client.builds' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", loads], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
    with pytest.raises(AttributeError, match="no attribute 'NoSuch'"):
        public.NoSuch  # noqa: B018  # it is looked up


def test_every_error_is_offered() -> None:
    kinds = {
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.SeatError) and not name.startswith("_")
    }
    assert kinds <= set(public.__all__)


def test_everything_offered_is_documented() -> None:
    for name in public.__all__:
        value = getattr(public, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name


def test_every_module_says_what_it_is_for() -> None:
    for module in pkgutil.iter_modules(public.__path__):
        imported = __import__(f"seatkeeper.client.{module.name}", fromlist=["_"])
        assert imported.__doc__, module.name
