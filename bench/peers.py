"""Compare with what is often used in the place of a seat service: the same work, in one run.

``--clients`` clients, each with a connection and a session of its own, take one lock in turns, and then
one of four seats, without anything to do while they have it and with 5 ms of it. One more client does
it alone. Redis (``appendfsync always``; redis-py's lock, and a semaphore in Lua), ZooKeeper (kazoo's
recipes), PostgreSQL (``synchronous_commit`` on; an advisory lock, and rows taken with ``FOR UPDATE SKIP
LOCKED``), etcd (the recipe of its Go client, ``bench.lock_recipe``) and Seatkeeper, each one server
with its log on the same disk. They do *not* promise the same: README has a table of that.

- ``<peer>_lock_cycles_per_s``, ``<peer>_seats_cycles_per_s``: turns a second, without work.
- ``<peer>_lock_handoff_p50_ms``, ``_p99_ms``, and ``<peer>_seats_…``: from a return to the next turn,
  with work. Where waiting clients poll (Redis, rows), the next turn is mostly the same client's again:
- ``<peer>_lock_least_share``: turns of the client that had fewest, over an even share. 1 is even, 0:
  one of them had none. ``_wait_p99_ms``: how long a client waited for its turn.
- ``<peer>_alone_acquire_p50_ms``, ``_p99_ms``: one client that no other is in the way of.
- ``<peer>_lock_cycles_over_seatkeeper``, ``_handoff_p50_``, ``<peer>_alone_acquire_p50_``: the peer's
  figure over ours, within a round.
- ``…_held_max``: how many held at once, as the clients see it.

Rounds of all are interleaved; each figure is the median of its rounds. What cannot be had here is in
``skipped``, with the reason; `make peers` fetches it.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter

from bench.peer_clients import PEERS, Client
from bench.peer_programs import UnavailableError
from bench.peer_rounds import OURS, Case, Round, figures
from bench.report import notify, parser, progress, run
from bench.service import running_service

HOLD_SECONDS = 0.005
WARM_UP = 0.3
"""Of a round's length: connections and caches come up outside the measurement."""


async def main() -> None:
    """Measure, and print the result."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=5, help="of each kind")
    options.add_argument("--seconds", type=float, default=1.0, help="length of a round")
    options.add_argument("--clients", type=int, default=16, help="that take turns; at least 2")
    options.add_argument("--peers", nargs="+", choices=sorted(PEERS), default=list(PEERS))
    arguments = options.parse_args()
    if arguments.clients < 2:
        options.error("--clients: two at least, or none waits for another")
    found: dict[tuple[str, Case], list[Round]] = {}
    async with AsyncExitStack() as stack:
        names = [OURS, *(name for name in arguments.peers if name != OURS)]
        clients, skipped = await connect(stack, names, arguments.clients)
        for number in range(arguments.rounds):
            for name, connected in clients.items():
                for case in cases(PEERS[name][1], arguments.clients):
                    if not number:
                        await take_turns(connected, case, arguments.seconds * WARM_UP)
                    shown = await take_turns(connected, case, arguments.seconds)
                    found.setdefault((name, case), []).append(shown)
                progress(f"round {number + 1} of {arguments.rounds}: {name}")
    notify({"clients": arguments.clients, **figures(found), "skipped": skipped}, arguments.json)


async def connect(
    stack: AsyncExitStack, names: Sequence[str], count: int
) -> tuple[dict[str, Sequence[Client]], dict[str, str]]:
    """Start the servers and connect; return the clients, and why a peer has none."""
    clients: dict[str, Sequence[Client]] = {}
    skipped: dict[str, str] = {}
    service = await stack.enter_async_context(running_service())
    around = stack.enter_context(tempfile.TemporaryDirectory(prefix="seatkeeper-peers-"))
    for name in names:
        folder = Path(around) / name
        folder.mkdir()
        try:
            opened = PEERS[name][0](service, folder, count)
            clients[name] = await stack.enter_async_context(opened)
        except UnavailableError as error:
            skipped[name] = str(error)
            progress(f"skipped: {name}: {error}")
    return clients, skipped


def cases(pools: Sequence[str], clients: int) -> list[Case]:
    """Return the work that a peer with these pools is measured at."""
    alone = [Case("alone", "lock", 1, 0.0)]
    return alone + [
        Case(pool, pool, clients, hold) for pool in pools for hold in (0.0, HOLD_SECONDS)
    ]


async def take_turns(clients: Sequence[Client], case: Case, seconds: float) -> Round:
    """Have the clients of a case take turns for a while."""
    ends = perf_counter() + seconds
    shown = Round(case.clients, ends, seconds)
    await asyncio.gather(
        *(
            client.turns(shown, number, case.pool, ends, case.hold_seconds)
            for number, client in enumerate(clients[: case.clients])
        )
    )
    return shown


if __name__ == "__main__":
    run(main)
