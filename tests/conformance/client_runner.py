"""Runs scripts against a client: acts as the service, and controls the client by its driver."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence

from google.protobuf.message import DecodeError
from tests.conformance.matching import Mismatch, match
from tests.conformance.script import CLIENT_VERBS, Result, Script, verb_of
from tests.conformance.scripted_nodes import ScriptedNodes, ServedStream
from tests.conformance.server_runner import fill_patterns
from tests.conformance.streams import Inbox
from tests.conformance.values import Bindings, Json, ScriptError, fill

STEP_SECONDS = 40.0
SCRIPT_SECONDS = 180.0
END_SECONDS = 10.0
IGNORED_EVENTS = ("queued", "doubt", "safe")
"""What a driver may report at any time."""


async def run_clients(
    command: Sequence[str], chosen: Sequence[Script], *, at_once: int = 4
) -> list[Result]:
    """Run scripts, each with a driver of its own; return the results in their order."""
    gate = asyncio.Semaphore(at_once)

    async def one(script: Script) -> Result:
        async with gate:
            return await run_client(command, script)

    return list(await asyncio.gather(*map(one, chosen)))


async def run_client(command: Sequence[str], script: Script) -> Result:
    """Run one script."""
    began, number, failure = time.monotonic(), 0, ""
    driver = await Driver.launch(command)
    run = _Run(script, driver)
    try:
        async with asyncio.timeout(SCRIPT_SECONDS):
            for number, step in enumerate(script.steps, 1):  # noqa: B007 # used below
                await run.step(step)
    except (Mismatch, ScriptError, DecodeError) as error:
        failure = f"{error}"
    except TimeoutError:
        failure = f"not done after {SCRIPT_SECONDS:g} s"
    finally:
        await run.nodes.close()
        words = await driver.end()
    if failure and words:
        failure += f"; the driver wrote: {words}"
    return Result(
        script.name,
        ok=not failure,
        seconds=time.monotonic() - began,
        step=number,
        error=failure,
        covers=script.covers,
    )


class Driver:
    """The program that drives the client under test: JSON lines in, JSON lines out."""

    def __init__(self, process: asyncio.subprocess.Process, stderr: int) -> None:
        self._process = process
        self._stderr = stderr
        self.inbox = Inbox("the driver", kind=lambda item: str(item.get("event", "")))
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def launch(cls, command: Sequence[str]) -> Driver:
        """Start it. Settings of Seatkeeper in our environment are not the client's."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("SEATKEEPER_")}
        with tempfile.TemporaryFile() as file:
            stderr = os.dup(file.fileno())
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            env=kept,
        )
        return cls(process, stderr)

    async def notify(self, line: Json) -> None:
        """Have it do something."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line).encode() + b"\n")
        # Where it has ended, whatever is expected of it next fails, and says so.
        with contextlib.suppress(ConnectionError):
            await self._process.stdin.drain()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            try:
                event = json.loads(line)
            except ValueError:
                event = {"event": "no JSON", "line": line.decode(errors="replace")}
            self.inbox.put(event if isinstance(event, dict) else {"event": "no object"})
        code = await self._process.wait()
        self.inbox.end({"exit code": code})

    async def end(self) -> str:
        """End it: at the end of its input, or by a kill. Return the last it wrote to stderr."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), END_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await asyncio.gather(self._reader, return_exceptions=True)
        size = os.lseek(self._stderr, 0, os.SEEK_END)
        words = os.pread(self._stderr, 2000, max(0, size - 2000)).decode(errors="replace")
        os.close(self._stderr)
        return words


