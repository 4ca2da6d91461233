"""What ``seatkeeper run`` says on standard error: each event, for people or for programs."""

from __future__ import annotations

import sys

from seatkeeper.cli import streams
from seatkeeper.cli.exits import name_of
from seatkeeper.cli.render import Json, write_event
from seatkeeper.cli.waiting import Waiting
from seatkeeper.core.amounts import count, span
from seatkeeper.hold import runner
from seatkeeper.hold.runner import Event


class RunReport:
    """Says on standard error what happens to the seat and to the command."""

    def __init__(self, name: str, pool: str, *, as_json: bool) -> None:
        self._name = name
        self._pool = pool
        self._pools: list[str] = []
        """Those whose seats are held."""
        self._as_json = as_json
        self._waiting = Waiting(pool, notify=write_event if as_json else None)

    def write(self, event: Event) -> None:
        """Say one event, for people or for programs."""
        match event:
            case runner.Queued(place=place):
                self._waiting.queued(place)
                return
            case runner.WaitEnded():
                self._waiting.done()
                return
        value, text = self._said(event)
        if self._as_json:
            write_event(value)
        elif text:
            print(f"seatkeeper: {text}", file=sys.stderr, flush=True)
        if isinstance(event, runner.Granted):
            self._pools.append(event.pool)
            self._pool = " and ".join(self._pools)
            # What was said of the queue is to be seen before what the command says.
            streams.drain()

    def _said(self, event: Event) -> tuple[Json, str]:
        """Return the event as JSON, and in words; empty: people need not know."""
        name, pool = self._name, self._pool
        match event:
            case runner.Granted():
                return _granted(event, name)
            case runner.TokenFileFailed(reason=reason):
                return (
                    {"event": "no_token_file", "error": reason},
                    f"the file for the token cannot be written ({reason}): {name} has only the "
                    "first token, in SEATKEEPER_TOKEN",
                )
            case runner.Noticed(notice=notice):
                return {"event": "notice", "notice": notice}, notice
            case runner.InJeopardy():
                return (
                    {"event": "jeopardy"},
                    "the seat is in doubt: no node has answered for a while. "
                    f"{name} goes on, and will be stopped if that lasts",
                )
            case runner.IsCalledBack(pool=pool, seconds=seconds, why=why, signal=number):
                sent = name_of(number) if number else None
                notified = (
                    f"; {name} was sent {sent}" if sent else f"; {name} was sent no signal"
                )
                said = {"event": "called_back", "pool": pool, "reason": why, "signal": sent}
                return (
                    said | {"seconds": round(seconds, 3)},
                    f"the seat of {pool} is called back ({why}): {name} goes on, and is stopped in "
                    f"{span(seconds)}{notified}",
                )
            case runner.SafeAgain():
                return {"event": "safe"}, "the seat is safe again"
            case runner.SeatIsLost(grace=grace, why=why, pool=lost):
                pool = lost or pool
                because = f" ({why})" if why else ""
                return (
                    {"event": "lost", "pool": pool, "reason": why or None},
                    f"the seat of {pool} is lost{because}: stopping {name} (SIGTERM, and SIGKILL "
                    f"after {span(grace)})",
                )
            case runner.GivenBack(number=number):
                signal_name = name_of(number)
                return (
                    {"event": "given_back", "pool": pool, "signal": signal_name},
                    f"{name} ended after {signal_name}; the seat of {pool} is given back",
                )
        return self._said_of_the_end(event)

    def _said_of_the_end(self, event: Event) -> tuple[Json, str]:
        name = self._name
        match event:
            case runner.NotStopped(processes=left):
                return (
                    {"event": "not_stopped", "processes": left},
                    f"{left} of the processes of {name} could not be stopped (another user's, or "
                    "stuck in a device) and may go on without a seat",
                )
            case runner.EndedWithIt(processes=ended):
                return (
                    {"event": "ended_with_it", "processes": ended},
                    f"{name} has ended and left {count(ended, 'background job')}, "
                    "ended with it (--contain)",
                )
            case runner.WatchdogKilled():
                return (
                    {"event": "guard_killed"},  # what users read, from before the word changed
                    f"the watchdog of {name} was killed, so {name} was stopped",
                )
            case runner.LeftBehind(processes=left):
                return (
                    {"event": "left_behind", "processes": left},
                    f"{name} has ended and left {count(left, 'background job')} running "
                    "without the seat",
                )
            case runner.CommandEnded(code=code):
                return {"event": "ended", "exit_code": as_shells_say(code)}, ""
        raise AssertionError(event)


def _granted(event: runner.Granted, name: str) -> tuple[Json, str]:
    said = {key: value for key, value in vars(event).items() if value is not None}
    longest, text = said.pop("longest_hold", None), ""
    if longest is not None:
        said["longest_hold_seconds"] = longest
        text = (
            f"the seat of {event.pool} may be held for {span(longest)}: then it is called back, and "
            f"{name} is stopped"
        )
    return {"event": "granted"} | said, text


def as_shells_say(code: int) -> int:
    """Return an exit code, or 128+n for signal n."""
    return code if code >= 0 else 128 - code
