from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from seatkeeper.client import AsyncSeatClient, SeatClient, verify_token
from seatkeeper.client.config import values as config
from seatkeeper.client.config.values import (
    BackoffConfig,
    BreakerConfig,
    ClientConfig,
    RenewalConfig,
    TlsConfig,
)
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.testing.service import InMemoryService
from seatkeeper.v1.seat_service_pb2 import SessionCredentials

ZERO, SECOND = timedelta(0), timedelta(seconds=1)


@pytest.mark.parametrize(
    ("setting", "make"),
    [
        ("ttl", lambda: ClientConfig(ttl=SECOND)),
        ("ttl", lambda: ClientConfig(ttl=timedelta(hours=2))),
        ("safety_margin", lambda: ClientConfig(safety_margin=-SECOND)),
        ("connect_timeout", lambda: ClientConfig(connect_timeout=ZERO)),
        ("attempt_timeout", lambda: ClientConfig(attempt_timeout=ZERO)),
        ("call_timeout", lambda: ClientConfig(call_timeout=-SECOND)),
        ("linger", lambda: ClientConfig(linger=-SECOND)),
        ("linger_max", lambda: ClientConfig(linger_max=0)),
        ("keepalive", lambda: ClientConfig(keepalive=SECOND)),
        ("renewal.answer_timeout", lambda: RenewalConfig(answer_timeout=ZERO)),
        ("renewal.probe_after", lambda: RenewalConfig(probe_after=ZERO)),
        ("backoff.initial", lambda: BackoffConfig(initial=ZERO)),
        ("backoff.longest", lambda: BackoffConfig(longest=timedelta(milliseconds=1))),
        ("breaker.failures_max", lambda: BreakerConfig(failures_max=0)),
        ("breaker.open_for", lambda: BreakerConfig(open_for=ZERO)),
        ("tls.cert", lambda: TlsConfig(key=Path(__file__))),
        ("tls.ca", lambda: TlsConfig(ca=Path("/does/not/exist"))),
    ],
)
def test_a_wrong_setting_is_named(setting: str, make: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        make()
    assert caught.value.field == setting
    assert str(caught.value).startswith(setting)


KINDS: tuple[type[Any], ...] = (
    ClientConfig,
    RenewalConfig,
    BackoffConfig,
    BreakerConfig,
    TlsConfig,
)
PREFIX = {RenewalConfig: "renewal.", BackoffConfig: "backoff.", BreakerConfig: "breaker."} | {
    TlsConfig: "tls."
}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, field.name) for kind in KINDS for field in fields(kind)]
)
def test_a_value_of_another_type_is_refused_by_its_name(kind: type[Any], name: str) -> None:
    with pytest.raises(InvalidArgument, match=" must be ") as refused:
        kind(**{name: object()})
    assert refused.value.field == f"{PREFIX.get(kind, '')}{name}"


def test_a_number_of_seconds_is_shown_as_a_duration() -> None:
    wrong: Any = 30
    with pytest.raises(
        InvalidArgument, match=r"^ttl .* not 30: write timedelta\(seconds=30\)$"
    ):
        ClientConfig(ttl=wrong)
    for make in (
        lambda: AsyncSeatClient("a:1", config=wrong),
        lambda: AsyncSeatClient("a:1", tls=wrong),
        lambda: SeatClient("a:1", config=wrong),
        lambda: InMemoryService(session_ttl=wrong),
        lambda: verify_token("", "", leeway=wrong),
        lambda: ClientConfig(linger_max=True),
        lambda: ClientConfig(follow_ring=wrong),
    ):
        with pytest.raises(InvalidArgument, match=" must be "):
            make()


def test_a_path_may_be_text() -> None:
    ca: Any = "/does/not/exist"
    with pytest.raises(InvalidArgument, match="a readable file"):
        TlsConfig(ca=ca)


async def test_so_is_a_duration_of_a_call() -> None:
    wrong: Any = 30
    async with AsyncSeatClient("127.0.0.1:1") as client:
        for call in (
            lambda: client.seats.open_session(SessionCredentials(), holder="h", ttl=wrong),
            lambda: client.cluster.verify_token("token", leeway=wrong),
        ):
            with pytest.raises(InvalidArgument, match=r"write timedelta\(seconds=30\)"):
                await call()


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        ClientConfig().ttl = SECOND  # type: ignore[misc]  # a frozen value: that is what is tested


def test_every_setting_is_explained() -> None:
    source = Path(config.__file__).read_text()
    for kind in vars(config).values():
        if isinstance(kind, type) and is_dataclass(kind):
            for setting in fields(kind):
                _, _, after = source.partition(f"\n    {setting.name}:")
                assert after.partition("\n")[2].lstrip().startswith('"""'), setting.name


def test_a_seat_that_lingers_kills_no_process() -> None:
    with pytest.raises(InvalidArgument, match="linger"):
        ClientConfig(linger=timedelta(seconds=1), on_loss="kill")
