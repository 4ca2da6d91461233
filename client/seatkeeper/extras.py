"""How to install what a command lacks."""

from __future__ import annotations


def install_hint(*extras: str) -> str:
    """Return what to type for the extras of this package.

    Never its bare name: it is on no package index yet, where a stranger could claim it.
    """
    wanted = f"[{','.join(extras)}]"
    return (
        f"pip install '.{wanted}' in the checkout, or 'WHEEL{wanted}' where WHEEL is its file"
    )