class _Run:
    """One script under way."""

    def __init__(self, script: Script, driver: Driver) -> None:
        self.nodes = ScriptedNodes(script.nodes)
        self._driver = driver
        self._bindings: Bindings = {}
        self._streams: dict[str, ServedStream] = {}

    async def step(self, step: dict[str, Json]) -> None:
        """Do one step."""
        verb = verb_of(step, CLIENT_VERBS)
        action: Callable[[dict[str, Json]], Awaitable[None]]
        action = getattr(self, f"_do_{verb}")
        await action(step)

    async def _do_let(self, step: dict[str, Json]) -> None:
        for name, value in step["let"].items():
            self._bindings[name] = fill(value, self._bindings)

    # The client under test ----------------------------------------------------------------------

    async def _do_start(self, step: dict[str, Json]) -> None:
        """Start the nodes named, and give the client all addresses."""
        for name in step["start"]:
            await self.nodes.start(name)
        terms = {k: v for k, v in step.items() if k in ("holder", "project", "ttl")}
        addresses = list(self.nodes.addresses.values())
        await self._driver.notify({"do": "start", "nodes": addresses, **terms})
        await self._do_event({"event": {"event": "ready"}})

    async def _do_do(self, step: dict[str, Json]) -> None:
        await self._driver.notify({k: v for k, v in step.items() if k != "note"})

    async def _do_event(self, step: dict[str, Json]) -> None:
        await self._driver.inbox.expect(
            [step["event"]],
            self._bindings,
            ignore=(*IGNORED_EVENTS, *step.get("ignore", ())),
            unordered=False,
            within=step.get("within", STEP_SECONDS),
        )

    # The service --------------------------------------------------------------------------------

    async def _do_node(self, step: dict[str, Json]) -> None:
        action = {"up": self.nodes.start, "down": self.nodes.stop}[step["becomes"]]
        await action(fill(step["node"], self._bindings))

    async def _do_accept(self, step: dict[str, Json]) -> None:
        began = time.monotonic()
        try:
            stream = await asyncio.wait_for(
                self.nodes.streams.get(), step.get("within", STEP_SECONDS)
            )
        except TimeoutError:
            raise Mismatch(f"{step['accept']}: the client opened no stream in time") from None
        _check_not_before(step, began)
        where: dict[str, Json] = {}
        if "on" in step:
            where["node"] = step["on"]
        if "not_on" in step:
            where["node"] = {"$not": step["not_on"]}
        match(where, {"node": stream.node}, self._bindings, step["accept"])
        if "bind" in step:
            self._bindings[step["bind"]] = stream.node
        self._streams[step["accept"]] = stream

    async def _do_expect(self, step: dict[str, Json]) -> None:
        began = time.monotonic()
        await self._stream(step["expect"]).inbox.expect(
            fill_patterns(step["commands"], self._bindings),
            self._bindings,
            ignore=step.get("ignore", ()),
            unordered=step.get("unordered", False),
            within=step.get("within", STEP_SECONDS),
        )
        _check_not_before(step, began)

    async def _do_send(self, step: dict[str, Json]) -> None:
        response = step["response"] if "response" in step else {"events": step["events"]}
        await self._stream(step["send"]).send(fill(response, self._bindings))

    async def _do_end(self, step: dict[str, Json]) -> None:
        self._stream(step["end"]).end(fill(step.get("status", {"code": "OK"}), self._bindings))

    async def _do_expect_end(self, step: dict[str, Json]) -> None:
        await self._stream(step["expect_end"]).inbox.expect_end(
            {},
            self._bindings,
            ignore=step.get("ignore", ()),
            within=step.get("within", STEP_SECONDS),
        )

    async def _do_auto_renew(self, step: dict[str, Json]) -> None:
        terms = fill(step, self._bindings)
        self.nodes.renewals.terms = terms if step["auto_renew"] else None

    async def _do_answer(self, step: dict[str, Json]) -> None:
        name = step["answer"]
        try:
            call = await asyncio.wait_for(
                self.nodes.calls[name].get(), step.get("within", STEP_SECONDS)
            )
        except TimeoutError:
            raise Mismatch(f"the client did not call {name} in time") from None
        match(step.get("request", {}), call.request, self._bindings, name)
        outcome = (
            {"status": step["status"]} if "status" in step else {"response": step["response"]}
        )
        if not call.outcome.done():
            call.outcome.set_result(fill(outcome, self._bindings))

    def _stream(self, name: str) -> ServedStream:
        if name not in self._streams:
            raise ScriptError(f"no stream {name} was accepted")
        return self._streams[name]


def _check_not_before(step: dict[str, Json], began: float) -> None:
    """Raise `Mismatch` when what a step waited for came sooner after ``began`` than it may."""
    took, least = time.monotonic() - began, step.get("not_before", 0.0)
    if took < least:
        raise Mismatch(f"it came after {took:.2f} s, and was to wait for {least:g} s")
