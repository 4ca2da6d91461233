"""What others say of an error, without what must not be seen."""

from __future__ import annotations

import os
import re

LINE_CHARS_MAX = 300
_SECRET_NAMES = re.compile(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY|CONNECTION_STRING", re.ASCII)
_SECRET_CHARS_MIN = 6
_PATTERNS = (
    re.compile(r"(?<=://)[^/\s@]*@", re.ASCII),
    re.compile(r"\?[^\s\"')]*", re.ASCII),
    re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{12,}", re.ASCII),
    re.compile(
        r"(?i)\b(?:signature|credential|authorization|x-amz-[a-z-]+)\W{1,3}[^\s,;&\"']+"
    ),
)


def first_line(said: str) -> str:
    """Return the beginning of a library's message in one line, without credentials.

    Left out are the values of environment variables that are named like secrets, users and
    passwords in URLs, queries of URLs, and what is signed.
    """
    for name, value in os.environ.items():
        if _SECRET_NAMES.search(name) and len(value) >= _SECRET_CHARS_MIN:
            said = said.replace(value, "***")
    for pattern in _PATTERNS:
        said = pattern.sub("***", said)
    return " ".join(said.split())[:LINE_CHARS_MAX]
