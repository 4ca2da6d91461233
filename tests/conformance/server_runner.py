"""Runs scripts against a server: plays its clients, with stubs alone.

No script waits by sleeping: it waits for an event, an answer, or a condition that a read shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import grpc
from google.protobuf.message import DecodeError
from grpc import aio
from tests.conformance.matching import Mismatch, match, matches
from tests.conformance.script import SERVER_VERBS, Result, Script, verb_of
from tests.conformance.streams import Inbox
from tests.conformance.values import (
    Bindings,
    Json,
    ScriptError,
    fill,
    new_id,
    new_name,
    new_secret,
)
from tests.conformance.wire import Method, status_of

Control = Callable[[], Awaitable[None]]
Channel = aio.Channel
CALL_SECONDS = 20.0
CONNECT_SECONDS = 10.0
SCRIPT_SECONDS = 180.0
POLL_SECONDS = 0.1
TTL = "60s"
IGNORED = ("ring", "queued")
"""Events that may come at any time; a script names others."""
OK = {"code": "OK"}
_OPTIONS = (
    # Each script has connections of its own, so that none is slowed or broken by another's.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
)


class Skipped(Exception):
    """A script needs what this harness does not have."""


@dataclass(frozen=True)
class Target:
    """A server under test."""

    addresses: tuple[str, ...]
    controls: Mapping[str, Control] = field(default_factory=dict)
    """What the harness can do to a node beside the wire: see README.md, "Controls"."""
    credentials: grpc.ChannelCredentials | None = None

    def connect(self, node: int) -> Channel:
        """Connect to a node; nodes are counted around."""
        address = self.addresses[node % len(self.addresses)]
        if self.credentials is None:
            return aio.insecure_channel(address, options=_OPTIONS)
        return aio.secure_channel(address, self.credentials, options=_OPTIONS)


async def unreachable(target: Target) -> list[str]:
    """Return the addresses where nothing can be connected to."""
    lost: list[str] = []
    for number, address in enumerate(target.addresses):
        channel = target.connect(number)
        try:
            await asyncio.wait_for(channel.channel_ready(), CONNECT_SECONDS)
        except TimeoutError:
            lost.append(address)
        await channel.close()
    return lost


async def run_scripts(
    target: Target, chosen: Sequence[Script], *, at_once: int = 12
) -> list[Result]:
    """Run scripts, several at once; return the results in their order."""
    gate = asyncio.Semaphore(at_once)

    async def one(script: Script) -> Result:
        async with gate:
            return await run_script(target, script)

    return list(await asyncio.gather(*map(one, chosen)))


async def run_script(target: Target, script: Script) -> Result:
    """Run one script."""
    lacks = [name for name in script.needs if name not in target.controls]
    if lacks:
        reason = f"the harness has no control {', '.join(lacks)}"
        return Result(script.name, ok=True, skipped=reason, covers=script.covers)
    run = _Run(target)
    began = time.monotonic()
    number, failure = 0, ""
    try:
        async with asyncio.timeout(SCRIPT_SECONDS):
            for number, step in enumerate(script.steps, 1):  # noqa: B007 # used below
                await run.step(step)
    except (Mismatch, ScriptError, DecodeError) as error:
        failure = f"{error}"
    except TimeoutError:
        failure = f"not done after {SCRIPT_SECONDS:g} s"
    finally:
        await run.clean_up()
    return Result(
        script.name,
        ok=not failure,
        seconds=time.monotonic() - began,
        step=number,
        error=failure,
        covers=script.covers,
    )


@dataclass
class _Stream:
    call: aio.StreamStreamCall[bytes, bytes]
    inbox: Inbox
    reader: asyncio.Task[None]


class _Run:
    """One script under way."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._channels: dict[int, Channel] = {}
        self._bindings: Bindings = {}
        self._calls: dict[str, list[asyncio.Task[Json]]] = {}
        self._streams: dict[str, _Stream] = {}
        self._pools: list[str] = []

    async def step(self, step: dict[str, Json]) -> None:
        """Do one step."""
        verb = verb_of(step, SERVER_VERBS)
        action: Callable[[dict[str, Json]], Awaitable[None]]
        action = getattr(self, f"_do_{verb}")
        await action(step)

    async def clean_up(self) -> None:
        """End what is under way, and leave nothing on the server where it still answers."""
        tasks = [task for tasks in self._calls.values() for task in tasks]
        for stream in self._streams.values():
            stream.call.cancel()
            tasks.append(stream.reader)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for value in self._bindings.values():
            if isinstance(value, dict) and {"session_id", "secret"} <= value.keys():
                await self._call("SeatService.CloseSession", {"credentials": value}, timeout=5)
        for pool in self._pools:
            await self._call("PoolService.DeletePool", {"name": pool}, timeout=5)
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))

    # Abbreviations ------------------------------------------------------------------------------

    async def _do_let(self, step: dict[str, Json]) -> None:
        for name, value in step["let"].items():
            self._bindings[name] = fill(value, self._bindings)

    async def _do_pool(self, step: dict[str, Json]) -> None:
        name = new_name("conformance")
        self._bindings[step["pool"]] = name
        spec = {"name": name, "seats": fill(step.get("seats", 1), self._bindings)}
        if "description" in step:
            spec["description"] = fill(step["description"], self._bindings)
        await self._do_call({"call": "PoolService.CreatePool", "request": {"spec": spec}})

    async def _do_session(self, step: dict[str, Json]) -> None:
        credentials = {"session_id": new_id(), "secret": new_secret()}
        self._bindings[step["session"]] = credentials
        request = {"open": self._open(credentials, step)}
        node = step.get("node", 0)
        await self._do_call(
            {"call": "SeatService.OpenSession", "request": request, "node": node}
        )

    def _open(self, credentials: Json, step: dict[str, Json]) -> Json:
        return fill(
            {
                "credentials": credentials,
                "holder": step.get("holder", "conformance"),
                "project": step.get("project", "conformance"),
                "ttl": step.get("ttl", TTL),
            },
            self._bindings,
        )

    # Unary calls --------------------------------------------------------------------------------

    async def _do_call(self, step: dict[str, Json]) -> None:
        name, request = step["call"], fill(step.get("request", {}), self._bindings)
        if name == "PoolService.CreatePool" and "spec" in request:
            self._pools.append(request["spec"].get("name", ""))
        tasks = [
            asyncio.ensure_future(
                self._call(name, request, step.get("timeout"), step.get("node", 0))
            )
            for _ in range(step.get("repeat", 1))
        ]
        if "start" in step:
            self._calls[step["start"]] = tasks
            # Sent before the next step is: a step may rely on what it started.
            await asyncio.sleep(0)
        else:
            await self._check_history(tasks, step, name)

    async def _do_await(self, step: dict[str, Json]) -> None:
        name = step["await"]
        if name not in self._calls:
            raise ScriptError(f"no call {name} was started")
        await self._check_history(self._calls.pop(name), step, name)

    async def _check_history(
        self, tasks: list[asyncio.Task[Json]], step: dict[str, Json], name: str
    ) -> None:
        _, late = await asyncio.wait(tasks, timeout=step.get("within", 2 * CALL_SECONDS))
        if late:
            raise Mismatch(f"{name}: {len(late)} of {len(tasks)} calls were not answered")
        for task in tasks:
            outcome = task.result()
            try:
                match(step.get("expect", {"response": {}}), outcome, self._bindings, name)
            except Mismatch as error:
                raise Mismatch(f"{error}; answered: {outcome!r:.600}") from error

    async def _call(
        self, name: str, request: Json, timeout: float | None = None, node: int = 0
    ) -> Json:
        method = Method.named(name)
        seconds = CALL_SECONDS if timeout is None else timeout
        try:
            data = await answer(self._channel(node), method, method.request(request), seconds)
        except aio.AioRpcError as error:
            return {
                "status": status_of(
                    error.code(), error.details() or "", error.trailing_metadata() or ()
                )
            }
        return {"response": method.response(data)}

    def _channel(self, node: int) -> Channel:
        if node not in self._channels:
            self._channels[node] = self._target.connect(node)
        return self._channels[node]

    async def _do_poll(self, step: dict[str, Json]) -> None:
        request, until = fill(step.get("request", {}), self._bindings), step["until"]
        deadline = time.monotonic() + step.get("within", 2 * CALL_SECONDS)
        while True:
            outcome = await self._call(step["poll"], request, node=step.get("node", 0))
            if matches(until, outcome, self._bindings):
                return
            if time.monotonic() > deadline:
                raise Mismatch(
                    f"{step['poll']} never showed {until!r:.400}; last: {outcome!r:.800}"
                )
            await asyncio.sleep(POLL_SECONDS)

    async def _do_cancel(self, step: dict[str, Json]) -> None:
        """Cancel calls, or break a stream off."""
        name = step["cancel"]
        if name in self._streams:
            self._streams[name].call.cancel()
            return
        for task in self._calls.pop(name):
            task.cancel()

    # Streams ------------------------------------------------------------------------------------

    async def _do_stream(self, step: dict[str, Json]) -> None:
        method, name = Method.named("SeatService.Session"), step["stream"]
        multi: aio.StreamStreamMultiCallable[bytes, bytes] = self._channel(
            step.get("node", 0)
        ).stream_stream(method.path)
        call, inbox = multi(), Inbox(name)
        reader = asyncio.create_task(_read(method, call, inbox))
        self._streams[name] = _Stream(call, inbox, reader)
        if "resume" in step:
            credentials = fill(step["resume"], self._bindings)
            first: Json = {"resume": {"credentials": credentials}}
        elif "open" in step:
            credentials = {"session_id": new_id(), "secret": new_secret()}
            terms = step["open"] if isinstance(step["open"], dict) else {"as": step["open"]}
            self._bindings[terms["as"]] = credentials
            first = {"open": self._open(credentials, terms)}
        else:
            return
        await self._do_send({"send": name, "commands": [first]})
        opened = {"opened": {"session_id": credentials["session_id"]}}
        await self._do_expect({"expect": name, "events": [opened]})

    async def _do_send(self, step: dict[str, Json]) -> None:
        request = fill(
            step["request"] if "request" in step else {"commands": step["commands"]},
            self._bindings,
        )
        data = Method.named("SeatService.Session").request(request)
        # Where it has ended, the next step that expects something of it says how.
        with contextlib.suppress(aio.AioRpcError, asyncio.InvalidStateError):
            await self._stream(step["send"]).call.write(data)

    async def _do_half_close(self, step: dict[str, Json]) -> None:
        await self._stream(step["half_close"]).call.done_writing()

    async def _do_expect(self, step: dict[str, Json]) -> None:
        patterns = fill_patterns(step["events"], self._bindings)
        await self._stream(step["expect"]).inbox.expect(
            patterns,
            self._bindings,
            ignore=(*IGNORED, *step.get("ignore", ())),
            unordered=step.get("unordered", False),
            within=step.get("within", 2 * CALL_SECONDS),
        )

    async def _do_expect_end(self, step: dict[str, Json]) -> None:
        await self._stream(step["expect_end"]).inbox.expect_end(
            step.get("status", OK),
            self._bindings,
            ignore=(*IGNORED, *step.get("ignore", ())),
            within=step.get("within", 2 * CALL_SECONDS),
        )

    def _stream(self, name: str) -> _Stream:
        if name not in self._streams:
            raise ScriptError(f"there is no stream {name}")
        return self._streams[name]

    async def _do_control(self, step: dict[str, Json]) -> None:
        name = step["control"]
        if name not in self._target.controls:
            raise ScriptError(f"a script that uses control {name} must have it in `needs`")
        await self._target.controls[name]()


