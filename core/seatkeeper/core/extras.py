"""What must be installed beside the client for what it can do more, and how.

The distribution is on no package index, so no message says ``pip install seatkeeper``: that name
there would be somebody else's.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Final

MODULES: Final[Mapping[str, Mapping[str, str]]] = {
    "server": {
        "grpc_health": "grpcio-health-checking",
        "grpc_reflection": "grpcio-reflection",
        "prometheus_client": "prometheus-client",
        "pydantic_settings": "pydantic-settings",
        "structlog": "structlog",
    },
    "builder": {
        "grpc_health": "grpcio-health-checking",
        "numpy": "numpy",
        "onnx": "onnx",
        "onnxruntime": "onnxruntime",
        "onnxslim": "onnxslim",
        "PIL": "pillow",
        "pydantic_settings": "pydantic-settings",
        "structlog": "structlog",
    },
    "tensorrt-rtx": {
        "onnxruntime_ep_nv_tensorrt_rtx": "onnxruntime-ep-nv-tensorrt-rtx-cu13",
        "tensorrt_rtx_bindings": "tensorrt-rtx-cu13-bindings",
    },
    "ledger": {"alembic": "alembic", "sqlalchemy": "sqlalchemy"},
    "chaos": {"matplotlib": "matplotlib"},
    "store": {"fsspec": "fsspec", "obstore": "obstore"},
}
"""By extra: the modules that must be there, and the distributions they come from."""


def missing(*extras: str) -> tuple[str, ...]:
    """Return the distributions that ``extras`` need and that are not installed. Imports nothing."""
    wanted = {module: name for extra in extras for module, name in MODULES[extra].items()}
    return tuple(sorted(name for module, name in wanted.items() if not _is_installed(module)))


def how_to_install(*extras: str) -> str:
    """Return the words that say how ``extras`` are installed, from a checkout or from a wheel."""
    wanted = ",".join(extras)
    return f"pip install '.[{wanted}]' in a checkout, or './seatkeeper-VERSION.whl[{wanted}]'"


def explain(what: str, *extras: str) -> str:
    """Return why ``what`` cannot be done, naming what is missing and how to get it."""
    names = ", ".join(missing(*extras)) or "a part of it"
    return f"{what} needs {names}, not installed here: {how_to_install(*extras)}"


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
