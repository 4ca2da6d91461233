"""Released seats that are kept for a moment, for the next request that wants the same. Pure.

Many small tasks of one process would otherwise pay one trip to the service each. What is kept
is still held: so nothing is kept for longer than ``linger``, nothing that may not be believed in
is ever kept or handed out, and the oldest goes first when there are too many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from seatkeeper.client.session.requests import Wanted

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Kept(Generic[_T]):
    key: Wanted
    item: _T
    until: float


class LingerCache(Generic[_T]):
    """Keeps seats by what they are good for."""

    def __init__(self, seconds: float, kept_max: int, is_safe: Callable[[_T], bool]) -> None:
        self._seconds = seconds
        self._kept_max = kept_max
        self._is_safe = is_safe
        self._kept: deque[_Kept[_T]] = deque()

    def put(self, key: Wanted, item: _T, now: float) -> list[_T]:
        """Keep ``item``; return what must be given back instead, which may be ``item`` itself."""
        if self._seconds <= 0 or not self._is_safe(item):
            return [item]
        self._kept.append(_Kept(key, item, now + self._seconds))
        surplus = len(self._kept) - self._kept_max
        return [self._kept.popleft().item for _ in range(surplus)]

    def take(self, key: Wanted, now: float) -> _T | None:
        """Return seats for ``key``, the last that were kept, or None. They are kept no more."""
        for kept in reversed(self._kept):
            if kept.key == key and now < kept.until and self._is_safe(kept.item):
                self._kept.remove(kept)
                return kept.item
        return None

    def expired(self, now: float) -> list[_T]:
        """Return what has been kept long enough, or is safe no more. It is kept no more."""
        gone = [k for k in self._kept if now >= k.until or not self._is_safe(k.item)]
        return self._drop(gone)

    def of_pool(self, pool: str) -> list[_T]:
        """Return everything of one pool: a request that needs a seat of it finds none here."""
        return self._drop([kept for kept in self._kept if kept.key.pool == pool])

    def everything(self) -> list[_T]:
        """Return all that is kept, and keep it no more."""
        return self._drop(list(self._kept))

    def next_expiry(self) -> float | None:
        """Return when `expired` will have something to return; None while nothing is kept."""
        return min((kept.until for kept in self._kept), default=None)

    def _drop(self, gone: list[_Kept[_T]]) -> list[_T]:
        for kept in gone:
            self._kept.remove(kept)
        return [kept.item for kept in gone]
