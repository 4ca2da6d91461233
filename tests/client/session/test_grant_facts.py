"""What a grant says of itself: who holds it, for whom, and until when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from seatkeeper.client import ClientConfig, SeatClient, SeatLost
from seatkeeper.testing.service import InMemoryService

TTL = timedelta(seconds=30)
MARGIN = timedelta(seconds=2)
CONFIG = ClientConfig(ttl=TTL, safety_margin=MARGIN)


def test_a_grant_says_who_holds_it_and_for_which_project() -> None:
    with (
        InMemoryService({"tensorrt": 1}) as service,
        SeatClient(service.address, holder="ren\u00e9@ci", project="cv") as client,
    ):
        with client.seat("tensorrt", wait=20) as grant:
            assert (grant.holder, grant.project) == ("ren\u00e9@ci", "cv")
        with client.seat("tensorrt", wait=20, project="nlp") as grant:
            assert grant.project == "nlp"
        # Also afterwards: for the log line that says what is over.
        assert (grant.holder, grant.project) == ("ren\u00e9@ci", "nlp")


def test_without_a_project_it_is_the_services_default() -> None:
    with (
        InMemoryService({"tensorrt": 1}) as service,
        SeatClient(service.address) as client,
        client.seat("tensorrt", wait=20) as grant,
    ):
        assert grant.project == "default"


def test_it_expires_a_margin_before_the_lease_that_began_when_it_was_asked_for() -> None:
    with (
        InMemoryService({"tensorrt": 1}) as service,
        SeatClient(service.address, config=CONFIG) as client,
    ):
        before = datetime.now(UTC)
        with client.seat("tensorrt", wait=20) as grant:
            after = datetime.now(UTC)
            expires_at = grant.expires_at
        assert expires_at.utcoffset() == timedelta(0)
        slack = timedelta(seconds=0.1)
        assert before + TTL - MARGIN - slack <= expires_at <= after + TTL - MARGIN + slack
        with pytest.raises(SeatLost):
            grant.expires_at  # noqa: B018 # it is no more ours to count on
