"""A client's settings on their way to the helper."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from seatkeeper.client.config.values import (
    BackoffConfig,
    BreakerConfig,
    ClientConfig,
    RenewalConfig,
    TlsConfig,
)
from seatkeeper.client.session.requests import EstimateBasis

_PARTS = {"renewal": RenewalConfig, "backoff": BackoffConfig, "breaker": BreakerConfig}


def config_fields(config: ClientConfig) -> dict[str, object]:
    """Return settings as fields of a frame: durations in seconds, the parts as fields themselves."""
    return {
        field.name: _field(getattr(config, field.name))
        for field in dataclasses.fields(config)
        if getattr(config, field.name) is not None
    }


def config_from(fields: Mapping[str, Any]) -> ClientConfig:
    """Return the settings that `config_fields` made fields of."""
    parts = {name: _PARTS[name](**_values(fields[name])) for name in _PARTS}
    rest = {name: value for name, value in fields.items() if name not in _PARTS}
    return ClientConfig(**_values(rest), **parts)


def tls_fields(tls: TlsConfig | None) -> dict[str, str] | None:
    """Return the files of TLS as fields; the helper works in another folder, so with whole paths."""
    if tls is None:
        return None
    paths = {n: getattr(tls, n) for n in ("ca", "cert", "key")}
    fields = {name: os.path.abspath(path) for name, path in paths.items() if path is not None}
    return fields if tls.server_name is None else {**fields, "server_name": tls.server_name}


def tls_from(fields: Mapping[str, str] | None) -> TlsConfig | None:
    """Return what `tls_fields` made fields of."""
    if fields is None:
        return None
    paths = {name: Path(fields[name]) for name in ("ca", "cert", "key") if name in fields}
    return TlsConfig(**paths, server_name=fields.get("server_name"))


def basis_fields(basis: EstimateBasis | None) -> object:
    """Return what an estimate was made from as a field."""
    return None if basis is None else _field(basis)


def basis_from(fields: Mapping[str, Any] | None) -> EstimateBasis | None:
    """Return what `basis_fields` made a field of."""
    return None if fields is None else EstimateBasis(**_values(fields))


def _field(value: object) -> object:
    if isinstance(value, timedelta):
        return {"seconds": value.total_seconds()}
    if dataclasses.is_dataclass(value):
        return {f.name: _field(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value


def _values(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: timedelta(seconds=value["seconds"]) if isinstance(value, dict) else value
        for name, value in fields.items()
    }
