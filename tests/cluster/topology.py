"""The services of ``docker-compose.yml`` as processes: its commands, settings and health checks.

What a container engine would do is translated: a service's name and port become a port on loopback, a
volume becomes a folder, an image becomes the program that is in it. So the file is tested for what
it says, though not for the images that it names.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.balancer import free_ports
from tests.tree import ROOT

COMPOSE_FILE = ROOT / "docker-compose.yml"
CONTAINERFILE = ROOT / "deploy" / "Containerfile"
PORTS_MAX = 64
HEALTHY_SECONDS_MAX = 40.0
STOP_SECONDS_MAX = 15.0
_THIS_SERVICE = ("0.0.0.0", "127.0.0.1", "localhost")


@dataclass(frozen=True)
class Image:
    """What an image adds to what the compose file says."""

    entrypoint: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    health: tuple[str, ...] = ()


def read_compose(program: Path) -> dict[str, Any]:
    """Return the compose file as Docker's own tool understands it. Raises ``CalledProcessError``."""
    command = [str(program), "-f", str(COMPOSE_FILE), "config", "--format", "json"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def read_containerfile() -> Image:
    """Return what an image of ``deploy/Containerfile`` says of itself."""
    text = CONTAINERFILE.read_text().replace("\\\n", " ")

    def words(instruction: str) -> tuple[str, ...]:
        match = re.search(rf"^{instruction} *(\[.*\]) *$", text, re.MULTILINE)
        assert match is not None, f"no {instruction} in its exec form"
        return tuple(json.loads(match[1]))

    settings = re.search(r"^ENV (.*)$", text, re.MULTILINE)
    assert settings is not None
    pairs = dict(word.split("=", 1) for word in shlex.split(settings[1]))
    return Image(
        words("ENTRYPOINT"),
        {name: value for name, value in pairs.items() if name.startswith("SEATKEEPER_")},
        words("HEALTHCHECK.* CMD"),
    )


@dataclass
class Running:
    """A service's process."""

    process: subprocess.Popen[bytes]
    log: Path

    def stderr_tail(self) -> str:
        return self.log.read_text()[-2000:]


class Topology:
    """Starts the services in the order that the file asks for."""

    def __init__(
        self,
        compose: Mapping[str, Any],
        images: Mapping[str, Image],
        programs: Mapping[str, Path],
        folder: Path,
    ) -> None:
        self.services: dict[str, dict[str, Any]] = dict(compose["services"])
        self.running: dict[str, Running] = {}
        self._images = images
        self._programs = programs
        self._folder = folder
        self._ports: dict[tuple[str, str], int] = {}
        self._free = free_ports(PORTS_MAX)
        # HAProxy's and Prometheus's files name other services, so they are translated too.
        self._files = {name: self._files_of(name) for name in self.services}

    def address(self, service: str, port: int) -> str:
        """Return where a port of a service is."""
        return f"127.0.0.1:{self._port(service, str(port))}"

    def published(self, service: str, port: int) -> str:
        """Return where a port is that people outside may reach."""
        targets = [each["target"] for each in self.services[service].get("ports", [])]
        assert port in targets, f"{service} publishes {targets}"
        return self.address(service, port)

    async def start(self) -> None:
        """Start every service, each when those that it depends on are healthy."""
        started: dict[str, asyncio.Task[None]] = {}

        async def start(name: str) -> None:
            for other, how in self.services[name].get("depends_on", {}).items():
                assert how["condition"] == "service_healthy"
                await started[other]
            self.launch(name)
            await self.wait_healthy(name)

        for name in self.services:
            started[name] = asyncio.create_task(start(name))
        try:
            await asyncio.gather(*started.values())
        finally:
            for task in started.values():
                task.cancel()
            await asyncio.gather(*started.values(), return_exceptions=True)

    def launch(self, name: str) -> None:
        """Start the process of a service."""
        service, image = self.services[name], self._image(name)
        command = [*(service["entrypoint"] or image.entrypoint), *(service["command"] or ())]
        log = self._folder / f"{name}.log"
        with log.open("ab") as file:
            process = subprocess.Popen(
                self._local(name, command),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=self._environment(name),
                cwd=self._folder,
                process_group=0,
            )
        self.running[name] = Running(process, log)

    async def wait_healthy(self, name: str) -> None:
        """Ask a service's own health check until it is content."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + HEALTHY_SECONDS_MAX
        running = self.running[name]
        while (said := await self.health(name)) is not None:
            assert running.process.poll() is None, f"{name} ended: {running.stderr_tail()}"
            late = f"{name} is not healthy: {said}\n{running.stderr_tail()}"
            assert loop.time() < deadline, late
            await asyncio.sleep(0.2)

    async def health(self, name: str) -> str | None:
        """Run a service's health check once: None when it is content, else what it said."""
        check = self.services[name]["healthcheck"].get("test") or ["CMD"]
        kind, *words = check
        if kind == "CMD-SHELL":
            words = ["sh", "-c", *words]
        command = self._local(name, words or self._image(name).health)
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment(name),
        )
        said, _ = await process.communicate()
        return None if process.returncode == 0 else f"{command} says {said.decode()!r}"

    def kill(self, name: str) -> None:
        """End a service as a power cut would."""
        process = self.running.pop(name).process
        process.kill()
        process.wait()

    def stop(self) -> None:
        """End every service, the last first. Safe to call twice."""
        while self.running:
            _, running = self.running.popitem()
            running.process.send_signal(signal.SIGTERM)
            try:
                running.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                running.process.kill()
                running.process.wait()

    # Translation -----------------------------------------------------------------------------

    def _image(self, name: str) -> Image:
        return self._images.get(self.services[name]["image"].partition(":")[0], Image())

    def _environment(self, name: str) -> dict[str, str]:
        ours = {k: v for k, v in os.environ.items() if not k.startswith("SEATKEEPER_")}
        # Commands in a shell find our own by name.
        ours["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{ours['PATH']}"
        given = {**self._image(name).environment, **self.services[name].get("environment", {})}
        return ours | {key: self._translate(name, value) for key, value in given.items()}

    def _local(self, name: str, command: Sequence[str]) -> list[str]:
        program, *rest = (self._translate(name, word) for word in command)
        return [str(self._programs[program]), *rest]

    def _translate(self, name: str, text: str) -> str:
        """Return a text of a service with addresses and paths as they are here."""
        for place, here in sorted(self._files[name].items(), reverse=True):
            text = re.sub(rf"(?<![\w./-]){re.escape(place)}(?![\w.-])", str(here), text)
        return self._translate_addresses(name, text)

    def _translate_addresses(self, name: str, text: str) -> str:
        hosts = "|".join(map(re.escape, (*self.services, *_THIS_SERVICE)))

        def here(match: re.Match[str]) -> str:
            service = name if match["host"] in _THIS_SERVICE else match["host"]
            return f"127.0.0.1{match['between']}{self._port(service, match['port'])}"

        pattern = rf"(?<![\w.-])(?P<host>{hosts})(?P<between>[:/])(?P<port>\d+)\b"
        return re.sub(pattern, here, text)

    def _port(self, service: str, port: str) -> int:
        if (service, port) not in self._ports:
            self._ports[service, port] = self._free.pop()
        return self._ports[service, port]

    def _files_of(self, name: str) -> dict[str, Path]:
        """Make what a service has mounted, and return where it is here."""
        places: dict[str, Path] = {}
        for volume in self.services[name].get("volumes", []):
            here = self._folder / name / volume["target"].strip("/")
            if volume["type"] == "bind":
                here.parent.mkdir(parents=True, exist_ok=True)
                text = Path(volume["source"]).read_text()
                here.write_text(self._translate_addresses(name, text))
            else:
                shutil.rmtree(here, ignore_errors=True)
                here.mkdir(parents=True, mode=0o700)
            places[volume["target"]] = here
        return places
