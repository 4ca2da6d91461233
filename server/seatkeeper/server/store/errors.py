"""What can go wrong with a store, sorted by what is known afterwards.

StoreError
├── DefiniteFailure       nothing was changed
│   ├── StoreUnavailable  (retryable) no member answered, or it refused for load
│   │   └── StoreForeign  (retryable) it is not the etcd that this service lives in
│   ├── LeaseNotFound     the lease has ended: its keys are gone
│   ├── LeaseExists       there is a lease of this id already
│   └── StoreFull         the store takes no more data until an operator frees space; deletes work
├── OutcomeUnknown        (retryable) no answer: the change may have happened, or may happen yet
├── WatchEnded            (retryable) the watch is over: list again, then watch from there
│   └── HistoryCompacted  because the store has thrown away the revisions that it was to begin with
└── StoreRefused          wrong credentials, or a malformed request; retrying will not help
"""

from __future__ import annotations


class StoreError(Exception):
    """Base of every error that a store raises."""

    retryable = False
    """True: the same call may succeed later."""


class DefiniteFailure(StoreError):
    """Nothing was changed."""


class StoreUnavailable(DefiniteFailure):
    """No member of the store answered before the deadline, or it refused for load."""

    retryable = True


class StoreForeign(StoreUnavailable):
    """What answers is not the store that this service lives in: another one, a wiped, a restored one.

    The message says what is wrong, and what its operator can do.
    """


class LeaseNotFound(DefiniteFailure):
    """The lease has ended, and its keys are gone."""


class LeaseExists(DefiniteFailure):
    """There is a lease of this id already."""


class StoreFull(DefiniteFailure):
    """The store takes no more data until an operator frees space.

    A commit that only deletes still works, and so does ending a lease. One put beside the deletes
    is enough to be refused.
    """


class OutcomeUnknown(StoreError):
    """The answer is missing: the change may have happened, or may happen yet."""

    retryable = True


class WatchEnded(StoreError):
    """The watch is over: list again, then watch from the listing's revision + 1."""

    retryable = True


class HistoryCompacted(WatchEnded):
    """The store has thrown away revisions that were to be watched."""


class StoreRefused(StoreError):
    """Wrong credentials, or a request that the store calls malformed."""
