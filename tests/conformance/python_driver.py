"""Drives the Python client library for the contract suite. See README.md, "Drivers"."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from datetime import timedelta
from typing import Any

from seatkeeper.client.aio import AsyncSeatClient
from seatkeeper.client.config.values import ClientConfig
from seatkeeper.client.session.grants import AsyncGrant
from seatkeeper.client.session.holding import HoldingState
from seatkeeper.core import errors

_STATES = {
    HoldingState.SAFE: "safe",
    HoldingState.JEOPARDY: "doubt",
    HoldingState.LOST: "lost",
}
_REASONS = {
    errors.PoolNotFound: "POOL_NOT_FOUND",
    errors.TooManySeats: "TOO_MANY_SEATS",
    errors.NoSeatFree: "NO_SEAT_FREE",
    errors.Overloaded: "OVERLOADED",
    errors.InvalidArgument: "INVALID_ARGUMENT",
    errors.SeatLost: "FINISHED",
    errors.NotYours: "NOT_YOURS",
    errors.SessionLost: "SESSION_LOST",
}


def notify(event: str, **fields: object) -> None:
    """Write one event."""
    print(json.dumps({"event": event, **fields}), flush=True)


class Driver:
    """Follows its commands, one line at a time."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Begin. ``settings``: of ``ClientConfig``."""
        self._settings = settings
        self._client: AsyncSeatClient | None = None
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._grants: dict[str, AsyncGrant] = {}

    @property
    def client(self) -> AsyncSeatClient:
        assert self._client is not None, "`start` comes first"
        return self._client

    async def do(self, order: dict[str, Any]) -> None:
        """Do one thing."""
        match order.pop("do"):
            case "start":
                self._start(**order)
            case "acquire":
                task = asyncio.create_task(self._acquire(**order))
                self._asking[order["id"]] = task
            case "cancel":
                self._asking[order["id"]].cancel()
            case "release":
                await self._grants[order["id"]].release()
                notify("released", id=order["id"])
            case "state":
                notify("state", id=order["id"], state=_STATES[self._grants[order["id"]].state])
            case "close":
                await self.client.close()
                notify("closed")

    def _start(
        self, nodes: list[str], holder: str = "conformance", project: str = "", ttl: float = 30
    ) -> None:
        config = ClientConfig(ttl=timedelta(seconds=ttl), **self._settings)
        self._client = AsyncSeatClient(nodes, holder=holder, project=project, config=config)
        notify("ready")

    async def _acquire(
        self,
        id: str,  # noqa: A002 # the word of the driver protocol
        pool: str,
        seats: int = 1,
        priority: int = 0,
        project: str = "",
        wait: float | None = None,
    ) -> None:
        def on_state(state: HoldingState) -> None:
            notify(_STATES[state], id=id)

        try:
            grant = await self.client.acquire(
                pool,
                seats=seats,
                priority=priority,
                project=project,
                wait=wait,
                token=True,
                on_queued=lambda place: notify("queued", id=id, position=place.position),
                on_state=on_state,
            )
        except asyncio.CancelledError:
            notify("cancelled", id=id)
        except errors.SeatError as error:
            reason = _REASONS.get(type(error))
            after = getattr(error, "retry_after", None)
            more = {} if after is None else {"retry_after": after.total_seconds()}
            if reason is None:
                notify("failed", id=id, message=str(error), retryable=error.retryable, **more)
            else:
                name = f"DENIAL_REASON_{reason}"
                notify("denied", id=id, reason=name, message=str(error), **more)
        else:
            self._grants[id] = grant
            notify(
                "granted",
                id=id,
                pool=grant.pool,
                seats=grant.seats,
                fence=grant.fence,
                token=grant.token,
            )


async def drive(settings: dict[str, Any]) -> None:
    """Read lines until the end of the input."""
    driver = Driver(settings)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    doing: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        task = asyncio.create_task(driver.do(json.loads(line)))
        doing.add(task)
        task.add_done_callback(doing.discard)
    if driver._client is not None:
        await driver.client.close()


def main() -> None:
    """Drive the client with its defaults, or with the settings named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--setting", action="append", default=[], metavar="NAME=VALUE")
    chosen = parser.parse_args().setting
    asyncio.run(drive(dict(each.split("=", 1) for each in chosen)))


if __name__ == "__main__":
    main()
