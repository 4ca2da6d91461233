"""What a relay does to connections, it does to those that it should, and recovers."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from tests.unit.kit import TIME_LIMIT, eventually

from seatkeeper.chaos import relay as relay_module
from seatkeeper.chaos.relay import Relay, Way

A_MOMENT = 0.05
"""How long it is waited for what must not come; what shows that it has been held up comes before."""
MIB = bytes(1 << 20)


@dataclass
class Server:
    """Answers each line with the same line, and remembers it; ``bye 3`` with 3 MiB and the end."""

    endpoint: str = ""
    received: list[str] = field(default_factory=list)
    begun: int = 0
    open: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.begun += 1
        self.open += 1
        with suppress(ConnectionError):
            while line := await reader.readline():
                self.received.append(line.decode().strip())
                if line.startswith(b"bye"):
                    writer.write(MIB * int(line.split()[1]))
                    break
                writer.write(line)
                await writer.drain()
        self.open -= 1
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@dataclass
class Client:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def say(self, line: str) -> None:
        self.writer.write(f"{line}\n".encode())

    async def receive(self) -> str:
        """Return the next line; empty: the connection ended instead."""
        with suppress(ConnectionError):
            async with asyncio.timeout(TIME_LIMIT):
                return (await self.reader.readline()).decode().strip()
        return ""

    async def ask(self, line: str) -> str:
        self.say(line)
        return await self.receive()

    async def receives_nothing(self) -> bool:
        try:
            await asyncio.wait_for(self.reader.read(1), A_MOMENT)
        except TimeoutError:
            return True
        return False

    async def rest(self, at_once: int = 1 << 16) -> bytes:
        """Return what comes until the connection ends, however it ends."""
        reported = bytearray()
        with suppress(ConnectionError):
            async with asyncio.timeout(TIME_LIMIT):
                while piece := await self.reader.read(at_once):
                    reported += piece
                    await asyncio.sleep(0)
        return bytes(reported)


class Clients:
    """Makes connections, and closes them after the test."""

    def __init__(self) -> None:
        self._made: list[Client] = []

    async def __call__(self, to: Relay | Server) -> Client:
        host, _, port = to.endpoint.rpartition(":")
        self._made.append(Client(*await asyncio.open_connection(host, int(port))))
        return self._made[-1]

    async def close(self) -> None:
        for client in self._made:
            client.writer.close()
            with suppress(ConnectionError):
                await client.writer.wait_closed()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()
    server.endpoint = f"{host}:{port}"
    yield server
    listening.close()
    await eventually(lambda: server.open == 0)


@pytest.fixture
async def connect(server: Server) -> AsyncIterator[Clients]:
    clients = Clients()
    yield clients
    await clients.close()


@pytest.fixture
async def relay(server: Server) -> AsyncIterator[Relay]:
    relay = Relay(server.endpoint, rng=random.Random(0))
    await relay.start()
    yield relay
    await relay.close()


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are old from their first moment."""
    monkeypatch.setattr(relay_module, "YOUNG_SECONDS", 0.0)


@pytest.fixture
def deaf() -> Iterator[str]:
    """An address at which connections are neither taken nor refused: its queue is full."""
    with socket.socket() as listening, socket.socket() as first:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        host, port = listening.getsockname()
        first.connect((host, port))
        yield f"{host}:{port}"


async def test_it_forwards_both_directions(
    server: Server, relay: Relay, connect: Clients
) -> None:
    clients = [await connect(relay) for _ in range(5)]
    for number, client in enumerate(clients):
        assert await client.ask(f"hello {number}") == f"hello {number}"
    assert server.received == [f"hello {number}" for number in range(5)]
    assert (relay.target, relay.answers_cut) == (server.endpoint, 0)
    assert relay.endpoint != server.endpoint


@pytest.mark.parametrize("length", [1, 6, 16])
async def test_nothing_of_a_long_farewell_is_lost_on_a_slow_listener(
    relay: Relay, connect: Clients, length: int
) -> None:
    """Six fill what the system holds between two processes, often; the last piece is ours then."""
    client = await connect(relay)
    client.say(f"bye {length}")
    assert len(await client.rest(at_once=1 << 12)) == length * len(MIB)


async def test_who_leaves_is_gone_at_the_other_side(
    server: Server, relay: Relay, connect: Clients
) -> None:
    client = await connect(relay)
    await client.ask("hello")
    client.writer.close()
    await eventually(lambda: server.open == 0)
    assert server.received == ["hello"]


