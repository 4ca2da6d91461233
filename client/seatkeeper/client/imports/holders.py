"""Users and hosts of other servers, as patterns for holders.

A holder is ``user@host`` unless a request says otherwise. So a user is the holders of this name on any
host, and the one that is no more than the name. A host is part of no request: it is only seen in
holders that have kept their form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from seatkeeper.core.pool_rules import ANY
from seatkeeper.core.text import hidden_in
from seatkeeper.core.validate import HOLDER_MAX

_ADDRESS = re.compile(r"[0-9*]+(\.[0-9*]+){3}|[0-9A-Fa-f*]*:[0-9A-Fa-f:.*]*")
_SHOWN = 40


@dataclass(frozen=True)
class Holders:
    """Whom names stand for."""

    whole: tuple[str, ...]
    """All patterns."""
    brief: tuple[str, ...]
    """Those of holders in their usual form, where there is no room for all."""
    unclear: tuple[str, ...] = ()
    """Names that stand for other holders, too, or for fewer, than the server has in mind, and why."""
    lost: tuple[str, ...] = ()
    """Names that stand for none here, and why."""


def holders_of(names: Iterable[str], *, are_hosts: bool, is_case_sensitive: bool) -> Holders:
    """Return the holders that users, or hosts, stand for."""
    whole: dict[str, None] = {}
    brief: dict[str, None] = {}
    unclear: list[str] = []
    lost: list[str] = []
    for name in names:
        usual = f"{ANY}@{name}" if are_hosts else f"{name}@{ANY}"
        if reason := _fault(name, usual, are_hosts):
            lost.append(f"{_cut(name)}: {reason}")
            continue
        whole |= dict.fromkeys((usual,) if are_hosts else (name, usual))
        brief[usual] = None
        if "\\" in name and not are_hosts:
            unclear.append(
                f"{_cut(name)}: a holder has no domain unless the request says so with --holder"
            )
        elif not is_case_sensitive and name != name.lower():
            unclear.append(f"{_cut(name)}: in names of holders case counts")
    if are_hosts and brief:
        unclear.append(
            "a host is not part of a request: it is seen in holders that are user@host, and "
            "not in names that requests give with --holder"
        )
    return Holders(tuple(whole), tuple(brief), tuple(unclear), tuple(lost))


def _fault(name: str, usual: str, is_host: bool) -> str:
    if not name:
        return "it is empty"
    if is_host and _ADDRESS.fullmatch(name):
        return "an address is not part of a request"
    if ANY in name:
        return f"a `{ANY}` in a name of a pool's rules stands for any text"
    if len(usual) > HOLDER_MAX:
        return f"a holder has at most {HOLDER_MAX} characters"
    if hidden_in(usual):
        return "it has characters that cannot be shown"
    return ""


def _cut(name: str) -> str:
    return name or "''" if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
