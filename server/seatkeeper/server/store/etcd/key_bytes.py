"""Keys and ranges of keys, as etcd has them."""

from __future__ import annotations


def encode(key: str) -> bytes:
    """Return the key's bytes. Bytes that are not UTF-8 come and go as surrogate escapes."""
    return key.encode("utf-8", "surrogateescape")


def prefix_range(prefix: str) -> tuple[bytes, bytes]:
    """Return the range of keys that start with ``prefix``: its first key and its end.

    The end is the prefix with its last byte raised by one; a trailing 0xff cannot be raised and
    carries. Where nothing is left the range has no end, which etcd writes as one zero byte.
    """
    first = encode(prefix)
    stem = first.rstrip(b"\xff")
    end = stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"
    return first or b"\0", end
