"""Runs probes: everything that a caller can do, at nodes of both versions, by callers of both."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

from tests.compat.fields import TICKET_ATTRIBUTES, NotPlanted, Planter, Step
from tests.compat.previous import Release
from tests.compat.service import MixedNode, MixedService

from seatkeeper.client import AsyncSeatClient
from seatkeeper.oracle.record import Failed, Record
from seatkeeper.server.store import StoreError

PLANTED = tuple(f"planted-{number}" for number in range(1, 13))
"""Pools with fields that no version knows, each of one seat. Only their owners are asked for them."""
OPEN = tuple(f"open-{number}" for number in range(1, 13))
"""Pools that any node is asked for. There are so many that every node decides for some of both."""
PROGRAM = Path(__file__).with_name("probe.py")
PROBE_SECONDS_MAX = 90.0
OWNERS_SECONDS_MAX = 15.0
COMMAND_SECONDS_MAX = 30.0


class NoPools(Exception):
    """A node decides for too few of the pools, so nothing can be tried at it."""


@dataclass
class Probing:
    """Runs them, and remembers what they did and what failed."""

    service: MixedService
    admin: AsyncSeatClient
    record: Record
    folder: Path
    rng: random.Random
    planter: Planter
    steps: list[Step] = field(default_factory=list)
    done: int = 0
    """Steps and commands that succeeded."""
    planted: int = 0

    async def run(self, releases: Sequence[Release]) -> None:
        """Have a caller of each release try everything at a node of each version."""
        owned = await self._owned()
        for release in releases:
            for node in self._one_of_each():
                await self._probe(release, node, self._other(node), owned)
            await self._commands(release)

    def _one_of_each(self) -> list[MixedNode]:
        """Return a node of each version that there is."""
        by_release: dict[str, list[MixedNode]] = {}
        for node in self.service.mixed:
            by_release.setdefault(node.release.name, []).append(node)
        return [self.rng.choice(nodes) for nodes in by_release.values()]

    def _other(self, node: MixedNode) -> MixedNode:
        """Return another node, of the other version where there is one."""
        others = [each for each in self.service.mixed if each is not node]
        differing = [each for each in others if each.release.name != node.release.name]
        return self.rng.choice(differing or others)

    async def _owned(self) -> dict[str, list[str]]:
        """Return which pools each node decides for, once all nodes are counted in."""
        deadline = time.monotonic() + OWNERS_SECONDS_MAX
        names = {node.name for node in self.service.mixed}
        while True:
            owned: dict[str, list[str]] = {name: [] for name in names}
            for pool in await self.admin.pools.list():
                if pool.owner in names and pool.spec.name in (*PLANTED, *OPEN):
                    owned[pool.owner].append(pool.spec.name)
            if all({*PLANTED} & {*pools} and {*OPEN} & {*pools} for pools in owned.values()):
                return owned
            if time.monotonic() > deadline:
                raise NoPools(f"pools of each kind are needed for every node: {owned}")
            await asyncio.sleep(0.1)

    async def _probe(
        self,
        release: Release,
        node: MixedNode,
        other: MixedNode,
        owned: dict[str, list[str]],
    ) -> None:
        config = {
            "name": release.name,
            "node": node.name,
            "address": node.listen,
            "other": other.name,
            "other_address": other.listen,
            "pool": self.rng.choice([pool for pool in owned[node.name] if pool in PLANTED]),
            "second_pool": self.rng.choice([pool for pool in owned[node.name] if pool in OPEN]),
            "foreign_pool": self.rng.choice([p for p in owned[other.name] if p in OPEN]),
            "is_all_new": {node.release.name, other.release.name} == {"new"},
            "tls": self.service.caller_files,
        }
        writers = {each.name: each.release.name for each in (node, other)}
        where = f"{node.name} ({node.release.name}), {other.name} ({other.release.name})"
        with (self.folder / f"probe-{release.name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(*release.interpreter, str(PROGRAM), json.dumps(config)),
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
            )
        try:
            async with asyncio.timeout(PROBE_SECONDS_MAX):
                await self._converse(process, f"probe of {release.name}", where, writers)
                if await process.wait():
                    self._failed(f"probe of {release.name}", where, f"rc {process.returncode}")
        except TimeoutError:
            self._failed(f"probe of {release.name}", where, "did not end")
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _converse(
        self,
        process: asyncio.subprocess.Process,
        who: str,
        where: str,
        writers: dict[str, str],
    ) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        while line := await process.stdout.readline():
            await self._take(json.loads(line), who, where, writers)
            process.stdin.write(b"\n")
            with suppress(ConnectionError):
                await process.stdin.drain()

    async def _take(
        self, said: dict[str, Any], who: str, where: str, writers: dict[str, str]
    ) -> None:
        if "failed" in said:
            self._failed(who, f"{said['failed']} at {where}", said["reason"])
        elif "plant" in said:
            kind, *names = said["plant"]
            before = await self._revision()
            try:
                if kind == "attributes":
                    key = self.planter.key("ticket", *names)
                    await self.planter.plant(key, TICKET_ATTRIBUTES)
                else:
                    await self.planter.plant(self.planter.key(kind, *names))
                self.planted += 1
            except (NotPlanted, StoreError) as error:
                self._failed(who, f"plant {kind} at {where}", str(error))
            # Ours is not what a node does; and what one did before it is over.
            self.steps.append(Step("between steps", "", before))
            self.steps.append(Step("plant", "harness", await self._revision()))
        else:
            self.done += 1
            writer = writers[said["node"]]
            self.steps.append(Step(said["did"], writer, await self._revision()))

    async def _revision(self) -> int:
        keys = self.planter.key("nodes")
        return (await self.service.store.list(keys)).revision

    async def _commands(self, release: Release) -> None:
        """Use the command line of a release, with a node of the other version first in its list."""
        nodes = sorted(self.service.mixed, key=lambda node: node.release.name == release.name)
        flags = ("--nodes", nodes[0].listen, *self.service.caller_flags)
        pool = self.rng.choice(OPEN)
        for words in (
            ("status", *flags, "--json"),
            ("run", "--pool", pool, *flags, "--wait", "10", "--", "true"),
        ):
            process = await asyncio.create_subprocess_exec(
                *release.program, *words, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
            )
            try:
                async with asyncio.timeout(COMMAND_SECONDS_MAX):
                    output, errors = await process.communicate()
            except TimeoutError:
                process.kill()
                await process.wait()
                self._failed(f"command of {release.name}", words[0], "did not end")
                continue
            if process.returncode:
                tail = errors.decode(errors="replace")[-300:]
                self._failed(f"command of {release.name}", words[0], tail)
            elif "--json" in words and len(json.loads(output)["nodes"]) != len(nodes):
                self._failed(f"command of {release.name}", words[0], output.decode()[-300:])
            else:
                self.done += 1

    def _failed(self, who: str, call: str, reason: str) -> None:
        self.record.note(Failed(who, call, reason, time.monotonic()))
