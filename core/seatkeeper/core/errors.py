"""What can go wrong, and what to do next.

::

    SeatError
    ├── NoSeatFree           every seat is held; `retry_after` says when to ask again (retryable)
    │   └── PoolDrained          an administrator has drained the pool, and says why (retryable)
    ├── SeatLost             a grant ended while it was held: stop using the licence
    ├── RequestRemoved       an administrator took the waiting request out of the queue
    ├── WorkEnded            another holder has done the work, or failed; `failure` says which
    ├── SessionLost          the session ended, and all it held with it; a new one is opened (retryable)
    ├── ServiceUnavailable   no node answered before the deadline (retryable)
    │   ├── Overloaded       the queue or the node is full; come back at `retry_after` (retryable)
    │   └── HelperLost       the process that keeps the session ended or is silent (retryable)
    ├── UsageError           the caller's mistake; repeating the call will not help
    │   ├── InvalidArgument      a field is malformed; `field` names it
    │   ├── PoolNotFound         no pool of that name exists
    │   ├── RequestNotFound      no request of that id waits, or holds seats
    │   ├── EngineNotFound       no engine of that key is published
    │   ├── TooManySeats         more seats than the pool has
    │   ├── NotAllowed           the pool's rules do not let this holder, or project, in
    │   ├── TooManyTickets       the holder, or the project, has as many requests waiting as each may
    │   ├── UnknownCostClass     the pool's costs do not list the class that a request names
    │   ├── GrantedElsewhere     another of the alternatives that were asked for was granted
    │   ├── NotTakenOver         there is no such grant to take over, or it stays where it is
    │   ├── BorrowRefused        the pool does not let the seats be borrowed; the message names the rule
    │   ├── AlreadyExists        something of that name exists
    │   ├── InUse                it has holders or waiters, or another agent has claimed it
    │   ├── Changed              it changed since you read it: read again, then decide
    │   │   └── PoolsChanged         some of the pools did; `pools` names them, and none was changed
    │   ├── ServiceTooOld        the node that answered does not know what was asked for: upgrade it
    │   ├── NotYours             it belongs to another session, or you may not do this
    │   ├── ClientClosed         the client was closed, or came through a fork
    │   ├── ForkedProcess        gRPC cannot run in this forked process: use the helper
    │   └── OtherLoop            the client belongs to another event loop
    ├── TokenInvalid         do not work under this token
    │   ├── TokenMalformed       not a token of this service, or a claim is missing
    │   ├── TokenForged          the signature does not match, or the algorithm is not ours
    │   ├── TokenExpired         its time is over
    │   ├── TokenForOtherPool    it proves a seat of another pool
    │   ├── TokenForOtherMachine it is of a borrowed seat, and bound to the key of another machine
    │   ├── ClockSetBack         the clock of this machine is behind what it showed before
    │   └── TokenKeyUnknown      signed by a key that is not in the key set: fetch the set again
    └── BuildFailed          nothing was published
        ├── AgentUnavailable     no agent that can build this answered (retryable)
        ├── AgentFull            the agents' builds, memory or disk are all in use (retryable)
        ├── EngineNotStored      the engine is built, and the agents' store has not got it (retryable)
        ├── DeadlineUnreachable  the engine cannot be, or was not, there by the deadline
        ├── ModelRejected        the model or the options cannot be built
        ├── BuildTimedOut        the build took longer than the agent allows
        ├── CompilerCrashed      the compiler died; `stderr_tail` is the end of its output
        └── EngineDamaged        the engine or its manifest is not what was published
"""

from __future__ import annotations

from datetime import timedelta


class SeatError(Exception):
    """The base of every error of this library. Its message says what to do next."""

    _retryable = False

    def __init__(self, message: str = "") -> None:
        # The sentence is written once: a class without a message of its own says its docstring,
        # as messages are written, since they are put behind other words.
        sentence = (type(self).__doc__ or "").partition("\n")[0].rstrip(".")
        super().__init__(message or f"{sentence[:1].lower()}{sentence[1:]}")

    @property
    def retryable(self) -> bool:
        """Whether the same call, made later, may succeed."""
        return self._retryable


