"""What names, ids and durations must look like, whichever request they are in. Pure.

Each function returns nothing or raises ``Malformed``, which names the field.
"""

from __future__ import annotations

import re
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

HOLDER_MAX = 253
DESCRIPTION_MAX = 500
SEATS_MAX = 100_000
POOL_DELETIONS_MAX = 60
"""Most pools that one apply deletes: each takes several comparisons of a transaction."""
"""Most seats of a pool."""
NANOS_MAX = 999_999_999
DAY_MILLIS = 24 * 3600 * 1000
ID_AHEAD_MAX_MILLIS = DAY_MILLIS
"""How far the clock of a client may be ahead of a node's."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


class Malformed(Exception):
    """A field of a request is not as documented."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description


def is_name(text: str) -> bool:
    """Return whether ``text`` can be the name of a pool or a project."""
    return _NAME.fullmatch(text) is not None


def is_id(text: str) -> bool:
    """Return whether ``text`` can be the id of a session or a grant."""
    return _UUID7.fullmatch(text) is not None


def check_name(field: str, name: str) -> None:
    """Check the name of a pool or a project."""
    if not is_name(name):
        raise Malformed(
            field,
            f"{name[:64]!r} is not a name: "
            "1 to 63 of `a-z 0-9 . _ -`, starting with a letter or a digit",
        )


def check_id(field: str, value: str) -> None:
    """Check the id of a session or a grant."""
    if not is_id(value):
        raise Malformed(field, f"{value[:64]!r} is not a UUIDv7 in lower-case canonical form")


def check_id_age(field: str, value: str, now: int) -> None:
    """Check that an id is not of the future. ``now``: Unix milliseconds.

    The service remembers the highest id that a session has completed instead of all of them, so
    one from far ahead would finish everything that the session could ask for until then.
    """
    ahead = int(value[:8] + value[9:13], 16) - now
    if ahead > ID_AHEAD_MAX_MILLIS:
        raise Malformed(
            field,
            f"the time in {value} is {ahead // DAY_MILLIS} days ahead of this node's clock; "
            "make ids with the present time (UUIDv7), and set the clock of whichever is wrong",
        )


def check_duration(
    field: str, value: Duration, shortest: timedelta, longest: timedelta, words: str
) -> None:
    """Check a duration's form (``google/protobuf/duration.proto``) and its size.

    ``words`` say for people from what to what it may be.
    """
    if abs(value.nanos) > NANOS_MAX or value.seconds * value.nanos < 0:
        raise Malformed(
            field,
            f"{value.seconds} s and {value.nanos} ns are no duration: nanos go from -999999999 to "
            "999999999, with the sign of the seconds",
        )
    # Compared as whole numbers: a Duration's range is wider than timedelta's.
    nanos = value.seconds * 10**9 + value.nanos
    if not _nanos(shortest) <= nanos <= _nanos(longest):
        whole, part = divmod(abs(nanos), 10**9)
        seconds = f"{'-' * (nanos < 0)}{whole}.{part:09}".rstrip("0").rstrip(".")
        raise Malformed(field, f"{seconds} s is not from {words}")


def _nanos(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1) * 1000
