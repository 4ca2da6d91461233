"""What logs say of a call: where it came from, and which one it was."""

from __future__ import annotations

import re
import secrets
from urllib.parse import unquote

from seatkeeper.core.serving.failure import Context

REQUEST_ID_METADATA = "x-request-id"
_FIT = re.compile(r"[!-~]{1,128}")


def peer_of_call(context: Context) -> str:
    """Return where a call comes from, as gRPC says it, such as ``ipv4:10.0.0.7:40000``."""
    return unquote(str(context.peer() or ""))


def request_id(context: Context) -> str:
    """Return the id that the caller gave its call in ``x-request-id``; else one made up now."""
    for name, value in context.invocation_metadata() or ():
        if name == REQUEST_ID_METADATA and _FIT.fullmatch(str(value)):
            return str(value)
    return secrets.token_hex(8)
