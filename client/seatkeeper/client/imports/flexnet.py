"""FlexNet Publisher: licence files and options files.

To translate one more keyword: write what it means as a ``Parsed``, and put it in ``READINGS``.
"""

from __future__ import annotations

import re
from datetime import timedelta

from seatkeeper.client.imports.counted import ALONE, OF_FLEXNET, named_by
from seatkeeper.client.imports.dialect import Dialect, Reading, no_counterpart, not_needed
from seatkeeper.client.imports.fields import (
    KINDS,
    access,
    claim,
    day,
    feature_of,
    group,
    is_about,
    is_claim,
    is_key,
    is_licence,
    is_upgrade,
    losses,
    needs,
    number,
)
from seatkeeper.client.imports.lexer import Grammar
from seatkeeper.client.imports.lingers import linger
from seatkeeper.client.imports.parsed import (
    Access,
    Aside,
    Attributes,
    Claim,
    IdleTime,
    Lending,
    Licence,
    MostOverdraft,
    Package,
    Parsed,
    Unreadable,
)
from seatkeeper.client.imports.statement import Statement
from seatkeeper.core.borrowing import BORROW_MAX

COMPONENTS_MAX = 1_000
_DECIMAL = re.compile(r"[\w.-]+(-[0-9]{5}){2,}(-[0-9]+)?")

ATTRIBUTES: Attributes = {
    "CAPACITY": "what a seat costs by the size of its machine",
    "DUP_GROUP": "",
    "FLOAT_OK": "a seat that moves between machines with its dongle",
    "HOST_BASED": "seats of named hosts",
    "HOSTID": "it is for one machine: a pool does not look where its seats are used",
    "LINGER": "for how long a released seat is kept: give the pool `stay: {linger: ...}`",
    "MINIMUM": "each request takes at least so many seats: ask for them with `--seats`",
    "NAMED_USER": "seats of named users",
    "OVERDRAFT": "",
    "PLATFORMS": "which machines may use it: a pool does not ask for the platform",
    "RESTRICTED": "who may use it",
    "SUITE_DUP_GROUP": "several parts of a suite take a seat each",
    "SUITE_RESERVED": "who has a part of a suite is sure of the rest",
    "SUPERSEDE_SIGN": "older licences that it replaces are counted: leave their lines out",
    "TZ": "the time zones in which it may be used",
    "USER_BASED": "seats of named users",
    "VM_PLATFORMS": "which machines may use it: a pool does not ask for the platform",
    **dict.fromkeys(
        (
            *("AUTH", "CK", "COMPONENTS", "ISSUED", "ISSUER", "NOTICE", "ONE_TS_OK", "OPTIONS"),
            *("SIGN", "SIGN2", "SN", "START", "SUPERSEDE", "TS_OK", "COMPOSITE"),
            *("VENDOR_STRING", "USER_INFO", "VENDOR_INFO", "DIST_INFO", "ASSET_INFO", "SORT"),
            "BORROW",
        ),
        "",
    ),
}
"""What a licence may say beside its count and date."""

BORROW_HOURS = 168
"""For how long seats are borrowed where a licence says only that they may be."""
_LOG = not_needed("nodes log every grant and refusal, and count them as metrics")
_ENTITLEMENT = no_counterpart("activation is between the vendor's software and its server")
_SERVER = not_needed("clients are given the addresses of nodes: --nodes, SEATKEEPER_NODES")


def _licence(statement: Statement) -> Licence:
    feature, vendor, version, expires, count, *rest = needs(
        statement, 5, "a feature, vendor, version, date and count"
    )
    found = _attributes(rest)
    counted = number(count, "count of licences") if count.lower() != "uncounted" else 0
    superseded, (count_once, lost) = found.get("SUPERSEDE"), _count_once(found)
    issued = day(found["ISSUED"]) if found.get("ISSUED") else None
    starts = day(found["START"]) if found.get("START") else None
    order = found.get("SORT", "")
    return Licence(
        feature=feature,
        vendor=vendor,
        version=version,
        seats=counted or None,
        expires=day(expires),
        starts=starts,
        issued=issued or starts,
        supersedes=() if superseded is None else tuple(superseded.split()) or (feature,),
        is_first_only=statement.keyword == "FEATURE",
        order=int(order) if order.isascii() and order.isdigit() and len(order) < 10 else 100,
        signature=found.get("SIGN", ""),
        contract=found.get("SN", ""),
        overdraft=number(found["OVERDRAFT"], "overdraft") if found.get("OVERDRAFT") else 0,
        losses=(*losses(found, ATTRIBUTES), *lost),
        borrow=_borrow(found["BORROW"]) if "BORROW" in found else None,
        count_once=count_once,
    )


