"""The store: an interface and two implementations that pass one contract suite."""

from seatkeeper.server.store.errors import (
    DefiniteFailure,
    LeaseExists,
    LeaseNotFound,
    OutcomeUnknown,
    StoreError,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
    WatchEnded,
)
from seatkeeper.server.store.interface import (
    OPERATIONS_MAX,
    Change,
    Committed,
    Delete,
    Entry,
    Listing,
    Put,
    Store,
    StoreStatus,
    Unchanged,
    WatchBatch,
    Write,
)
from seatkeeper.server.store.memory import MemoryStore

__all__ = [
    "OPERATIONS_MAX",
    "Change",
    "Committed",
    "DefiniteFailure",
    "Delete",
    "Entry",
    "LeaseExists",
    "LeaseNotFound",
    "Listing",
    "MemoryStore",
    "OutcomeUnknown",
    "Put",
    "Store",
    "StoreError",
    "StoreFull",
    "StoreRefused",
    "StoreStatus",
    "StoreUnavailable",
    "Unchanged",
    "WatchBatch",
    "WatchEnded",
    "Write",
]
