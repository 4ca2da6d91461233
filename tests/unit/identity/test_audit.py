"""What administrators did is in the log, also where they did not wait for the answer."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import pytest

from seatkeeper.core.serving.failure import Context
from seatkeeper.server.identity.audit import administrative_act


class Call:
    """A call without a certificate."""

    def auth_context(self) -> dict[str, Any]:
        return {}

    def peer(self) -> str:
        return "ipv4:127.0.0.1:9"

    def invocation_metadata(self) -> tuple[()]:
        return ()


async def test_an_act_whose_caller_went_away_may_have_happened(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    begun = asyncio.Event()

    async def act() -> None:
        with administrative_act("grant_released", cast(Context, Call()), reason="it hangs"):
            begun.set()
            await asyncio.sleep(100)

    acting = asyncio.create_task(act())
    await begun.wait()
    acting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await acting
    (record,) = caplog.records
    assert record.getMessage() == "grant_released_unknown"
    assert record.__dict__["reason"] == "it hangs"
    assert record.__dict__["peer"] == "ipv4:127.0.0.1:9"
    assert "did not wait" in record.__dict__["error"]
