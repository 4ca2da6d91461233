"""How a function becomes a command of the command line: its options, its signals, and how it ends."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec

from seatkeeper.cli.connection import Claimant, Connection
from seatkeeper.cli.exits import EndedBySignal, say_interrupted
from seatkeeper.hold.signals import PERSON, caught, waking

P = ParamSpec("P")

GRPC_VERBOSITY = "GRPC_VERBOSITY"


def connected(
    command: Callable[Concatenate[Connection, P], Coroutine[Any, Any, None] | None],
) -> Callable[..., None]:
    """Make ``command`` one of the command line, with the options of `Connection` after its own."""
    return with_options(Connection, command)


def claiming(
    command: Callable[Concatenate[Claimant, P], Coroutine[Any, Any, None] | None],
) -> Callable[..., None]:
    """Make ``command`` one of the command line, with the options of `Claimant` after its own."""
    return with_options(Claimant, command)


def with_options(options: type[Any], command: Callable[..., Any]) -> Callable[..., None]:
    """Make ``command`` one of the command line: it gets ``options``, each field of which is one.

    So is each field of a parameter of its own that is a dataclass: a group of options.
    """
    shared = inspect.signature(options, eval_str=True).parameters
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    groups: dict[str, tuple[Any, list[inspect.Parameter]]] = {
        parameter.name: (parameter.annotation, _options_of(parameter.annotation))
        for parameter in own
        if dataclasses.is_dataclass(parameter.annotation)
    }

    @functools.wraps(command)
    def parsed(**arguments: Any) -> None:  # noqa: ANN401  # typer hands over options of any type
        given = options(**{name: arguments.pop(name) for name in shared})
        for name, (kind, fields) in groups.items():
            arguments[name] = kind(
                **{field.name: arguments.pop(field.name) for field in fields}
            )
        if isinstance(given, Connection):
            _hush_grpc()
        try:
            result = command(given, **arguments)
            if inspect.iscoroutine(result):
                run_to_end(result, holds=issubclass(options, Claimant))
        except Exception as error:
            if (explained := _explained(given, error)) is error:
                raise
            raise explained from error

    spelled_out = [
        each
        for parameter in own
        for each in (groups[parameter.name][1] if parameter.name in groups else [parameter])
    ]
    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in (*spelled_out, *shared.values())
    ]
    parsed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads the signature, which mypy does not know of a function
    parsed.__annotations__ = {each.name: each.annotation for each in parameters}
    return parsed


def _options_of(group: Any) -> list[inspect.Parameter]:  # noqa: ANN401  # any dataclass
    return list(inspect.signature(group, eval_str=True).parameters.values())


def _hush_grpc() -> None:
    """Have gRPC's C core write nothing, unless the user asked it to: we say what went wrong, once.

    It looks at its variable when it is loaded, and then no more. It is taken away again, since what
    `run` starts must not inherit it.
    """
    if GRPC_VERBOSITY in os.environ or "grpc" in sys.modules:
        return
    os.environ[GRPC_VERBOSITY] = "NONE"
    try:
        import grpc  # noqa: F401  # imported for whether it can be
    finally:
        del os.environ[GRPC_VERBOSITY]


def _explained(given: object, error: Exception) -> Exception:
    from seatkeeper.core.errors import ServiceUnavailable

    if isinstance(given, Connection) and isinstance(error, ServiceUnavailable):
        return given.explained(error)
    return error


def run_to_end(main: Coroutine[Any, Any, None], *, holds: bool = False) -> None:
    """Run ``main``. A signal that is to end us cancels it, so that it gives back what it holds.

    Then we die of that signal; where ``main`` ``holds`` something, we say what became of that. A
    second signal does not wait. One that was ignored when we were started (``nohup``, background
    jobs of ``sh``) stays ignored.
    """
    ended_by: list[int] = []
    before: dict[int, Any] = {}

    async def guarded() -> None:
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        assert task is not None

        def end(number: int, _frame: object) -> None:
            ended_by.append(number)
            if len(ended_by) > 1 or loop.is_closed():
                # Also where the loop does not come to its tasks.
                raise EndedBySignal(number)
            loop.call_soon_threadsafe(task.cancel)

        for number in caught(*PERSON):
            before[number] = signal.signal(number, end)
        with waking(loop):
            await main

    try:
        asyncio.run(guarded())
    except (asyncio.CancelledError, Exception):
        if not ended_by:
            raise
    finally:
        for number, handler in before.items():
            # asyncio has one for Ctrl-C, and would have put back Python's.
            was = signal.default_int_handler if number == signal.SIGINT else handler
            signal.signal(number, was)
    if ended_by:
        if holds:
            say_interrupted(ended_by[0], "what was held or asked for is given back")
        raise EndedBySignal(ended_by[0])
