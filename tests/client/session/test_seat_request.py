"""A request that cannot be sent is refused before anything is asked."""

from __future__ import annotations

from typing import Any

import pytest

from seatkeeper.client import AsyncSeatClient
from seatkeeper.core.errors import InvalidArgument


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seats", 0),
        ("seats", 2**40),
        ("seats", 1.5),
        ("seats", "1"),
        ("priority", 2**40),
        ("priority", "high"),
        ("wait", -1.0),
    ],
)
async def test_a_number_that_does_not_fit_is_refused_by_its_name(
    field: str, value: object
) -> None:
    arguments: dict[str, Any] = {field: value}
    async with AsyncSeatClient("127.0.0.1:1") as client:
        with pytest.raises(InvalidArgument) as refused:
            await client.acquire("tensorrt", **arguments)
    assert refused.value.field == field
