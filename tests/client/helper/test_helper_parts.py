"""The parts of the helper that need no process: slots, frames, settings, the outbox."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import cast

import grpc
import pytest
from grpc import aio
from hypothesis import given
from hypothesis import strategies as st
from tests.client.certificates import Authority

from seatkeeper.client import (
    ClientConfig,
    InvalidArgument,
    NoSeatFree,
    RenewalConfig,
    TlsConfig,
)
from seatkeeper.client.helper import belief as beliefs
from seatkeeper.client.helper import spawn
from seatkeeper.client.helper.belief import KeptBelief
from seatkeeper.client.helper.frames import (
    BODY_BYTES_MAX,
    BadFrame,
    Decoder,
    error_fields,
    error_from,
    frame,
    rpc_error,
    rpc_fields,
)
from seatkeeper.client.helper.link import Link
from seatkeeper.client.helper.outbox import NOTES_MAX, Outbox
from seatkeeper.client.helper.settings import config_fields, config_from, tls_fields, tls_from
from seatkeeper.client.helper.slots import (
    GENERATIONS,
    TIME_MAX,
    SlotReader,
    SlotWriter,
    TableFull,
    boot_ms,
    to_ms,
)
from seatkeeper.client.session.holding import HoldingState


@pytest.fixture
def memory() -> bytearray:
    return bytearray(4 * 16)


@pytest.fixture
def writer(memory: bytearray) -> SlotWriter:
    return SlotWriter.of(memory)


@pytest.fixture
def reader(memory: bytearray) -> SlotReader:
    return SlotReader.of(memory)


def test_a_new_slot_says_believe_nothing(writer: SlotWriter, reader: SlotReader) -> None:
    slot = writer.take()
    assert (reader.until_ms(slot), reader.doubt_ms(slot)) == (0, 0)
    writer.write(slot, 12345, 999)
    assert (reader.until_ms(slot), reader.doubt_ms(slot)) == (12345, 999)


def test_a_slot_that_was_given_to_another_says_nothing_to_its_first_owner(
    writer: SlotWriter, reader: SlotReader
) -> None:
    first = writer.take()
    writer.write(first, TIME_MAX, TIME_MAX)
    writer.end(first)
    assert reader.until_ms(first) == 0
    others = [writer.take() for _ in range(3)]
    for other in others:
        writer.write(other, TIME_MAX, TIME_MAX)
    assert first.index in {other.index for other in others}
    assert reader.until_ms(first) == 0
    assert all(reader.until_ms(other) == TIME_MAX for other in others)


def test_an_ended_slot_is_given_out_once(writer: SlotWriter) -> None:
    slot = writer.take()
    writer.end(slot)
    writer.end(slot)
    assert len({writer.take().index for _ in range(3)}) == 3
    with pytest.raises(TableFull):
        writer.take()


def test_a_generation_comes_again_only_after_millions(writer: SlotWriter) -> None:
    slot = writer.take()
    writer._generations[slot.index] = GENERATIONS - 1
    last = writer._generations[slot.index]
    assert last.bit_length() == 24


@given(st.floats(min_value=0, max_value=1e9))
def test_times_are_rounded_to_the_side_of_doubt(at: float) -> None:
    assert to_ms(at) / 1000 <= at
    assert to_ms(float("inf")) == TIME_MAX


class _Program:
    """A link without a helper."""

    def __init__(self, slots: SlotReader) -> None:
        self.slots = slots
        self.lost: object = None


def test_belief_is_by_the_clock_and_its_end_is_final(
    writer: SlotWriter, reader: SlotReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000
    monkeypatch.setattr(beliefs, "boot_ms", lambda: now)
    lease, grant = writer.take(), writer.take()
    writer.write(lease, 2_000, 1_500)
    writer.write(grant, TIME_MAX, TIME_MAX)
    program = _Program(reader)
    belief = KeptBelief(cast("Link", program), 1, lease, grant)
    assert belief.state(0.0) is HoldingState.SAFE
    now = 1_500
    assert belief.state(0.0) is HoldingState.JEOPARDY
    now = 1_000
    program.lost = "gone"
    assert belief.state(0.0) is HoldingState.JEOPARDY
    program.lost = None
    now = 2_000
    assert belief.state(0.0) is HoldingState.LOST
    # The helper wakes up, and its renewal was answered after all.
    writer.write(lease, 5_000, 4_000)
    assert belief.state(0.0) is HoldingState.LOST


def test_a_grant_that_ends_alone_is_lost_at_once(
    writer: SlotWriter, reader: SlotReader
) -> None:
    lease, grant = writer.take(), writer.take()
    writer.write(lease, boot_ms() + 60_000, boot_ms() + 60_000)
    writer.write(grant, TIME_MAX, TIME_MAX)
    belief = KeptBelief(cast("Link", _Program(reader)), 1, lease, grant)
    assert belief.state(0.0) is HoldingState.SAFE
    writer.end(grant)
    assert belief.state(0.0) is HoldingState.LOST


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(1, 50))
def test_frames_arrive_whole_however_they_are_cut(bodies: list[bytes], cut: int) -> None:
    data = b"".join(frame("part", body, id=n).encode() for n, body in enumerate(bodies))
    decoder = Decoder()
    got = [f for at in range(0, len(data), cut) for f in decoder.feed(data[at : at + cut])]
    assert [(f.op, f.id, f.body) for f in got] == [
        ("part", n, body) for n, body in enumerate(bodies)
    ]


def test_nonsense_and_too_much_are_refused() -> None:
    with pytest.raises(BadFrame):
        list(Decoder().feed(b"\xff" * 8))
    with pytest.raises(BadFrame):
        list(Decoder().feed(b"\0\0\0\1\0\0\0\0x"))
    with pytest.raises(InvalidArgument, match="too large"):
        frame("part", b"x" * (BODY_BYTES_MAX + 1), id=1).encode()


def test_errors_keep_what_they_know() -> None:
    error = error_from(dict(error_fields(NoSeatFree("none", retry_after=timedelta(seconds=2)))))
    assert isinstance(error, NoSeatFree)
    assert error.retry_after == timedelta(seconds=2)
    field = error_from(dict(error_fields(InvalidArgument("bad", field="pool"))))
    assert isinstance(field, InvalidArgument)
    assert field.field == "pool"
    trailing = aio.Metadata(("grpc-status-details-bin", b"\0\xff"), ("text", "ü"))
    broken = aio.AioRpcError(grpc.StatusCode.ABORTED, aio.Metadata(), trailing, "why")
    again = rpc_error(dict(rpc_fields(broken)))
    assert again.code() is grpc.StatusCode.ABORTED
    assert again.details() == "why"
    assert list(again.trailing_metadata()) == list(trailing)


def test_settings_arrive_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ClientConfig(
        ttl=timedelta(seconds=7.25),
        follow_ring=False,
        on_loss="kill",
        renewal=RenewalConfig(answer_timeout=timedelta(seconds=9)),
    )
    assert config_from(config_fields(config)) == config
    assert config_from(config_fields(ClientConfig())) == ClientConfig()
    (tmp_path / "ca.pem").write_bytes(Authority(tmp_path).ca.read_bytes())
    monkeypatch.chdir(tmp_path)
    tls = TlsConfig(ca=Path("ca.pem"), server_name="seats")
    # The helper is elsewhere: what was relative here must be whole there.
    assert tls_from(tls_fields(tls)) == TlsConfig(ca=tmp_path / "ca.pem", server_name="seats")
    assert tls_from(tls_fields(None)) is None


class _Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.decoder = Decoder()
        self.frames: list[str] = []

    def write(self, data: object) -> None:
        assert isinstance(data, bytes)
        self.frames += [str(f.header.get("n", f.op)) for f in self.decoder.feed(data)]

    def is_closing(self) -> bool:
        return False


def test_a_program_that_does_not_read_gets_only_the_newest() -> None:
    outbox, transport = Outbox(), _Transport()
    outbox.open(transport)
    outbox.pause()
    for n in range(1000):
        outbox.put(("token", 1), frame("token", n=n))
        outbox.notify(frame("log", n="log"))
    outbox.put(("queued", 2), frame("queued", n="never"))
    outbox.drop(("queued", 2))
    outbox.send(frame("ok", n="answer"))
    assert transport.frames == []
    outbox.resume()
    assert transport.frames == ["answer", *["log"] * NOTES_MAX, "999"]


@pytest.fixture
def executable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("executable", None, "no Python interpreter"),
        ("executable", "", "no Python interpreter"),
        ("executable", "/usr/bin/uwsgi", "no Python interpreter"),
        ("platform", "darwin", "needs Linux"),
        ("frozen", True, "one file"),
    ],
)
def test_where_no_helper_can_be_had_it_is_said_why(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object, why: str
) -> None:
    assert spawn.why_none() == ""
    monkeypatch.setattr(f"sys.{name}", value, raising=False)
    assert why in spawn.why_none()