@pytest.mark.parametrize("ways", [(), (Way.REQUESTS,), tuple(Way)], ids=str)
async def test_requests_that_are_held_up_arrive_when_all_is_well_again(
    server: Server, relay: Relay, connect: Clients, ways: tuple[Way, ...]
) -> None:
    client, direct = await connect(relay), await connect(server)
    await client.ask("before")

    relay.stall(*ways)
    client.say("held up")
    await eventually(lambda: relay.held_up == 1)
    await direct.ask("direct")
    assert server.received == ["before", "direct"]
    assert server.open == 2

    relay.recover()
    assert await client.receive() == "held up"
    assert relay.held_up == 0
    assert server.received == ["before", "direct", "held up"]


async def test_a_trap_lets_all_through_until_a_request_that_is_wanted(
    relay: Relay, connect: Clients, server: Server
) -> None:
    client = await connect(relay)
    relay.trap(lambda data: b"wanted" in data, Way.REQUESTS)
    assert await client.ask("other") == "other"
    assert relay.caught == b""
    client.say("wanted")
    await eventually(lambda: relay.caught == b"wanted\n")
    assert server.received == ["other"]
    relay.cut()
    relay.recover()
    assert relay.caught == b""
    assert await (await connect(relay)).ask("wanted") == "wanted"
    assert server.received == ["other", "wanted"], "what was held up is lost"


async def test_a_trap_for_answers_lets_the_request_arrive(
    relay: Relay, connect: Clients, server: Server
) -> None:
    client = await connect(relay)
    relay.trap(lambda data: b"wanted" in data, Way.ANSWERS)
    client.say("wanted")
    await eventually(lambda: server.received == ["wanted"])
    assert relay.caught == b"wanted\n"
    await eventually(lambda: relay.held_up == 1)
    relay.recover()
    assert await client.receive() == "wanted"


async def test_answers_that_are_held_up_arrive_when_all_is_well_again(
    server: Server, relay: Relay, connect: Clients
) -> None:
    client = await connect(relay)
    relay.stall(Way.ANSWERS)
    client.say("one")
    client.say("two")
    await eventually(lambda: server.received == ["one", "two"])
    await eventually(lambda: relay.held_up == 1)
    assert await client.receives_nothing()

    relay.recover()
    assert [await client.receive(), await client.receive()] == ["one", "two"]


async def test_a_connection_made_during_a_stall_works_afterwards(
    server: Server, relay: Relay, connect: Clients
) -> None:
    relay.stall()
    client = await connect(relay)
    client.say("hello")
    await eventually(lambda: relay.held_up == 1)
    assert server.received == []

    relay.recover()
    assert await client.receive() == "hello"


async def test_answers_of_a_mute_server_are_lost_for_good(
    server: Server, relay: Relay, connect: Clients
) -> None:
    client = await connect(relay)
    relay.mute()
    client.say("hello")
    await eventually(lambda: server.received == ["hello"])
    assert await client.receives_nothing()

    # The two ends have not agreed on anything since: they begin anew.
    relay.recover()
    assert await client.rest() == b""
    await eventually(lambda: server.open == 0)
    assert await (await connect(relay)).ask("again") == "again"


@pytest.mark.usefixtures("old")
async def test_a_lost_answer_is_the_end_of_its_connection_and_the_request_has_arrived(
    server: Server, relay: Relay, connect: Clients
) -> None:
    client, other = await connect(relay), await connect(relay)
    relay.lose_answers(1.0)
    client.say("hello")
    assert await client.rest() == b""
    assert server.received == ["hello"]
    assert relay.answers_cut == 1

    relay.recover()
    assert await other.ask("again") == "again"
    assert relay.answers_cut == 1


async def test_a_young_connection_is_spared_from_losing_answers(
    relay: Relay, connect: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "YOUNG_SECONDS", 1000.0)
    client = await connect(relay)
    relay.lose_answers(1.0)
    assert await client.ask("hello") == "hello"
    assert relay.answers_cut == 0

    monkeypatch.setattr(relay_module, "YOUNG_SECONDS", 0.0)
    client.say("grown up")
    assert await client.rest() == b""
    assert relay.answers_cut == 1


@pytest.mark.usefixtures("old")
async def test_of_some_answers_about_that_share_is_lost(
    server: Server, relay: Relay, connect: Clients
) -> None:
    relay.lose_answers(0.3)
    answered = 0
    for number in range(100):
        client = await connect(relay)
        client.say(str(number))
        answered += await client.receive() == str(number)
    assert relay.answers_cut == 100 - answered
    assert 10 <= relay.answers_cut <= 50
    assert server.received == [str(number) for number in range(100)]


