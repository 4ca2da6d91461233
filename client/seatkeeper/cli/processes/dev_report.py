"""What ``seatkeeper dev`` says: each event of the cluster, for people or for programs."""

from __future__ import annotations

from pathlib import Path

from seatkeeper.cli.render import Json, say, write_json
from seatkeeper.core.amounts import count
from seatkeeper.core.text import path_in_json
from seatkeeper.devcluster.cluster import (
    AgentAbsent,
    AgentDelayed,
    AgentNotReady,
    AgentServing,
    Ended,
    EtcdServing,
    Event,
    NodeServing,
    PoolPresent,
    Ready,
    Reloaded,
    Stopped,
)
from seatkeeper.devcluster.plan import (
    ClusterFailed,
    EtcdMissing,
    FolderInUse,
    FolderUnusable,
    PlanChanged,
    PortTaken,
)

_FLAG_OF = {"port": "--port", "etcd_members": "--etcd-members"}


def report(event: Event, state: Path, *, as_json: bool) -> None:
    """Write what there is to say about an event of the cluster in the folder ``state``."""
    if as_json:
        if (value := _for_programs(event, state)) is not None:
            write_json(value)
        return
    for line in _for_people(event, state):
        say(line)


def explain(error: ClusterFailed, state: Path) -> str:
    """Return why there is no cluster, and what to do, in the words of the command line."""
    match error:
        case FolderUnusable(reason=reason):
            return f"--state {state}: {reason}"
        case FolderInUse(pid=pid):
            return (
                f"another `seatkeeper dev` (pid {pid}) runs on {state}; stop it, or choose "
                "another folder with --state and other ports with --port"
            )
        case PlanChanged(setting=setting, kept=kept):
            flag = _FLAG_OF[setting]
            return (
                f"{state} was made with {flag} {kept}, which etcd remembers; leave {flag} out, "
                "or choose another folder with --state"
            )
        case PortTaken():
            return (
                f"{error}; choose other ports with --port, such as --port 17420, and another "
                "--state if this one has been used"
            )
        case EtcdMissing():
            return f"{error}; or name one with --etcd"
    return str(error)


def _for_programs(event: Event, state: Path) -> Json | None:
    """Return the event as JSON; None: it is for people alone."""
    match event:
        case Ready():
            return {
                "event": "ready",
                "nodes": list(event.nodes),
                "etcd": list(event.etcd),
                "agent": event.agent,
                "pool": event.pool,
                "seats": event.seats,
                "state": path_in_json(state),
                "pids": dict(event.pids),
            }
        case Ended():
            return {
                "event": "ended",
                "name": event.name,
                "exit_code": event.exit_code,
                "log": path_in_json(event.log),
            }
        case Stopped():
            return {"event": "stopped"}
    return None


def _for_people(event: Event, state: Path) -> list[str]:
    match event:
        case EtcdServing(version=version, endpoints=endpoints):
            return [f"etcd {version} on {', '.join(endpoints)}"]
        case NodeServing(name=name, address=address):
            return [f"node {name} on {address}"]
        case PoolPresent(pool=pool, seats=seats):
            return [f"pool {pool} has {count(seats, 'seat')}"]
        case AgentAbsent(reason=reason):
            return [f"no build agent: {reason}"]
        case AgentDelayed():
            return ["the last run's agent was killed: its session ends in some seconds"]
        case AgentNotReady(log=log):
            return [f"the build agent is not ready yet; its log: {log}"]
        case AgentServing(agent_id=agent_id, address=address):
            return [f"agent {agent_id} on {address}"]
        case Ready():
            return _first_steps(event, state)
        case Reloaded():
            return [
                "nodes and agent read their settings again; their logs say what has changed"
            ]
        case Ended():
            how = "" if event.exit_code is None else f" with exit code {event.exit_code}"
            who = event.name if event.pid is None else f"{event.name} (pid {event.pid})"
            return [f"{who} ended{how}; its log: {event.log}"]
        case Stopped(had_nodes=True):
            return [f"stopped; `seatkeeper dev --state {state}` goes on from here"]
    return []


def _first_steps(ready: Ready, state: Path) -> list[str]:
    steps = [
        f"export SEATKEEPER_NODES={','.join(ready.nodes)}",
        "seatkeeper status",
        "seatkeeper run -- env",
    ]
    if ready.agent is not None:
        steps.append("seatkeeper build MODEL.onnx --target SM86 --output MODEL.engine")
    return [
        "",
        f"Ready. State and logs are in {state}. Try in another terminal:",
        "",
        *(f"  {step}" for step in steps),
        "",
        "Ctrl-C stops everything.",
    ]
