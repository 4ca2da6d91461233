"""A backend that is not installed says how to install it."""

from __future__ import annotations

import sys

import pytest

from seatkeeper.artifacts.errors import BackendMissing, BackendUnknown
from seatkeeper.builder.backends import load_backend

RTX_MODULES = ("onnxruntime_ep_nv_tensorrt_rtx", "tensorrt_rtx_bindings", "tensorrt_rtx")


@pytest.mark.parametrize(
    ("backend", "modules", "command"),
    [
        ("tensorrt_rtx", RTX_MODULES, r"pip install '\.\[tensorrt-rtx\]' in a checkout"),
        ("tensorrt", ("tensorrt",), "pip install tensorrt"),
    ],
)
def test_a_library_that_is_missing_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, backend: str, modules: tuple[str, ...], command: str
) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)  # an import of it fails
    with pytest.raises(BackendMissing, match=command):
        load_backend(backend)


def test_a_name_that_no_backend_has_is_not_guessed() -> None:
    with pytest.raises(BackendUnknown, match="'tvm'"):
        load_backend("tvm")
