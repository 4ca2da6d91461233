"""The answers of a streaming call, and their end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar, cast

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


class _Call(Protocol[_T_co]):
    def __aiter__(self) -> AsyncIterator[_T_co]: ...
    def cancel(self) -> bool: ...


@asynccontextmanager
async def answers_of(call: _Call[_T]) -> AsyncIterator[AsyncIterator[_T]]:
    """Iterate over a call's answers; however the block ends, the call ends with it.

    A loop that is left in the middle leaves grpc.aio's own generator suspended. It is ended here, in
    its loop: the garbage collector may come when that loop is closed.
    """
    # Made by generator functions, in grpc.aio and in the helper's stand-in alike.
    answers = cast("AsyncGenerator[_T, None]", aiter(call))
    try:
        yield answers
    finally:
        call.cancel()
        await answers.aclose()
