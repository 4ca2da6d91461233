"""A value of the wrong type is refused by its field's name, with what it should be."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from seatkeeper.core.errors import InvalidArgument
from seatkeeper.core.typed import check_fields, check_type

SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Settings:
    """Some of each kind."""

    wait: timedelta | None = None
    count: int = 1
    share: float = 0.5
    follow: bool = True
    file: Path | None = None
    mode: Literal["fast", "slow"] = "fast"
    name: str = ""


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (SECOND, timedelta),
        (None, timedelta | None),
        (1, int),
        (1, float),
        (1.5, float),
        (True, bool),
        ("/a", Path),
        (Path("/a"), Path | None),
        ("fast", Literal["fast", "slow"]),
        (Settings(), Settings),
    ],
)
def test_what_is_of_its_type_is_taken(value: object, kind: object) -> None:
    check_type("field", value, kind)


@pytest.mark.parametrize(
    ("value", "kind", "says"),
    [
        (30, timedelta, "field must be a timedelta, not 30: write timedelta(seconds=30)"),
        ("1s", timedelta, "must be a timedelta, such as timedelta(seconds=30), not '1s'"),
        (None, timedelta, "must be a timedelta"),
        (True, int, "must be a whole number, not True"),
        (1.0, int, "must be a whole number, not 1.0"),
        (1, bool, "must be True or False, not 1"),
        (True, float, "must be a number"),
        (b"/a", Path | None, "must be a path, not b'/a'"),
        ("medium", Literal["fast", "slow"], 'must be "fast" or "slow", not \'medium\''),
        (5, int | str | None, None),
        (SECOND, int | str, "must be a whole number or text"),
        (5, Settings | None, "must be a Settings, not 5"),
    ],
)
def test_what_is_not_is_refused(value: object, kind: object, says: str | None) -> None:
    if says is None:
        check_type("field", value, kind)
        return
    with pytest.raises(InvalidArgument) as refused:
        check_type("field", value, kind)
    assert says in str(refused.value)
    assert refused.value.field == "field"


def test_every_field_is_checked() -> None:
    check_fields(Settings(wait=SECOND, file=Path("/a")))
    for name in ("wait", "count", "share", "follow", "file", "mode", "name"):
        wrong: dict[str, Any] = {name: object()}
        with pytest.raises(InvalidArgument) as refused:
            check_fields(Settings(**wrong), "part.")
        assert refused.value.field == f"part.{name}"
