"""A store in a bucket of S3, or of a server that speaks its protocol.

Credentials come from the environment, as the vendor's tools read them: ``AWS_ACCESS_KEY_ID`` and
``AWS_SECRET_ACCESS_KEY``, a web identity, or the machine's role. An object is written by one PUT, or by
a multipart upload that its last request completes: either way it appears whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from seatkeeper.artifacts.errors import (
    StoreAddressInvalid,
    StoreError,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from seatkeeper.artifacts.stores.address import StoreAddress
from seatkeeper.artifacts.stores.objects import NAME, SMALL_BYTES_MAX, Found
from seatkeeper.artifacts.stores.redaction import first_line
from seatkeeper.core.extras import explain

if TYPE_CHECKING:
    from obstore.store import S3Config, S3Store

PART_BYTES = 8 << 20
"""One request for so many bytes, up and down."""
PARTS_AT_ONCE = 4
CONNECT_TIMEOUT = timedelta(seconds=5)
REQUEST_TIMEOUT = timedelta(seconds=60)
RETRIES_MAX = 3
RETRY_TIMEOUT = timedelta(seconds=15)
"""Nothing is tried again later than this after it was tried first."""
_FULL = ("status code: 507", "QuotaExceeded", "XMinioStorageFull", "no free volumes")
_REFUSED = ("<Code>AccessDenied", "<Code>InvalidAccessKeyId", "<Code>SignatureDoesNotMatch")
_NO_BUCKET = "NoSuchBucket"
_MACHINE_ROLE = "http://169.254."
"""Where a machine of a cloud finds its own credentials; asked when there are no others."""


class BucketObjects:
    """Objects of a bucket, below a prefix."""

    def __init__(self, address: StoreAddress) -> None:
        self.shown = address.shown
        self.store_id = address.digest
        try:
            import obstore
            from obstore import exceptions
            from obstore.store import S3Store
        except ImportError:
            raise StoreAddressInvalid(explain("a store in a bucket", "store")) from None
        self._library = obstore
        self._exceptions = exceptions
        with self._typed():
            self._bucket = _opened(S3Store, address)

    def put(self, name: str, content: bytes) -> None:
        """Write a small object, by one PUT."""
        with self._typed():
            self._library.put(self._bucket, _checked(name), content, use_multipart=False)

    def put_file(self, name: str, path: Path) -> None:
        """Write an object from a file."""
        with self._typed(), path.open("rb") as file:
            self._library.put(
                self._bucket,
                _checked(name),
                file,
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_ONCE,
            )

    def get(self, name: str) -> bytes | None:
        """Return a small object."""
        found = self.find(name)
        if found is None or found.size_bytes == 0:
            return None if found is None else b""
        length = min(found.size_bytes, SMALL_BYTES_MAX)
        return self._range(name, 0, length)

    def read(self, name: str, offset: int = 0) -> Iterator[bytes] | None:
        """Return an object's bytes, a range after the other: each may be asked for again."""
        found = self.find(name)
        return None if found is None else self._ranges(found, offset)

    def find(self, name: str) -> Found | None:
        """Describe an object."""
        with self._typed():
            try:
                head = self._library.head(self._bucket, _checked(name))
            except FileNotFoundError as error:
                _check_bucket(error)
                return None
        return Found(name, head["size"], head["last_modified"])

    def list(self, folder: str) -> Iterator[Found]:
        """Describe the objects of a folder."""
        with self._typed():
            for page in self._library.list(self._bucket, prefix=folder):
                for each in page:
                    if NAME.fullmatch(each["path"]):
                        yield Found(each["path"], each["size"], each["last_modified"])

    def delete(self, name: str) -> None:
        """Remove an object."""
        with self._typed():
            try:
                self._library.delete(self._bucket, _checked(name))
            except FileNotFoundError as error:
                _check_bucket(error)

    def _ranges(self, found: Found, offset: int) -> Iterator[bytes]:
        while offset < found.size_bytes:
            length = min(PART_BYTES, found.size_bytes - offset)
            piece = self._range(found.name, offset, length)
            if not piece:
                raise StoreUnavailable(f"{self.shown} has no more of {found.name} any longer")
            yield piece
            offset += len(piece)

    def _range(self, name: str, start: int, length: int) -> bytes:
        with self._typed():
            return bytes(
                self._library.get_range(
                    self._bucket, _checked(name), start=start, length=length
                )
            )

    @contextmanager
    def _typed(self) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except (FileNotFoundError, self._exceptions.BaseError) as error:
            raise self._meaning(error) from None  # its text may have a signed URL

    def _meaning(self, error: Exception) -> StoreError:
        said, library = str(error), self._exceptions
        # What follows is the same once more, as the library's own memory has it.
        about = f"{self.shown}: {first_line(said.partition('Debug source')[0])}"
        if _MACHINE_ROLE in said:
            return StoreRefused(f"{self.shown}: there are no credentials in the environment")
        if _NO_BUCKET in said:
            return StoreAddressInvalid(f"{self.shown}: there is no such bucket")
        if isinstance(error, library.PermissionDeniedError | library.UnauthenticatedError):
            return StoreRefused(about)
        if any(sign in said for sign in _FULL):
            return StoreFull(about)
        if any(sign in said for sign in _REFUSED):
            return StoreRefused(about)
        return StoreUnavailable(about)


def _opened(kind: type[S3Store], address: StoreAddress) -> S3Store:
    bucket, _, prefix = address.path.partition("/")
    settings: S3Config = {}
    if address.endpoint:
        settings["endpoint"] = address.endpoint
    if address.region:
        settings["region"] = address.region
    return kind(
        bucket,
        prefix=prefix or None,
        client_options={
            "allow_http": address.endpoint.startswith("http://"),
            "connect_timeout": CONNECT_TIMEOUT,
            "timeout": REQUEST_TIMEOUT,
        },
        retry_config={"max_retries": RETRIES_MAX, "retry_timeout": RETRY_TIMEOUT},
        config=settings,
    )


def _check_bucket(error: FileNotFoundError) -> None:
    # An object that is not there is an answer; a bucket that is not there is none.
    if _NO_BUCKET in str(error):
        raise error


def _checked(name: str) -> str:
    assert NAME.fullmatch(name), name
    return name
