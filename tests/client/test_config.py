from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, is_dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from seatkeeper.client.config import values as config
from seatkeeper.client.config.values import (
    BackoffConfig,
    BreakerConfig,
    ClientConfig,
    RenewalConfig,
    TlsConfig,
)
from seatkeeper.core.errors import InvalidArgument

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


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        ClientConfig().ttl = SECOND  # type: ignore[misc]


def test_every_setting_is_explained() -> None:
    source = Path(config.__file__).read_text()
    for kind in vars(config).values():
        if isinstance(kind, type) and is_dataclass(kind):
            for setting in fields(kind):
                _, _, after = source.partition(f"\n    {setting.name}:")
                assert after.partition("\n")[2].lstrip().startswith('"""'), setting.name


def test_a_seat_that_lingers_kills_nobody() -> None:
    with pytest.raises(InvalidArgument, match="linger"):
        ClientConfig(linger=timedelta(seconds=1), on_loss="kill")