def _count_once(found: dict[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what requests have in common that share a licence, and what is lost of that."""
    said = found.get("DUP_GROUP", "").upper()
    if said in ("", "NONE"):
        return (), ()
    if said == "SITE":
        return (), (f"DUP_GROUP=SITE: all requests of a site share one licence, {ALONE} here",)
    return named_by(said, OF_FLEXNET, f"DUP_GROUP={said[:20]}")


def _borrow(hours: str) -> timedelta:
    return _hours(number(hours, "number of hours") if hours else BORROW_HOURS)


def _lending(statement: Statement) -> Lending:
    named, said = needs(statement, 2, "a feature and a number")[:2]
    feature, qualifier = feature_of(named)
    if statement.keyword == "BORROW_LOWWATER":
        return Lending(feature, qualifier, low_water=number(said, "number of seats"))
    hours = number(said, "number of hours")
    return Lending(feature, qualifier, longest=_hours(hours))


def _hours(hours: int) -> timedelta:
    if not hours:
        raise Unreadable(
            "0 hours: seats are borrowed for an hour at least, or leave BORROW out"
        )
    return min(timedelta(hours=min(hours, 10_000)), BORROW_MAX)


def _attributes(words: list[str]) -> dict[str, str]:
    """Return the attributes of a licence, by name in upper case."""
    found: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        found.setdefault(name.upper(), value)
    return found


def _is_attribute(word: str) -> bool:
    return is_key(word) or word.partition("=")[0].upper() in ATTRIBUTES


def _package(statement: Statement) -> Package:
    name, vendor, *rest = needs(statement, 2, "a name and a vendor")
    found = _attributes(rest)
    listed = found.get("COMPONENTS", "").split()
    if not listed:
        raise Unreadable("it has no COMPONENTS")
    if len(listed) > COMPONENTS_MAX:
        raise Unreadable(f"it has more than {COMPONENTS_MAX} components")
    components = []
    for each in listed:
        feature, _, more = each.partition(":")
        version, _, count = more.partition(":")
        components.append((feature, version, number(count, "number") if count else 1))
    suite = "SUITE" in found.get("OPTIONS", "").upper().replace(",", " ").split()
    return Package(name, vendor, tuple(components), suite)


def _upgrade(statement: Statement) -> Parsed:
    needs(statement, 6, "a feature, vendor, two versions, a date and a count")
    return not_needed(
        "it changes the version of licences, not their number, and versions share a pool"
    )


def _claim(statement: Statement) -> Claim:
    return claim(statement, KINDS)


def _group_case(statement: Statement) -> Parsed:
    if "OFF" in (word.upper() for word in statement.rest[:1]):
        return not_needed("in names of holders case counts")
    return no_counterpart(
        "in names of holders case counts", "write members of groups as their users' names are"
    )


def _idle(statement: Statement) -> IdleTime:
    """Return what TIMEOUT or TIMEOUTALL says: a feature but of the latter, and seconds."""
    if statement.keyword == "TIMEOUTALL":
        return IdleTime("", "", number(needs(statement, 1, "seconds")[0], "number of seconds"))
    named, seconds, *_ = needs(statement, 2, "a feature and seconds")
    return IdleTime(*feature_of(named), number(seconds, "number of seconds"))


def _most_overdraft(statement: Statement) -> MostOverdraft:
    named, seats, *_ = needs(statement, 2, "a feature and a number of seats")
    return MostOverdraft(*feature_of(named), number(seats, "number of seats"))


def _access(statement: Statement) -> Access:
    return access(statement, KINDS)


def _borrowers(statement: Statement) -> Access:
    return access(statement, KINDS, is_of_borrowing=True)


READINGS: dict[str, Reading | Aside] = {
    # Licence files.
    **dict.fromkeys(("FEATURE", "INCREMENT"), _licence),
    "PACKAGE": _package,
    "UPGRADE": _upgrade,
    "SERVER": _SERVER,
    "USE_SERVER": _SERVER,
    **dict.fromkeys(
        ("VENDOR", "DAEMON"), not_needed("nodes serve all pools: there are no vendor daemons")
    ),
    # Options files: who is sure of seats, and how many one may have.
    "RESERVE": _claim,
    "MAX": _claim,
    **dict.fromkeys(("GROUP", "HOST_GROUP"), group),
    # Who may ask.
    **dict.fromkeys(("INCLUDE", "INCLUDEALL", "EXCLUDE", "EXCLUDEALL"), _access),
    # For how long.
    **dict.fromkeys(("TIMEOUT", "TIMEOUTALL"), _idle),
    "LINGER": linger,
    # Borrowing, overdraft, activation.
    **dict.fromkeys(("BORROW_LOWWATER", "MAX_BORROW_HOURS"), _lending),
    **dict.fromkeys(("INCLUDE_BORROW", "EXCLUDE_BORROW"), _borrowers),
    "MAX_OVERDRAFT": _most_overdraft,
    **dict.fromkeys(
        (
            *("INCLUDE_ENTITLEMENT", "INCLUDEALL_ENTITLEMENT", "EXCLUDE_ENTITLEMENT"),
            *("EXCLUDEALL_ENTITLEMENT", "ACTIVATION_LOWWATER", "ACTIVATION_EXPIRY_DAYS"),
        ),
        _ENTITLEMENT,
    ),
    # How the server runs.
    **dict.fromkeys(("NOLOG", "DEBUGLOG", "REPORTLOG", "AUTO_ROLLOVER"), _LOG),
    "AUTOMATIC_REREAD": not_needed("`seatkeeper pool apply` changes pools at once"),
    "DAEMON_SELECT_TIMEOUT": not_needed("nodes are notified of changes"),
    "MAX_CONNECTIONS": not_needed(
        "nodes have limits of their own: see `seatkeeper serve --help`"
    ),
    "FQDN_MATCHING": not_needed("seats are not given by the names of hosts"),
    "GROUPCASEINSENSITIVE": _group_case,
}


def _unknown(statement: Statement) -> str:
    if _DECIMAL.fullmatch(statement.words[0].text):
        return "a licence in decimal format? Convert it with `lminstall` first"
    return ""


FLEXNET = Dialect(
    name="flexnet",
    title="FlexNet",
    grammar=Grammar(
        keywords=frozenset(READINGS),
        shapes={
            **dict.fromkeys(("FEATURE", "INCREMENT"), is_licence),
            "UPGRADE": is_upgrade,
            **dict.fromkeys(("RESERVE", "MAX"), is_claim),
            **dict.fromkeys(("INCLUDE", "EXCLUDE"), is_about),
        },
        numbered=frozenset({"MAX", "RESERVE"}),
        listing=frozenset(
            {"FEATURE", "INCREMENT", "PACKAGE", "UPGRADE", "GROUP", "HOST_GROUP"}
        ),
        groups=frozenset({"GROUP", "HOST_GROUP"}),
        names=frozenset({"SERVER", "VENDOR", "DAEMON", "FEATURE", "PACKAGE"}),
        line_max=4_000,
        is_attribute=_is_attribute,
        splitting=frozenset({"FEATURE", "INCREMENT", "UPGRADE", "RESERVE", "MAX"}),
    ),
    readings=READINGS,
    daemons=frozenset({"VENDOR", "DAEMON"}),
    is_name_case_sensitive=True,
    is_lowest_limit_in_force=False,
    all_groups="ALL_GROUPS",
    borrowed="borrowed (BORROW)",
    of_each_version=True,
    unknown=_unknown,
)
