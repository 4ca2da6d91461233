"""Who calls, and what they may do.

Three questions, in this order, for every call of every service of a node:

1. ``Principal``: who calls? Names come from the client's certificate, nothing else is believed.
2. ``RIGHTS``: what does this call need? One table of all calls; a call that is not in it is refused.
3. ``Authorizer``: does this principal have that? By the settings ``administrators`` and ``agents``.

``Gate`` asks them as an interceptor of the gRPC server, before a request is read, so no service can
forget to.
"""

from seatkeeper.server.identity.audit import administrative_act
from seatkeeper.server.identity.authorizer import Authorizer, Refused
from seatkeeper.server.identity.gate import Gate
from seatkeeper.server.identity.names import ANONYMOUS, Name, parse_names
from seatkeeper.server.identity.principal import Principal, principal_of
from seatkeeper.server.identity.rights import RIGHTS, Right

__all__ = [
    "ANONYMOUS",
    "RIGHTS",
    "Authorizer",
    "Gate",
    "Name",
    "Principal",
    "Refused",
    "Right",
    "administrative_act",
    "parse_names",
    "principal_of",
]
