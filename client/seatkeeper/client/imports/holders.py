"""Users and hosts of other servers, as patterns for holders and for hosts.

A holder is ``user@host`` unless a request says otherwise. So a user is the holders of this name on any
host, and the one that is no more than the name. A host is one that clients say is theirs.
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
    """Whom names stand for: holders, or hosts."""

    whole: tuple[str, ...]
    """All patterns."""
    brief: tuple[str, ...]
    """Those of holders in their usual form, where there is no room for all."""
    unclear: tuple[str, ...] = ()
    """Names that stand for other holders, too, or for fewer, than the server has in mind, and why."""
    lost: tuple[str, ...] = ()
    """Names that stand for none here, and why."""


def hosts_of(names: Iterable[str]) -> Holders:
    """Return the hosts that names stand for."""
    found: dict[str, None] = {}
    lost: list[str] = []
    for name in names:
        if reason := _fault(name, name, is_host=True):
            lost.append(f"{_cut(name)}: {reason}")
        else:
            found[name] = None
    return Holders(tuple(found), tuple(found), lost=tuple(lost))


def holders_of(names: Iterable[str], *, is_case_sensitive: bool) -> Holders:
    """Return the holders that users stand for."""
    whole: dict[str, None] = {}
    brief: dict[str, None] = {}
    unclear: list[str] = []
    lost: list[str] = []
    for name in names:
        usual = f"{name}@{ANY}"
        if reason := _fault(name, usual, is_host=False):
            lost.append(f"{_cut(name)}: {reason}")
            continue
        whole |= dict.fromkeys((name, usual))
        brief[usual] = None
        if "\\" in name:
            unclear.append(
                f"{_cut(name)}: a holder has no domain unless the request says so with --holder"
            )
        elif not is_case_sensitive and name != name.lower():
            unclear.append(f"{_cut(name)}: in names of holders case counts")
    return Holders(tuple(whole), tuple(brief), tuple(unclear), tuple(lost))


def _fault(name: str, usual: str, *, is_host: bool) -> str:
    if not name:
        return "it is empty"
    if is_host and _ADDRESS.fullmatch(name):
        return "an address is not part of a request"
    if ANY in name:
        return f"a `{ANY}` in a name of a pool's rules stands for any text"
    if len(usual) > HOLDER_MAX:
        what = "host" if is_host else "holder"
        return f"a {what} has at most {HOLDER_MAX} characters"
    if hidden_in(usual):
        return "it has characters that cannot be shown"
    return ""


def _cut(name: str) -> str:
    return name or "''" if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
