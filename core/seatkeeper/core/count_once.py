"""Several grants of a pool that count once: those whose holder, host or labels are the same. Pure."""

from __future__ import annotations

from collections.abc import Iterator

HOLDER, HOST, LABEL = "holder", "host", "label:"
"""What may be named; a label by its key: ``label:display``."""
NAMED_MAX = 8

CountOnceFault = tuple[int, str]
"""What is wrong: the place of the name among the given, and why."""


def count_once_faults(
    named: tuple[str, ...], *, limits_holders: bool, limits_hosts: bool
) -> Iterator[CountOnceFault]:
    """Yield all that is wrong with what the grants must have in common that count once.

    ``limits_holders``, ``limits_hosts``: whether the pool says how many seats each may hold. Then those
    who share a seat must be of one, or it would be no one's.
    """
    if len(named) > NAMED_MAX:
        yield 0, f"{len(named)} attributes are over {NAMED_MAX}"
    for place, name in enumerate(named):
        if name in named[:place]:
            yield place, f"{name} is there twice"
        elif name not in (HOLDER, HOST) and not _is_label(name):
            yield place, f"{name[:64]!r} is none of `holder`, `host` and `label:KEY`"
    if not named:
        return
    if limits_holders and HOLDER not in named:
        yield 0, "the pool says how many seats each holder may hold: name `holder`, too"
    if limits_hosts and HOST not in named:
        yield 0, "the pool says how many seats each host may hold: name `host`, too"


def _is_label(name: str) -> bool:
    key = name.removeprefix(LABEL)
    allowed = "abcdefghijklmnopqrstuvwxyz0123456789"
    return (
        name.startswith(LABEL)
        and 0 < len(key) <= 63
        and key[0] in allowed
        and not set(key) - set(allowed + "._/-")
    )