class _Later(SeatError):
    """An error that may know when to come back."""

    _retryable = True

    def __init__(self, message: str = "", *, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """When to try again, counted from now; None when the service did not say."""


class NoSeatFree(_Later):
    """Every seat is held, and none became free in time."""


class PoolDrained(NoSeatFree):
    """An administrator has drained the pool: nothing is granted from it until it is opened."""


class SeatLost(SeatError):
    """A grant ended while it was held: stop using the licence."""

    def __init__(self, message: str = "", *, grant_id: str = "") -> None:
        super().__init__(message)
        self.grant_id = grant_id
        """The grant that ended; empty when the service did not say."""


class RequestRemoved(SeatError):
    """An administrator took the waiting request out of the queue."""


class WorkEnded(SeatError):
    """Another holder of the same work has done it, or has failed in a way that would come again."""

    def __init__(self, message: str = "", *, failure: str = "", why: str = "") -> None:
        super().__init__(message)
        self.failure = failure
        """The name of the error, such as `ModelRejected`; empty: the work is done."""
        self.why = why
        """What the holder said of it."""


class SessionLost(SeatError):
    """The session ended, and everything it held with it. The client opens a new one by itself."""

    _retryable = True


class ServiceUnavailable(_Later):
    """No node answered before the deadline."""


class Overloaded(ServiceUnavailable):
    """The queue or the node is full."""


class HelperLost(ServiceUnavailable):
    """The helper process that keeps the session could not start, ended, or does not answer."""


class UsageError(SeatError):
    """The caller's mistake; repeating the call will not help."""


class InvalidArgument(UsageError):
    """A field is malformed."""

    def __init__(self, message: str = "", *, field: str = "") -> None:
        super().__init__(message)
        self.field = field
        """The malformed field or setting; empty when the service did not say."""


class PoolNotFound(UsageError):
    """No pool of that name exists."""


class RequestNotFound(UsageError):
    """No request of that id waits for the pool, or holds its seats."""


class EngineNotFound(UsageError):
    """No engine of that key is published."""


class TooManySeats(UsageError):
    """More seats were asked for than the pool has; waiting would never help."""


class NotAllowed(UsageError):
    """The pool's rules do not let this holder, or this project, in."""


class TooManyTickets(UsageError):
    """As many requests wait as the pool's rules let each have: ask when one of them is served."""


class UnknownCostClass(UsageError):
    """The pool's costs do not list the class that the request names."""


class GrantedElsewhere(UsageError):
    """Another of the alternatives that were asked for was granted: this request has left its queue."""


class NotTakenOver(UsageError):
    """The holder has no such grant in another session, or it has to stay there; it says why."""


class BorrowRefused(UsageError):
    """The pool does not let the seats be borrowed; the message begins with the name of the rule."""


class AlreadyExists(UsageError):
    """Something of that name exists."""


class InUse(UsageError):
    """It has holders or waiters, or another agent has claimed it."""


class Changed(UsageError):
    """It changed since you read it: read again, then decide."""


class PoolsChanged(Changed):
    """Pools changed since you read them, and nothing was applied: read them again, then decide."""

    def __init__(self, message: str = "", *, pools: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.pools = pools
        """Their names, or the first of them; empty when the service did not say."""


class ServiceTooOld(UsageError):
    """The node that answered is of a version that does not know what was asked for."""


class NotYours(UsageError):
    """It belongs to another session, or you may not do this."""


class ClientClosed(UsageError):
    """The client was closed, or came through a fork: make a new one in this process."""


class ForkedProcess(UsageError):
    """A process that was forked from one that ran gRPC cannot run it: use the helper."""


class OtherLoop(UsageError):
    """The client belongs to the event loop that it was first used in: make one for each loop."""


class TokenInvalid(SeatError):
    """The token proves nothing: do not work under it."""


class TokenMalformed(TokenInvalid):
    """Not a token of this service, or a claim is missing."""


class TokenForged(TokenInvalid):
    """The signature does not match, or the algorithm is not ours."""


class TokenExpired(TokenInvalid):
    """The token's time is over."""


class TokenForOtherPool(TokenInvalid):
    """The token proves a seat of another pool."""


class TokenForOtherMachine(TokenInvalid):
    """The token is of a borrowed seat, and bound to the key of a machine that was not proved here."""


class ClockSetBack(TokenInvalid):
    """The clock of this machine is behind what it has shown before: set it right."""


class TokenKeyUnknown(TokenInvalid):
    """Signed by a key that is not in the key set: fetch the set again, then verify again."""


class BuildFailed(SeatError):
    """The build failed, and nothing was published."""


class AgentUnavailable(BuildFailed):
    """No agent that can build this answered."""

    _retryable = True


class AgentFull(BuildFailed):
    """The agents' builds, memory or disk are all in use."""

    _retryable = True


class EngineNotStored(BuildFailed):
    """The engine is built and kept by its agent, and the store that agents share has not got it.

    Nothing is published yet. Sent again, the build publishes it, and compiles nothing.
    """

    _retryable = True


class DeadlineUnreachable(BuildFailed):
    """The engine cannot be, or was not, there by the deadline."""


class ModelRejected(BuildFailed):
    """The model or the options cannot be built."""


class BuildTimedOut(BuildFailed):
    """The build took longer than the agent allows."""


class CompilerCrashed(BuildFailed):
    """The compiler died while it built."""

    def __init__(self, message: str = "", *, stderr_tail: str = "") -> None:
        super().__init__(message)
        self.stderr_tail = stderr_tail
        """The end of its output, at most some 3 kB; empty if the agent sent none."""

    @property
    def last_words(self) -> str:
        """The name of ``stderr_tail`` before version 0.1.0; it stays for a release."""
        return self.stderr_tail


class EngineDamaged(BuildFailed):
    """The engine or its manifest is not what was published: fetch it again, or build it again."""
