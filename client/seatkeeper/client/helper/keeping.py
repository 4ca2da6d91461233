"""The helper's side of one client: its session, and what of it is shared with the program."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

from seatkeeper.client.config.values import ClientConfig
from seatkeeper.client.helper.frames import Frame, error_fields, frame
from seatkeeper.client.helper.outbox import Outbox
from seatkeeper.client.helper.relay import Relay
from seatkeeper.client.helper.settings import basis_fields, tls_from
from seatkeeper.client.helper.slots import TIME_MAX, Slot, SlotWriter, TableFull, to_ms
from seatkeeper.client.session.driver import SessionDriver
from seatkeeper.client.session.holding import HoldingState
from seatkeeper.client.session.lease import Account, Lease
from seatkeeper.client.session.reclaiming import Recall
from seatkeeper.client.session.requests import Held, QueuePosition, Wanted
from seatkeeper.client.transport.channels import open_channel
from seatkeeper.client.transport.nodes import NodePicker
from seatkeeper.core.clock import SystemClock
from seatkeeper.core.errors import Overloaded, SeatError
from seatkeeper.v1 import seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb

_log = logging.getLogger("seatkeeper.client")


class Keeping:
    """Does what the program asks for one client. A grant is known by the request that took it."""

    def __init__(
        self,
        config: ClientConfig,
        slots: SlotWriter,
        outbox: Outbox,
        kill: Callable[[], None],
    ) -> None:
        self._config = config
        self._slots = slots
        self._outbox = outbox
        self._kill = kill
        self._closing = False
        self._leases: dict[object, Slot] = {}
        self._client_slot: Slot | None = None
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._held: dict[int, tuple[Held, Slot]] = {}

    def open(self, message: Frame) -> None:
        """Begin. Connects when something is first asked of it."""
        with suppress(TableFull):
            self._client_slot = self._slots.take()
        connect = functools.partial(
            open_channel, config=self._config, tls=tls_from(message["tls"])
        )
        self._relay = Relay(connect, self._outbox)
        self._driver = SessionDriver(
            NodePicker(message["addresses"], self._config.breaker, random=message["random"]),
            connect,
            # Whom it kills is not this process.
            replace(self._config, on_loss="tell"),
            Account(**message["account"]),
            SystemClock(),
            on_view=self._publish,
        )
        if self._client_slot is not None:
            self._outbox.send(frame("ok", id=message.id, slot=_place(self._client_slot)))

    def take(self, message: Frame) -> None:
        """Do what a frame asks for."""
        if self._relay.take(message):
            return
        match message.op:
            case "acquire":
                self._run(message.id, self._acquire(message))
            case "cancel":
                self._cancel(int(message["of"]))
            case "release":
                self._run(message.id, self._release(message))
            case "active":
                self._note_activity(int(message["of"]))
            case "session":
                self._run(message.id, self._session(message.id))
            case "close":
                self._run(message.id, self._close(message.id))
            case other:
                self._fail(message.id, SeatError(f"the helper does not know {other!r}"))

    async def close(self) -> None:
        """End the session. Nothing is believed any more before the service is notified."""
        self._closing = True
        slot, self._client_slot = self._client_slot, None
        if slot is not None:
            self._slots.end(slot)
        for lease in list(self._leases):
            self._end_lease(lease)
        await self._driver.close()
        await self._relay.close()
        for _, grant_slot in self._held.values():
            self._slots.end(grant_slot)
        self._held.clear()

    # Requests ----------------------------------------------------------------------------------

    def _run(self, number: int, work: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            try:
                await work
            except SeatError as error:
                self._fail(number, error)
            except Exception as error:
                _log.exception("the helper failed")
                self._fail(number, SeatError(f"the helper failed: {error!r}"))

        task = self._tasks[number] = asyncio.create_task(run())
        task.add_done_callback(lambda _: self._tasks.pop(number, None))

    async def _acquire(self, message: Frame) -> None:
        number = message.id
        slot = self._take_slot()
        on_queued = functools.partial(self._on_queued, number) if message["queued"] else None
        try:
            held = await self._driver.acquire(
                Wanted.of(seat_pb2.Acquire.FromString(message.body)),
                wait=message["wait"],
                on_queued=on_queued,
                on_state=functools.partial(self._on_state, number),
            )
        except BaseException:
            self._slots.end(slot)
            raise
        finally:
            self._outbox.drop(("queued", number))
        lease = self._leases.get(held.lease)
        if held.lost or lease is None:
            self._slots.end(slot)
            lease = slot
        else:
            self._slots.write(slot, _cap(held), TIME_MAX)
            held.on_recall = functools.partial(self._on_recall, number)
            held.on_token = functools.partial(self._on_token, number)
            self._held[number] = held, slot
        self._outbox.send(
            frame(
                "ok",
                held.granted_at.SerializeToString(),
                id=number,
                grant_id=held.grant_id,
                seats=held.seats,
                fence=held.fence,
                token=held.token,
                holder=held.holder,
                project=held.project,
                longest_hold=_seconds(held.longest_hold),
                notice=held.notice,
                lease=_place(lease),
                slot=_place(slot),
            )
        )
        if held.lost:
            self._notify(number, HoldingState.LOST, held.lost)
        elif held.called is not None:
            self._notify(number, HoldingState.RECLAIMING, held.called.message)

    def _cancel(self, number: int) -> None:
        """Let go of a request and of whatever came of it: the program will never look at it."""
        task = self._tasks.get(number)
        if task is not None:
            task.cancel()
        self._drop(number)

    async def _release(self, message: Frame) -> None:
        of = int(message["of"])
        held, _ = self._held.get(of, (None, None))
        said = pb.Release.FromString(message.body)
        if held is not None and said.HasField("work_end"):
            held.work_end = said.work_end
        done = self._drop(of)
        if done is not None:
            await done
        self._outbox.send(frame("ok", id=message.id))

    def _note_activity(self, number: int) -> None:
        held, _ = self._held.get(number, (None, None))
        if held is not None:
            self._driver.report_activity(held)

    async def _session(self, number: int) -> None:
        credentials = await self._driver.opened()
        self._outbox.send(frame("ok", credentials.SerializeToString(), id=number))

    async def _close(self, number: int) -> None:
        await self.close()
        self._outbox.send(frame("ok", id=number))

    def _drop(self, number: int) -> asyncio.Future[None] | None:
        held, slot = self._held.pop(number, (None, None))
        if held is None or slot is None:
            return None
        self._slots.end(slot)
        self._outbox.drop(("state", number))
        self._outbox.drop(("token", number))
        return self._driver.release(held)

    def _take_slot(self) -> Slot:
        try:
            return self._slots.take()
        except TableFull:
            raise _too_many() from None

    def _fail(self, number: int, error: SeatError) -> None:
        self._outbox.send(frame("error", id=number, **error_fields(error)))

    # What is shared with the program -------------------------------------------------------------

    def _publish(self, lease: Lease) -> None:
        """Write what may be believed of a lease. Called whenever that changes."""
        view = lease.view
        if view is None or self._closing:
            return
        if view.state is HoldingState.LOST:
            self._end_lease(lease)
            return
        slot = self._leases.get(lease)
        if slot is None:
            try:
                slot = self._leases[lease] = self._slots.take()
            except TableFull:
                return
        doubted = view.state is HoldingState.JEOPARDY
        until, doubt = to_ms(view.until), 0 if doubted else to_ms(view.jeopardy_at)
        self._slots.write(slot, until, doubt)
        if self._client_slot is not None:
            self._slots.write(self._client_slot, until, doubt)

    def _end_lease(self, lease: object) -> None:
        slot = self._leases.pop(lease, None)
        if slot is not None:
            self._slots.end(slot)
        if self._client_slot is not None:
            self._slots.write(self._client_slot, 0, 0)

    def _on_state(self, number: int, state: HoldingState) -> None:
        held, slot = self._held.get(number, (None, None))
        if held is None or slot is None:
            return
        if state is HoldingState.LOST:
            del self._held[number]
            self._slots.end(slot)
            if self._config.on_loss == "kill" and not self._closing:
                _log.warning("%s: %s; the program is killed, as it asked", held.pool, held.lost)
                self._kill()
        why = held.lost
        if state is HoldingState.RECLAIMING and held.called is not None:
            why = held.called.message
        self._notify(number, state, why)

    def _on_recall(self, number: int, recall: Recall) -> None:
        held, slot = self._held.get(number, (None, None))
        if held is not None and slot is not None:
            self._slots.write(slot, to_ms(recall.until), TIME_MAX)

    def _notify(self, number: int, state: HoldingState, why: str) -> None:
        self._outbox.put(
            ("state", number), frame("state", of=number, state=state.value, why=why)
        )

    def _on_token(self, number: int, token: str) -> None:
        self._outbox.put(("token", number), frame("token", of=number, token=token))

    def _on_queued(self, number: int, position: QueuePosition) -> None:
        estimate = position.estimate
        self._outbox.put(
            ("queued", number),
            frame(
                "queued",
                of=number,
                position=position.position,
                estimate=None if estimate is None else estimate.total_seconds(),
                between=position.between and [end.total_seconds() for end in position.between],
                basis=basis_fields(position.basis),
                waits_for_work=position.waits_for_work,
            ),
        )


def _cap(held: Held) -> int:
    """Return until when a grant may be believed in, however long its lease lives."""
    return TIME_MAX if held.recall is None else to_ms(held.recall.until)


def _seconds(length: timedelta | None) -> float | None:
    return None if length is None else length.total_seconds()


def _place(slot: Slot) -> tuple[int, int]:
    return slot.index, slot.generation


def _too_many() -> Overloaded:
    return Overloaded("this program holds as many grants as one helper can keep; release some")
