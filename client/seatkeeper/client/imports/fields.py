"""The fields of statements that FlexNet and RLM have in common."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date

from seatkeeper.client.imports.parsed import Access, Attributes, Claim, Group, Unreadable
from seatkeeper.client.imports.statement import Statement

COUNT_MAX = 10**9
"""A number that is larger is none that a server would take."""
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATE = re.compile(r"([0-9]{1,2})-([a-z]{3})-([0-9]{1,4})", re.IGNORECASE)
_KEY = re.compile(r'"?[0-9A-Fa-f]{4,}"?\\?')
_QUALIFIED = re.compile(r"(.+?)[: ](\w+=.*)", re.DOTALL)
_SHOWN = 40
_NO_LOSS = frozenset({"ANY", "NONE"})
"""Values that say that there is none of it: ``HOSTID=ANY``, ``DUP_GROUP=NONE``."""
_NOT_KNOWN = "an attribute that is not known here"

KINDS = ("USER", "HOST", "DISPLAY", "INTERNET", "PROJECT", "GROUP", "HOST_GROUP")
"""Whom an option is about."""


def is_date(text: str) -> bool:
    """Return whether a word is where a licence says how long it is in force."""
    return text.lower() == "permanent" or _DATE.fullmatch(text) is not None


def day(text: str) -> date | None:
    """Return a date such as ``31-dec-2027``; None: never. Raises ``Unreadable``."""
    if text.lower() == "permanent":
        return None
    found = _DATE.fullmatch(text)
    if found is None or found[2].lower() not in _MONTHS:
        raise Unreadable(f"'{text[:_SHOWN]}' is no date such as 31-dec-2027, nor `permanent`")
    if not int(found[3]):
        return None
    if len(found[3]) != 4:
        raise Unreadable(f"the year of '{text}' has not four digits: write which it is")
    try:
        return date(int(found[3]), _MONTHS.index(found[2].lower()) + 1, int(found[1]))
    except ValueError:
        raise Unreadable(f"'{text}' is no day of the calendar") from None


def is_key(text: str) -> bool:
    """Return whether a word is (a part of) the key that signs a licence."""
    return _KEY.fullmatch(text) is not None


def losses(found: Mapping[str, str], attributes: Attributes) -> Iterator[str]:
    """Yield what is lost of a licence's attributes, and those that are not known."""
    for name, value in found.items():
        said = f"{name}={value}" if value else name
        lost = attributes.get(name, "" if is_key(name) and not value else _NOT_KNOWN)
        if lost and value.upper() not in _NO_LOSS:
            yield f"{said[:_SHOWN]}: {lost}"


def number(text: str, what: str) -> int:
    """Return a whole number. Raises ``Unreadable``."""
    if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) <= COUNT_MAX):
        raise Unreadable(f"'{text[:_SHOWN]}' is no {what}")
    return int(text)


def needs(statement: Statement, least: int, what: str) -> tuple[str, ...]:
    """Return the words behind the keyword. Raises ``Unreadable`` where there are too few."""
    if len(statement.rest) < least:
        raise Unreadable(f"it needs {what}")
    return statement.rest


def feature_of(text: str) -> tuple[str, str]:
    """Return a feature and which of its licences are meant: ``f1:VERSION=2.0``, quoted or not.

    A feature's name may have a colon, so the qualifier begins where a ``KEY=`` does.
    """
    found = _QUALIFIED.fullmatch(text)
    return (text, "") if found is None else (found[1], found[2].strip())


def claim(statement: Statement, kinds: Sequence[str]) -> Claim:
    """Return what RESERVE or MAX says. Raises ``Unreadable``."""
    rest = needs(statement, 4, "a number, a feature, whom it is for, and a name")
    seats = number(rest[0], "number of seats")
    feature, qualifier = feature_of(rest[1])
    kind = _kind(rest[2], kinds)
    qualified, losses = _more(rest[4:])
    return Claim(
        is_limit=statement.keyword == "MAX",
        seats=seats,
        feature=feature,
        qualifier=qualified or qualifier,
        kind=kind,
        who=rest[3],
        losses=losses,
    )


def access(
    statement: Statement, kinds: Sequence[str], *, is_of_borrowing: bool = False
) -> Access:
    """Return what INCLUDE, EXCLUDE, INCLUDEALL or EXCLUDEALL says. Raises ``Unreadable``."""
    if statement.keyword.partition("_")[0].endswith("ALL"):
        feature, qualifier = "", ""
        rest = needs(statement, 2, "whom it is for, and a name")
    else:
        rest = needs(statement, 3, "a feature, whom it is for, and a name")
        feature, qualifier = feature_of(rest[0])
        rest = rest[1:]
    kind = _kind(rest[0], kinds)
    qualified, losses = _more(rest[2:])
    return Access(
        is_exclusion=statement.keyword.startswith("EXCLUDE"),
        feature=feature,
        qualifier=qualified or qualifier,
        kind=kind,
        who=rest[1],
        losses=losses,
        is_of_borrowing=is_of_borrowing,
    )


def _kind(text: str, kinds: Sequence[str]) -> str:
    if text.upper() not in kinds:
        raise Unreadable(f"'{text[:_SHOWN]}' is none of {', '.join(kinds)}")
    return text.upper()


def _more(words: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return which licences words behind a name mean, and what the others are."""
    qualifier, losses = "", []
    for word in words:
        if word.lower().startswith("id="):
            qualifier = word
        else:
            losses.append(f"'{word[:_SHOWN]}': the server takes one name, the first")
    return qualifier, tuple(losses[:3])


def group(statement: Statement) -> Group:
    """Return a group of users or hosts. Raises ``Unreadable``."""
    rest = needs(statement, 1, "a name")
    return Group(rest[0], rest[1:], statement.keyword)


def is_claim(rest: Sequence[str]) -> bool:
    """Return whether words are what RESERVE and MAX take."""
    return (
        len(rest) >= 4 and rest[0].isdigit() and rest[2].upper() in (*KINDS, "INTERNET_GROUP")
    )


def is_licence(rest: Sequence[str]) -> bool:
    """Return whether words are what a licence line takes: a date is the fourth."""
    return len(rest) >= 5 and is_date(rest[3])


def is_upgrade(rest: Sequence[str]) -> bool:
    """Return whether words are what UPGRADE takes: a date is the fifth."""
    return len(rest) >= 6 and is_date(rest[4])


def is_about(rest: Sequence[str]) -> bool:
    """Return whether words are what INCLUDE and EXCLUDE take."""
    return len(rest) >= 3 and rest[1].upper() in (*KINDS, "INTERNET_GROUP")
