"""The store on etcd's public v3 API, over grpcio and nothing else.

No etcd library for asyncio has TLS, several members, revisions in its answers and watches that
notice their own end, so this is ours. The layers, each on those below it:

    store      EtcdStore: the interface
    kv  lease  watch   what is asked, and what the answers mean
    keepalive          one stream for all leases
    caller             one call: deadline, failover, what an error proves
    auth  failures     the token; did the request run?
    endpoints  endpoint  calls   members, channels, method names
"""

from seatkeeper.server.store.etcd.config import EtcdConfig
from seatkeeper.server.store.etcd.store import EtcdStore
from seatkeeper.server.store.etcd.versions import version_warnings

__all__ = ["EtcdConfig", "EtcdStore", "version_warnings"]
