"""Reprise License Manager: licence files and options files.

To translate one more keyword: write what it means as a ``Parsed``, and put it in ``READINGS``.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import PurePath

from seatkeeper.client.imports.counted import ALONE, OF_RLM, named_by
from seatkeeper.client.imports.dialect import Dialect, Reading, no_counterpart, not_needed
from seatkeeper.client.imports.fields import (
    access,
    claim,
    day,
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
from seatkeeper.client.imports.parsed import (
    Access,
    Aside,
    Attributes,
    Became,
    Claim,
    IdleTime,
    Lending,
    Licence,
    Parsed,
    Unreadable,
)
from seatkeeper.client.imports.statement import Statement
from seatkeeper.core.borrowing import BORROW_MAX

KINDS = ("USER", "HOST", "INTERNET", "PROJECT", "GROUP", "HOST_GROUP", "INTERNET_GROUP")
_SHOWN = 40

ATTRIBUTES: Attributes = {
    "disable": "where it may not be used",
    "hold": "a seat is free at once when it is released",
    "host_based": "seats of named hosts",
    "hostid": "it is for one machine: a pool does not look where its seats are used",
    "min_checkout": "how long a seat is held at least",
    "min_timeout": "the shortest idle time that an administrator may choose",
    "named_user": "seats of named users",
    "platforms": "which machines may use it: a pool does not ask for the platform",
    "share": "",
    "soft_limit": "",
    "timezone": "the time zones in which it may be used",
    "user_based": "seats of named users",
    **dict.fromkeys(
        (
            *("max_roam", "max_roam_count"),
            *("akey", "contract", "customer", "id", "issued", "issuer", "key", "options"),
            *(
                "password",
                "replace",
                "sig",
                "start",
                "type",
                "user",
                "client_cache",
                "line_item",
            ),
        ),
        "",
    ),
}
"""What a licence may say beside its count and date."""

_LOG = not_needed("nodes log every grant and refusal, and count them as metrics")
_EXEMPT = no_counterpart("a limit is for all holders alike, or for all of a project")
_NO_ROAMING = ("", "0", "-1")
_OF_THE_SERVER = "rlm.opt"
"""The options file that is about who administers the server, not about licences."""


def _licence(statement: Statement) -> Parsed:
    vendor, product, version, expires, count, *rest = needs(
        statement, 5, "an ISV, product, version, date and count"
    )
    if product.lower().startswith("rlm_"):
        return Aside(
            Became.NONE,
            f"{product[:_SHOWN]} is no product: it switches something of the server on",
        )
    found = _attributes(rest)
    last, kind = day(expires), count.lower()
    count_once, lost = _count_once(found)
    if kind.startswith(("token", "meter")):
        what = "of tokens that several products share" if kind[0] == "t" else "metered"
        return Aside(Became.NONE, f"it is {what}: a seat is one seat of one pool")
    if kind == "single":
        return Aside(Became.NOT_NEEDED, "`single`: it is for one machine, which asks no server")
    replaced = found.get("replace")
    issued = day(found["issued"]) if found.get("issued") else None
    starts = day(found["start"]) if found.get("start") else None
    seats = number(count, "count of licences") if kind != "uncounted" else 0
    soft = number(found["soft_limit"], "limit") if found.get("soft_limit") else seats
    # Beyond the soft limit it grants, too, and says so: that is an overdraft.
    own = soft if 0 < soft < seats else seats
    return Licence(
        feature=product,
        vendor=vendor,
        version=version,
        seats=own or None,
        overdraft=seats - own,
        expires=last,
        starts=starts,
        issued=issued or starts,
        supersedes=() if replaced is None else tuple(replaced.split()) or (product,),
        signature=found.get("sig", ""),
        contract=found.get("contract", ""),
        losses=(*losses(found, ATTRIBUTES), *lost),
        borrow=_roams(found.get("max_roam", "")),
        borrow_seats=_roam_count(found.get("max_roam_count", "")),
        count_once=count_once,
    )


def _count_once(found: dict[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what requests have in common that share a licence, and what is lost of that.

    A most of those who share one has no counterpart: without it, more would share a seat.
    """
    said, colon, most = found.get("share", "").partition(":")
    letters, said = said.lower(), f"share={found.get('share', '')[:20]}"
    if letters in ("", "none"):
        return (), ()
    if colon:
        text = f"{said}: a pool has no most of those who share a seat ({most[:9]}), {ALONE}"
        return (), (text,)
    return named_by(letters, OF_RLM, said)


def _roams(days: str) -> timedelta | None:
    """Return for how long seats roam; 0, -1 or nothing said: they do not."""
    return None if days in _NO_ROAMING else _days(days)


def _roam_count(text: str) -> int | None:
    return None if text in ("", "-1") else number(text, "number of seats")


def _lending(statement: Statement) -> Lending:
    said, feature = needs(statement, 2, "a number and a product")[:2]
    if statement.keyword == "ROAM_MAX_COUNT":
        return Lending(feature, seats=number(said, "number of seats"))
    longest = _days(said)
    if not longest:
        raise Unreadable("0 days: seats roam for a day at least, or leave max_roam out")
    return Lending(feature, longest=longest)


def _days(text: str) -> timedelta:
    return min(timedelta(days=1) * min(number(text, "number of days"), 1_000), BORROW_MAX)


def _attributes(words: list[str]) -> dict[str, str]:
    """Return the attributes of a licence, by name. Those with `_` are the administrator's own."""
    found: dict[str, str] = {}
    for at, word in enumerate(words):
        name, equals, value = word.partition("=")
        is_the_key = not at and not equals and name.lower() not in ATTRIBUTES
        if not is_the_key and not name.startswith("_"):
            found.setdefault(name.lower(), value)
    return found


