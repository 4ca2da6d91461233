"""HUP ends neither node nor agent, also while they start; they read their settings again."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from tests.cases.place import CannotRun, Place, runs


def case(place: Place) -> None:
    config = place.folder / "node.toml"
    config.write_text('log_level = "info"\n')
    node = place.start_node("--config", str(config))
    config.write_text('log_level = "warning"\nsession_ttl = 30\n')
    os.kill(node.pid, signal.SIGHUP)
    place.wait_until(lambda: _events(node.log, "reload_needs_restart"), what="a reload")
    config.write_text("nonsense\n")
    os.kill(node.pid, signal.SIGHUP)
    place.wait_until(lambda: _events(node.log, "reload_failed"), what="a refusal")
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGPIPE):
        os.kill(node.pid, number)
    assert place.held() == 0
    assert runs(node.pid), "the node was killed"
    assert node.stop() == 0, "the node does not stop in good order"

    node = place.start_node()
    place.node = node
    try:
        agent = place.start_agent()
    except CannotRun:
        return
    os.kill(agent.pid, signal.SIGHUP)
    place.wait_until(lambda: _events(agent.log, "reloaded"), what="a reload of the agent")
    assert runs(agent.pid), "the agent was killed"
    assert agent.stop() == 0, "the agent does not stop in good order"


def _events(log: Path, event: str) -> list[dict[str, object]]:
    lines = log.read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["event"] == event]
