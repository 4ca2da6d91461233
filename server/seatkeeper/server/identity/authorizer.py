"""Whether a caller may make a call.

========================================  =========================================================
the node                                  who has the right
========================================  =========================================================
asks for clients' certificates            whose certificate has a name of the setting
asks for none (TLS, or plain text)        who calls from this machine, or anybody where the setting is
                                          ``anonymous``
========================================  =========================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from seatkeeper.server.identity.names import ANONYMOUS, Name
from seatkeeper.server.identity.principal import SHOWN_MAX, Principal
from seatkeeper.server.identity.rights import RIGHTS, Right

_MEANING = {
    Right.ADMINISTRATOR: "change pools and drain nodes",
    Right.AGENT: "register agents, claim grants and publish engines",
}


class Refused(Exception):
    """The caller may not do this. The message says what it showed, and which setting decides."""

    def __init__(self, message: str, setting: str) -> None:
        super().__init__(message)
        self.setting = setting
        """The setting that decides; empty: none does."""


class Authorizer:
    """Decides by the settings ``administrators`` and ``agents``, which may change while it is used."""

    def __init__(
        self,
        administrators: frozenset[Name],
        agents: frozenset[Name],
        *,
        asks_for_certificates: bool,
    ) -> None:
        """``asks_for_certificates``: clients cannot connect without a certificate of our CA."""
        self.asks_for_certificates = asks_for_certificates
        self._named = {Right.ADMINISTRATOR: administrators, Right.AGENT: agents}

    def replace(self, administrators: frozenset[Name], agents: frozenset[Name]) -> None:
        """Use other names from now on, also for connections that are open."""
        self._named = {Right.ADMINISTRATOR: administrators, Right.AGENT: agents}

    def count(self, right: Right) -> int:
        """Return how many names have a right."""
        return len(self._named[right])

    def digest(self) -> bytes:
        """Return both settings in short: equal where they are."""
        said = "\n".join(
            " ".join((right.value, *sorted(map(str, named))))
            for right, named in self._named.items()
        )
        return hashlib.sha256(said.encode()).digest()[:8]

    @property
    def is_open_to_anybody(self) -> bool:
        """Whether callers without a certificate may administer, from anywhere."""
        return not self.asks_for_certificates and ANONYMOUS in self._named[Right.ADMINISTRATOR]

    def warnings(self) -> Iterator[tuple[str, str]]:
        """Yield each setting that gives a right to no client, or to every client; and the effect."""
        for right, named in self._named.items():
            what = _MEANING[right]
            if self.asks_for_certificates:
                if not named:
                    yield right.value, f"no client may {what}: it is empty"
            elif ANONYMOUS in named:
                yield right.value, f"anybody who reaches this node may {what}"
            else:
                yield right.value, f"anybody on this machine may {what}, without a certificate"

    def needs_asking(self, method: str) -> bool:
        """Return whether ``allow`` has to be asked for this call at all."""
        return RIGHTS.get(method) not in {Right.NONE, Right.NODE}

    def allow(self, principal: Principal, method: str) -> None:
        """Return if the caller may make this call; raise ``Refused`` if not.

        ``method`` is the call's full name; one that is not in the table is refused.
        """
        right = RIGHTS.get(method)
        if right in {Right.NONE, Right.NODE}:
            return
        call = method.rpartition("/")[2]
        if right is None:
            raise Refused(f"{call} is in no table of rights of this node, so it is refused", "")
        named, setting = self._named[right], right.value
        if self.asks_for_certificates:
            if named.isdisjoint(principal.names):
                shown = _shown(principal)
                raise Refused(
                    f"{call} needs a name in the setting `{setting}` of the nodes; {shown}",
                    setting,
                )
        elif not principal.is_local and ANONYMOUS not in named:
            raise Refused(
                f"{call} needs a certificate, and this node asks for none: call from its own "
                f"machine, set `tls_client_ca_file` and `{setting}`, or, where anybody who "
                f"reaches it may, `{setting} = anonymous`",
                setting,
            )


def _shown(principal: Principal) -> str:
    if not principal.names:
        return (
            "your certificate has no subject alternative name of the types dns, uri, email and ip "
            "(its CN does not count)"
        )
    more = len(principal.names) - SHOWN_MAX
    names = ", ".join(map(str, principal.names[:SHOWN_MAX]))
    return f"your certificate says {names}" + (f" and {more} more" if more > 0 else "")