def _is_attribute(word: str) -> bool:
    name = word.partition("=")[0].lower()
    return is_key(word) or name.startswith("_") or name in ATTRIBUTES


def _upgrade(statement: Statement) -> Parsed:
    needs(statement, 6, "an ISV, product, two versions, a date and a count")
    return not_needed(
        "it changes the version of licences, not their number, and versions share a pool"
    )


def _claim(statement: Statement) -> Claim:
    found = claim(statement, KINDS)
    if found.feature.lower() == "any":
        raise Unreadable("'any' is no product")
    return found


def _idle(statement: Statement) -> IdleTime:
    """Return what TIMEOUT or TIMEOUTALL says: seconds, and a product but of the latter."""
    if statement.keyword == "TIMEOUTALL":
        return IdleTime("", "", number(needs(statement, 1, "seconds")[0], "number of seconds"))
    seconds, product, *more = needs(statement, 2, "seconds and a product")
    named = next((word for word in more if word.lower().startswith("id=")), "")
    return IdleTime(product, named, number(seconds, "number of seconds"))


def _access(statement: Statement) -> Parsed:
    if PurePath(statement.file.replace("\\", "/")).name.lower() == _OF_THE_SERVER:
        return not_needed("it is of who may administer RLM: administrators have certificates")
    at = 0 if statement.keyword.endswith("ALL") else 1
    if statement.rest[at : at + 1] and statement.rest[at].lower() == "noproject":
        return no_counterpart("a rule of a pool names projects: it cannot ask for one")
    return access(statement, KINDS)


def _roamers(statement: Statement) -> Access:
    return access(statement, KINDS, is_of_borrowing=True)


READINGS: dict[str, Reading | Aside] = {
    # Licence files. RLM has FlexNet's names for them, too.
    **dict.fromkeys(("LICENSE", "FEATURE"), _licence),
    "UPGRADE": _upgrade,
    **dict.fromkeys(
        ("HOST", "SERVER"),
        not_needed("clients are given the addresses of nodes: --nodes, SEATKEEPER_NODES"),
    ),
    **dict.fromkeys(
        ("ISV", "DAEMON"), not_needed("nodes serve all pools: there are no ISV servers")
    ),
    "CUSTOMER": not_needed("whose RLM Cloud it is"),
    # Options files: who is sure of seats, and how many one may have.
    "RESERVE": _claim,
    "MAX": _claim,
    **dict.fromkeys(("GROUP", "HOST_GROUP"), group),
    "INTERNET_GROUP": no_counterpart("an address is not part of a request"),
    **dict.fromkeys(("EXEMPT_MAX", "EXEMPTALL_MAX"), _EXEMPT),
    # Who may ask, and where.
    **dict.fromkeys(("INCLUDE", "INCLUDEALL", "EXCLUDE", "EXCLUDEALL"), _access),
    "TIMEZONE": no_counterpart("a pool does not ask where its seats are used"),
    # The queue.
    "PRIORITY": no_counterpart(
        "priorities are not of pools",
        "requests say theirs, with --priority, or priority= in a program",
    ),
    "EXPRESS": no_counterpart(
        "a request that wants fewer seats than are free waits behind one that wants more",
        "give the pool `overtaking`",
    ),
    # For how long.
    **dict.fromkeys(("TIMEOUT", "TIMEOUTALL"), _idle),
    "MINREMOVE": not_needed("`seatkeeper grant release` frees a seat at any time"),
    # Roaming.
    **dict.fromkeys(("ROAM_MAX_COUNT", "ROAM_MAX_DAYS"), _lending),
    **dict.fromkeys(("INCLUDEALL_ROAM", "EXCLUDEALL_ROAM"), _roamers),
    "CLIENT_CACHE": not_needed("a session keeps its seats while a node is away"),
    # How the server runs.
    **dict.fromkeys(("NOLOG", "DEBUGLOG", "REPORTLOG", "ROTATE", "PURGE_REPORTLOG"), _LOG),
    "NO_OLD_RLMUTIL": not_needed("administrators have certificates, whatever their version"),
    "ACTIVATE": not_needed("activation is between the vendor's software and its server"),
}

RLM = Dialect(
    name="rlm",
    title="RLM",
    grammar=Grammar(
        keywords=frozenset(READINGS),
        shapes={
            **dict.fromkeys(("LICENSE", "FEATURE"), is_licence),
            "UPGRADE": is_upgrade,
            **dict.fromkeys(("RESERVE", "MAX"), is_claim),
            **dict.fromkeys(("INCLUDE", "EXCLUDE"), is_about),
        },
        numbered=frozenset({"MAX", "RESERVE"}),
        listing=frozenset(
            {"FEATURE", "LICENSE", "UPGRADE", "GROUP", "HOST_GROUP", "INTERNET_GROUP"}
        ),
        groups=frozenset({"GROUP", "HOST_GROUP", "INTERNET_GROUP"}),
        names=frozenset({"HOST", "SERVER", "ISV", "DAEMON", "CUSTOMER", "FEATURE", "LICENSE"}),
        line_max=1_024,
        is_attribute=_is_attribute,
        splitting=frozenset({"FEATURE", "LICENSE", "UPGRADE", "RESERVE", "MAX"}),
    ),
    readings=READINGS,
    daemons=frozenset({"ISV", "DAEMON"}),
    is_name_case_sensitive=False,
    is_lowest_limit_in_force=True,
    all_groups="",
    borrowed="taken along (max_roam)",
    of_each_version=False,
    unknown=lambda _: "",
)
