"""An activated environment brings no etcd, etcdctl or etcdutl of its own."""

from __future__ import annotations

import shutil

from tests.cases.place import SCRIPT, Place


def case(place: Place) -> None:
    for program in ("etcd", "etcdctl", "etcdutl"):
        found = shutil.which(program, path=str(SCRIPT.parent))
        assert found is None, f"{found} comes first in an activated environment"