async def test_a_slow_network_takes_its_time_each_way(relay: Relay, connect: Clients) -> None:
    client = await connect(relay)
    await client.ask("hello")

    relay.slow(0.05)
    began = time.monotonic()
    assert await client.ask("slowly") == "slowly"
    assert time.monotonic() - began > 2 * 0.05 - 0.001  # a sleep may end a tick early

    relay.slow(1000.0)
    relay.recover()
    assert await client.ask("quickly") == "quickly"


async def test_who_refuses_takes_no_new_connections_and_keeps_the_old(
    server: Server, relay: Relay, connect: Clients
) -> None:
    client = await connect(relay)
    await client.ask("hello")

    relay.refuse()
    assert await (await connect(relay)).rest() == b""
    assert await client.ask("still here") == "still here"
    assert server.begun == 1

    relay.recover()
    assert await (await connect(relay)).ask("new") == "new"


async def test_a_cut_ends_every_connection_there_is_and_no_later_one(
    server: Server, relay: Relay, connect: Clients
) -> None:
    clients = [await connect(relay) for _ in range(3)]
    for client in clients:
        await client.ask("hello")

    relay.cut()
    assert [await client.rest() for client in clients] == [b"", b"", b""]
    await eventually(lambda: server.open == 0)
    assert await (await connect(relay)).ask("again") == "again"


async def test_what_is_held_up_when_a_connection_is_cut_never_arrives(
    server: Server, relay: Relay, connect: Clients
) -> None:
    client = await connect(relay)
    relay.stall()
    client.say("lost")
    await eventually(lambda: relay.held_up == 1)

    relay.cut()
    assert await client.rest() == b""
    relay.recover()
    assert await (await connect(relay)).ask("later") == "later"
    assert server.received == ["later"]


async def test_connections_that_are_stranded_are_silent_and_new_ones_work(
    server: Server, relay: Relay, connect: Clients
) -> None:
    client = await connect(relay)
    await client.ask("hello")

    relay.strand()
    client.say("lost")
    assert await (await connect(relay)).ask("new") == "new"
    assert await client.receives_nothing()
    assert server.received == ["hello", "new"]

    relay.recover()
    assert await client.rest() == b""
    assert server.received == ["hello", "new"]


async def test_when_it_is_closed_both_ends_are_closed(
    server: Server, relay: Relay, connect: Clients
) -> None:
    client = await connect(relay)
    await client.ask("hello")
    await relay.close()
    assert await client.rest() == b""
    await eventually(lambda: server.open == 0)


async def test_after_it_is_closed_nothing_listens(server: Server) -> None:
    relay = Relay(server.endpoint)
    await relay.start()
    host, _, port = relay.endpoint.rpartition(":")
    await relay.close()
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection(host, int(port))


async def test_without_a_target_connections_end(server: Server, connect: Clients) -> None:
    with socket.socket() as no_client:
        no_client.bind(("127.0.0.1", 0))
        relay = Relay(f"127.0.0.1:{no_client.getsockname()[1]}")
        await relay.start()
        assert await (await connect(relay)).rest() == b""
        await relay.close()
    assert server.begun == 0


async def test_a_cut_ends_also_connections_to_a_target_that_says_nothing(
    deaf: str, connect: Clients
) -> None:
    relay = Relay(deaf)
    await relay.start()
    client = await connect(relay)
    assert await client.receives_nothing()
    ending = asyncio.create_task(client.rest())

    def is_cut() -> bool:
        relay.cut()  # again: it cannot be seen from here when it has begun to connect
        return ending.done()

    await eventually(is_cut)
    assert await ending == b""
    await relay.close()


async def test_it_closes_while_a_target_says_nothing(deaf: str, connect: Clients) -> None:
    relay = Relay(deaf)
    await relay.start()
    client = await connect(relay)
    assert await client.receives_nothing()
    async with asyncio.timeout(TIME_LIMIT):
        await relay.close()
    assert await client.rest() == b""


async def test_it_closes_while_connections_are_being_made(
    server: Server, connect: Clients
) -> None:
    for turns in range(12):
        relay = Relay(server.endpoint)
        await relay.start()
        client = await connect(relay)
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(TIME_LIMIT):
            await relay.close()
        assert await client.rest() == b""
