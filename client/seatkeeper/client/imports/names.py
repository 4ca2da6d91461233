"""Names of pools and projects, made of those that files have."""

from __future__ import annotations

import re
import unicodedata

_NOT_IN_NAMES = re.compile(r"[^a-z0-9._-]+")
_BEGINNING = re.compile(r"^[^a-z0-9]+")
_NAME_MAX = 63
_READ_MAX = 1_000


def name_of(text: str) -> str:
    """Return a name for ``text``: in lower case, without accents, and with ``-`` for the rest.

    Two texts may have the same; empty: there is no letter or digit in it that a name could have.
    """
    plain = "".join(
        character
        for character in unicodedata.normalize("NFKD", text[:_READ_MAX])
        if not unicodedata.combining(character)
    )
    return _BEGINNING.sub("", _NOT_IN_NAMES.sub("-", plain.lower()))[:_NAME_MAX].rstrip("-")
