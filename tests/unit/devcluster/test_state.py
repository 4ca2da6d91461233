"""The folder of a development cluster: one owner at a time, and what it remembers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from seatkeeper.devcluster.plan import FolderInUse, FolderUnusable, Kept, StateDamaged
from seatkeeper.devcluster.state import StateFolder

KEPT = Kept(port=9000, etcd_members=3)


def test_it_remembers_what_was_written(tmp_path: Path) -> None:
    with StateFolder(tmp_path / "state") as folder:
        assert folder.read() is None
        folder.write(KEPT)
    with StateFolder(tmp_path / "state") as folder:
        assert folder.read() == KEPT
        assert folder.log("dev-1").parent.is_dir()


def test_it_has_one_owner_at_a_time(tmp_path: Path) -> None:
    with StateFolder(tmp_path):
        with pytest.raises(FolderInUse) as refused, StateFolder(tmp_path):
            pass
        assert refused.value.pid == str(os.getpid())
    with StateFolder(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FolderUnusable) as refused, StateFolder(tmp_path / "file" / "state"):
        pass
    assert refused.value.reason == "Not a directory"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"port": "x", "etcd_members": 1}', '{"port": 7420}']
)
def test_a_damaged_record_is_not_guessed_at(tmp_path: Path, text: str) -> None:
    (tmp_path / "dev.json").write_text(text)
    with StateFolder(tmp_path) as folder, pytest.raises(StateDamaged, match="damaged"):
        folder.read()