async def answer(channel: Channel, method: Method, request: bytes, seconds: float) -> bytes:
    """Return the answer of a call, or the first of several. Raises ``AioRpcError``."""
    if not method.streams:
        one: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method.path)
        return await one(request, timeout=seconds)
    several: aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(method.path)
    call = several(request, timeout=seconds)
    try:
        async for data in call:
            return data
        raise Mismatch(f"{method.path} ended without an answer")
    finally:
        call.cancel()


def fill_patterns(patterns: Sequence[Json], bindings: Bindings) -> list[Json]:
    """Return a list of patterns with each ``$for`` in it made out; all else is filled in later."""
    made: list[Json] = []
    for pattern in patterns:
        if isinstance(pattern, dict) and "$for" in pattern:
            made += fill([pattern], bindings)
        else:
            made.append(pattern)
    return made


async def _read(method: Method, call: aio.StreamStreamCall[bytes, bytes], inbox: Inbox) -> None:
    """Put what comes into the inbox, until the end."""
    try:
        while isinstance(data := await call.read(), bytes):
            for event in method.response(data)["events"]:
                inbox.put(event)
        metadata = await call.trailing_metadata()
        inbox.end(status_of(await call.code(), await call.details() or "", metadata or ()))
    except aio.AioRpcError as error:
        metadata = error.trailing_metadata()
        inbox.end(status_of(error.code(), error.details() or "", metadata or ()))
    except asyncio.CancelledError:
        inbox.end({"code": "CANCELLED", "message": "cancelled by the script", "details": []})
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
