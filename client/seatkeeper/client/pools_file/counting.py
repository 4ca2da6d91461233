"""How a pool counts, in ``pools.yaml``: from what the reader found, back, and what changes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from seatkeeper.core.count_once import count_once_faults
from seatkeeper.v1 import pool_service_pb2 as pb


def counting_of(values: Mapping[str, object]) -> pb.Counting:
    """Return the message of what the keys of a pool are given; an empty one where they say nothing."""
    counting = pb.Counting(advisory=bool(values.get("advisory")))
    costs = values.get("costs")
    for name, seats in costs.items() if isinstance(costs, Mapping) else ():
        counting.costs.add(name=name, seats=seats)
    return counting


def count_once_faults_in(policy: pb.PoolPolicy) -> Iterator[tuple[int, str]]:
    """Yield what nodes would refuse of which grants count once: the place in the list, and why."""
    rules = policy.rules
    yield from count_once_faults(
        tuple(policy.count_once),
        limits_holders=rules.per_holder.HasField("seats"),
        limits_hosts=rules.per_host.HasField("seats"),
    )


def counting_lines(spec: pb.PoolSpec, name_text: Callable[[str], str]) -> Iterator[str]:
    """Yield the keys that say it; ``name_text`` writes a name so that every reader takes it for one."""
    counting = spec.policy.counting
    if counting.advisory:
        yield "advisory: true"
    if counting.costs:
        said = [f"{name_text(each.name)}: {each.seats}" for each in counting.costs]
        yield f"costs: {{{', '.join(said)}}}"
    if spec.policy.count_once:
        yield f"count_once: [{', '.join(spec.policy.count_once)}]"


def counting_values(spec: pb.PoolSpec) -> dict[str, int | float | str | None]:
    """Return what a specification says of it, by the ways to it in the file."""
    counting = spec.policy.counting
    values: dict[str, int | float | str | None] = {}
    if counting.advisory:
        values["advisory"] = "true"
    if spec.policy.count_once:
        values["count_once"] = ", ".join(spec.policy.count_once)
    return values | {f"costs.{each.name}": each.seats for each in counting.costs}


def begins_to_bind(before: pb.PoolSpec, after: pb.PoolSpec) -> bool:
    """Return whether a pool that only counted is not to do so any more."""
    return before.policy.counting.advisory and not after.policy.counting.advisory
