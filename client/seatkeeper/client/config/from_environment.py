"""A client's arguments, from the environment where the program does not say."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict, TypeVar, Unpack

from seatkeeper.client.config.options import refuse_others
from seatkeeper.client.config.values import ClientConfig, TlsConfig
from seatkeeper.core.environment import (
    DEFAULT_NODES,
    HOLDER,
    NODES,
    PROJECT,
    TLS_CA,
    TLS_CERT,
    TLS_KEY,
    VARIABLES,
)
from seatkeeper.core.errors import InvalidArgument

_C = TypeVar("_C")
_VARIABLE_OF: Final[Mapping[str, str]] = {
    "address": NODES,
    "addresses": NODES,
    "holder": HOLDER,
    "project": PROJECT,
    "tls.ca": TLS_CA,
    "tls.cert": TLS_CERT,
    "tls.key": TLS_KEY,
}
"""The variable behind what the library calls a field."""


class EnvironmentOptions(TypedDict, total=False):
    """What ``from_env`` may be given in the place of variables."""

    env: Mapping[str, str] | None
    """The environment; None: the process's own."""
    addresses: str | Iterable[str] | None
    holder: str | None
    project: str | None
    tls: TlsConfig | None
    config: ClientConfig | None


@dataclass(frozen=True, kw_only=True)
class ClientArguments:
    """What a client is made with: the arguments that were given, and the environment for the rest."""

    addresses: str | Iterable[str]
    holder: str | None
    project: str
    tls: TlsConfig | None
    config: ClientConfig | None
    from_environment: frozenset[str]
    """The variables that were used."""

    @classmethod
    def read(cls, **options: Unpack[EnvironmentOptions]) -> ClientArguments:
        """Return ``addresses`` and the rest as given, and where None is given as ``env`` says.

        ``env`` is the process's own environment unless another is given. Raises `InvalidArgument`,
        whose ``field`` is the variable, for one that cannot be used. TLS is one argument: when it
        is given, no variable of TLS is looked at.
        """
        refuse_others(EnvironmentOptions, options)
        env = options.get("env")
        addresses, tls = options.get("addresses"), options.get("tls")
        holder, project = options.get("holder"), options.get("project")
        given = {
            name: value
            for name in VARIABLES
            if (value := (os.environ if env is None else env).get(name))
        }
        wanted = {NODES: addresses is None, HOLDER: holder is None, PROJECT: project is None}
        wanted |= dict.fromkeys((TLS_CA, TLS_CERT, TLS_KEY), tls is None)
        used = {name: value for name, value in given.items() if wanted[name]}
        for name, value in used.items():
            _check_text(name, value)
        return cls(
            addresses=used.get(NODES, DEFAULT_NODES) if addresses is None else addresses,
            holder=used.get(HOLDER) if holder is None else holder,
            project=used.get(PROJECT, "") if project is None else project,
            tls=_tls(used) if tls is None else tls,
            config=options.get("config"),
            from_environment=frozenset(used),
        )

    def make(self, kind: Callable[..., _C]) -> _C:
        """Return a client made by ``kind``; an `InvalidArgument` names the variable that is wrong."""
        try:
            return kind(
                self.addresses,
                holder=self.holder,
                project=self.project,
                tls=self.tls,
                config=self.config,
            )
        except InvalidArgument as error:
            raise named_after_its_variable(error, self.from_environment) from None


def named_after_its_variable(error: InvalidArgument, used: Iterable[str]) -> InvalidArgument:
    """Return ``error`` with the variable in the place of the field, where it came from one."""
    variable = _VARIABLE_OF.get(error.field)
    if variable is None or variable not in used:
        return error
    said = str(error).removeprefix(error.field).lstrip(": ")
    for field, name in _VARIABLE_OF.items():
        said = said.replace(field, name) if field.startswith("tls.") else said
    return InvalidArgument(f"{variable}: {said}", field=variable)


def _tls(used: Mapping[str, str]) -> TlsConfig | None:
    ca, cert, key = (used.get(name) for name in (TLS_CA, TLS_CERT, TLS_KEY))
    if not (ca or cert or key):
        return None
    if (cert is None) != (key is None):
        there, missing = (TLS_CERT, TLS_KEY) if cert else (TLS_KEY, TLS_CERT)
        raise InvalidArgument(f"{there} is set and {missing} is not: set both", field=missing)
    try:
        return TlsConfig(
            ca=Path(ca) if ca else None,
            cert=Path(cert) if cert else None,
            key=Path(key) if key else None,
        )
    except InvalidArgument as error:
        raise named_after_its_variable(error, used) from None
    except OSError as error:
        # A file that is there and may not be read; the system's error names it.
        variable = next(
            (name for name in (TLS_CA, TLS_CERT, TLS_KEY) if used.get(name) == error.filename),
            TLS_CA,
        )
        raise InvalidArgument(f"{variable}: {error}", field=variable) from None


def _check_text(name: str, value: str) -> None:
    """Raise `InvalidArgument` for bytes that are no text; names of files may be any bytes."""
    if name in (TLS_CA, TLS_CERT, TLS_KEY):
        return
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(f"{name}: is not UTF-8: {value!a}", field=name) from None
