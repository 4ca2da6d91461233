"""``pools.yaml``: reading it, writing it, and what applying it would change. Pure.

- ``definition``: what may be in it. The reader, the JSON Schema and the reference come from it.
- ``tree``: YAML as a tree that knows its lines, without the features that pools have no use for.
- ``reader``: from text to pools, with every fault at its line and column.
- ``writer``: from pools to text that reads as the same pools.
- ``plan``: what the file would change of the pools that there are.
- ``schema``: the JSON Schema for editors.
"""

from seatkeeper.client.pools_file.plan import Change, Kind, Plan, plan
from seatkeeper.client.pools_file.reader import PoolsFile, read_pools
from seatkeeper.client.pools_file.tree import FILE_BYTES_MAX, Fault
from seatkeeper.client.pools_file.writer import write_pools

__all__ = [
    "FILE_BYTES_MAX",
    "Change",
    "Fault",
    "Kind",
    "Plan",
    "PoolsFile",
    "plan",
    "read_pools",
    "write_pools",
]
