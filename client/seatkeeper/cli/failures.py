"""What an error means to the user of a command: an exit code, and what to do next."""

from __future__ import annotations

import errno

from seatkeeper.artifacts import errors as builder
from seatkeeper.cli.exits import Exit
from seatkeeper.core import errors

_START_A_NODE = (
    "start one (`seatkeeper dev` starts a cluster to try), or say where they are with --nodes"
)
_ASK_THE_DOCTOR = "`seatkeeper doctor` says what is wrong"
_ASK_AGAIN = "wait longer with --wait, or see who holds them with `seatkeeper status`"

_NODES_ARE_THERE = ("the store", "Deadline Exceeded")
_SAID = ("--tls-", "not gRPC", "certificate")
"""In the words of an error: what to do is said already."""
"""In the words of an error: a node has answered, or has accepted the call and not answered it."""

_SYSTEM_REFUSES = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC, errno.EDQUOT}
)
"""Limits of the machine or the user (`ulimit`): no bug of ours."""

# The first row whose class fits decides: leaves before the branches that they are on.
_MEANINGS: tuple[tuple[type[errors.SeatError], Exit, str], ...] = (
    (errors.PoolDrained, Exit.NO_SEAT, "wait with --wait until it is opened"),
    (errors.NoSeatFree, Exit.NO_SEAT, _ASK_AGAIN),
    (errors.SeatLost, Exit.SEAT_LOST, "start it again to get another seat"),
    (errors.RequestRemoved, Exit.FAILED, ""),
    (errors.WorkEnded, Exit.FAILED, "ask again: the work was to be done by another holder"),
    (errors.SessionLost, Exit.SEAT_LOST, "start it again to get another seat"),
    (errors.Overloaded, Exit.UNAVAILABLE, "try again later"),
    (errors.ServiceUnavailable, Exit.UNAVAILABLE, _START_A_NODE),
    (errors.PoolNotFound, Exit.NOT_FOUND, "`seatkeeper pool list` shows what there is"),
    (errors.RequestNotFound, Exit.NOT_FOUND, ""),
    (errors.EngineNotFound, Exit.NOT_FOUND, "`seatkeeper engines list` shows what there is"),
    (errors.TooManySeats, Exit.USAGE, ""),
    (errors.NotAllowed, Exit.FAILED, ""),
    (errors.NotTakenOver, Exit.FAILED, ""),
    (errors.BorrowRefused, Exit.NO_SEAT, ""),
    (errors.TooManyTickets, Exit.NO_SEAT, ""),
    (errors.AlreadyExists, Exit.USAGE, ""),
    (errors.InUse, Exit.FAILED, ""),
    (errors.Changed, Exit.FAILED, ""),
    (errors.NotYours, Exit.FAILED, ""),
    (errors.UsageError, Exit.USAGE, ""),
    (errors.TokenInvalid, Exit.REFUSED, ""),
    (errors.AgentUnavailable, Exit.UNAVAILABLE, "`seatkeeper status` shows the live agents"),
    (errors.AgentFull, Exit.UNAVAILABLE, "try again later"),
    (errors.EngineNotStored, Exit.UNAVAILABLE, ""),
    (errors.DeadlineUnreachable, Exit.FAILED, "give a later --deadline, or ask for less"),
    (errors.ModelRejected, Exit.REFUSED, ""),
    (errors.EngineDamaged, Exit.REFUSED, ""),
    (errors.SeatError, Exit.FAILED, ""),
)


def explain(error: Exception) -> tuple[Exit, str] | None:
    """Return how the command ends because of ``error``; None: it is a bug of ours."""
    if isinstance(error, errors.SeatError):
        code, advice = next((c, a) for kind, c, a in _MEANINGS if isinstance(error, kind))
        if advice == _START_A_NODE and any(sign in str(error) for sign in _NODES_ARE_THERE):
            advice = _ASK_THE_DOCTOR
        if advice == _START_A_NODE and any(sign in str(error) for sign in _SAID):
            advice = ""
        return code, _sentence(str(error), advice)
    if isinstance(error, builder.BuildError):
        code = Exit.FAILED
        if isinstance(error, builder.PlanError):
            code = Exit.USAGE
        elif isinstance(error, builder.StoreUnavailable | builder.StoreFull):
            code = Exit.UNAVAILABLE
        elif isinstance(error, builder.StoreError | builder.RunnerUnavailable):
            code = Exit.CONFIG
        elif isinstance(error, builder.EngineNotFound):
            code = Exit.NOT_FOUND
        elif isinstance(error, builder.ModelError | builder.EngineError):
            code = Exit.REFUSED
        return code, error.explain().rstrip(".")
    if isinstance(error, OSError) and error.filename is not None:
        missing = isinstance(error, FileNotFoundError)
        code = Exit.NOT_FOUND if missing else Exit.FAILED
        return code, f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.errno in _SYSTEM_REFUSES:
        return Exit.FAILED, f"the system refuses: {error.strerror}"
    return None


def _sentence(message: str, advice: str) -> str:
    """Join them, unless the service has said what to do already."""
    message = " ".join(message.split()).rstrip(".")
    command = advice.partition("`seatkeeper ")[2].partition("`")[0]
    said = not advice or (command and command in message)
    return message if said else f"{message}; {advice}"
