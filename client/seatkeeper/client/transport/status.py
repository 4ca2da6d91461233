"""How a call really ended."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from grpc import aio

_T = TypeVar("_T")


class FirstStatus:
    """Remembers the status that the peer sent.

    A message that is being written when the peer ends the call fails after the peer's status has
    arrived, and grpc.aio then puts "Internal error from Core" in its place: more often than not,
    when the peer refuses a large upload early. A caller that must distinguish "the agent is full"
    from a crash has to look at the moment of arrival.
    """

    def __init__(self, call: aio.StreamStreamCall[Any, Any]) -> None:
        self._call = call
        self._error: aio.AioRpcError | None = None
        call.add_done_callback(self._note)

    def of(self, error: aio.AioRpcError) -> aio.AioRpcError:
        """Return what ``error`` would have been."""
        return self._error or error

    def _note(self, call: object) -> None:
        try:
            self._error = aio.AioRpcError(
                _result(self._call.code()),
                _result(self._call.initial_metadata()),
                _result(self._call.trailing_metadata()),
                _result(self._call.details()),
            )
        except LookupError:
            # Not known yet after all: the error that is raised will have to do.
            self._error = None


def _result(work: Coroutine[Any, Any, _T]) -> _T:
    """Return the result of ``work``, which must have nothing to wait for. Raises `LookupError`."""
    try:
        work.send(None)
    except StopIteration as stop:
        result: _T = stop.value
        return result
    work.close()
    raise LookupError
