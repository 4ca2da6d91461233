"""Where a store is, as a user writes it, and as it may be shown."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from seatkeeper.artifacts.errors import StoreAddressInvalid

FOLDER_SCHEMES = frozenset({"", "file"})
BUCKET_SCHEMES = frozenset({"s3"})
"""Those with a client of their own; everything else is fsspec's."""
QUERY_KEYS = frozenset({"endpoint", "region"})
CHARS_MAX = 1_000

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.ASCII | re.DOTALL)


@dataclass(frozen=True)
class StoreAddress:
    """The address of a store, without anything that is secret."""

    scheme: str
    """Empty: a folder."""
    path: str
    """The folder; else what follows ``://``, without a slash at its end."""
    endpoint: str = ""
    """URL of the server, where it is not the one that the scheme stands for."""
    region: str = ""

    @classmethod
    def parse(cls, text: str) -> StoreAddress:
        """Read a folder, or a URL such as ``s3://bucket/engines?endpoint=http://127.0.0.1:8333``.

        Raises ``StoreAddressInvalid``, which never repeats the text: it may have a password in it.
        """
        if not text.strip() or len(text) > CHARS_MAX or not text.isprintable():
            raise StoreAddressInvalid(
                f"a store's address has 1 to {CHARS_MAX} characters, all printable"
            )
        match = _SCHEME.fullmatch(text)
        if match is None or match[1] in FOLDER_SCHEMES:
            path = match[2] if match else text
            if not path.startswith("/") and match:
                raise StoreAddressInvalid("file:// is followed by an absolute path")
            return cls("", str(Path(path).absolute()))
        rest, _, query = match[2].partition("?")
        if "@" in rest.partition("/")[0]:
            raise StoreAddressInvalid(
                "the store's URL has a user or a password in it; give credentials by the environment"
            )
        if not rest.strip("/") and match[1] != "memory":
            raise StoreAddressInvalid(f"{match[1]}:// is followed by what has the engines")
        options = _options(query)
        return cls(
            match[1], rest.rstrip("/"), options.get("endpoint", ""), options.get("region", "")
        )

    @property
    def shown(self) -> str:
        """The address as messages and logs have it."""
        if not self.scheme:
            return self.path
        at = f" at {self.endpoint}" if self.endpoint else ""
        return f"{self.scheme}://{self.path}{at}"

    @property
    def digest(self) -> str:
        """A hash of the address: the same for all that write it another way."""
        said = "\n".join((self.scheme, self.path, self.endpoint, self.region))
        return hashlib.sha256(said.encode()).hexdigest()[:32]


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query))
    if unknown := sorted(set(options) - QUERY_KEYS):
        # Only the names: a value may be a secret.
        raise StoreAddressInvalid(
            f"the store's URL has {', '.join(unknown)[:100]} after `?`; "
            f"there may be {' and '.join(sorted(QUERY_KEYS))}"
        )
    endpoint = options.get("endpoint", "").rstrip("/")
    if endpoint:
        parts = urlsplit(endpoint)
        if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
            raise StoreAddressInvalid(
                "the store's endpoint is not http://HOST:PORT or https://HOST:PORT"
            )
        options["endpoint"] = endpoint
    return options
