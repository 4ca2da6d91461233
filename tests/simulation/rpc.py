"""gRPC without sockets: the channels and servers of ``grpc.aio``, over the simulated network.

Only what our code uses, with gRPC's manners: a status ends a call once; a call to a process that was
killed ends with ``UNAVAILABLE`` as soon as that arrives; a silent peer is noticed by pings after
20 s and a bit; a deadline counts on both sides; a client that goes away cancels the handler.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
from tests.simulation.network import Network, Pipe
from tests.simulation.world import Process

PING_SECONDS = 20.0
PING_TIMEOUT = 2.0
REFUSED = "failed to connect to all addresses; connection refused"
RESET = "Connection reset by peer"
SILENT = "ping timeout"
Code = grpc.StatusCode


def _ignore(*_: object) -> None:
    pass


class Board:
    """Who listens where."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.servers: dict[str, SimServer] = {}
        self.on_request: Callable[[ClientEnd, str, str, bytes], None] = _ignore
        """Called for every message that a client sends: call, address, method, message."""
        self.on_answer: Callable[[ClientEnd, bytes], None] = _ignore
        """Called for every message that a server sends."""
        self.on_end: Callable[[ClientEnd, Code, str], None] = _ignore
        """Called when a handler ends its call with an error: call, code, details."""

    def find(self, address: str) -> SimServer | None:
        """Return the server at an address; None: nothing listens there."""
        server = self.servers.get(address)
        return server if server is not None and server.process.is_alive else None


class SimTransport:
    """How one process reaches others, and is reached. A ``Transport`` of nodes."""

    def __init__(self, board: Board, process: Process) -> None:
        self._board = board
        self._process = process

    def server(
        self, interceptors: Sequence[grpc.aio.ServerInterceptor] = ()
    ) -> grpc.aio.Server:
        # Who may call is not simulated: simulated callers have no certificates.
        return SimServer(self._board, self._process)

    def listen(self, server: grpc.aio.Server, address: str, credentials: object = None) -> str:
        assert isinstance(server, SimServer)
        server.address = address
        return address

    def end_connections(self, address: str) -> None:
        """Do nothing: a server that stops ends its calls with UNAVAILABLE."""

    def connect(
        self, address: str, credentials: object = None, options: Sequence[tuple[str, int]] = ()
    ) -> grpc.aio.Channel:
        return SimChannel(self._board, self._process, address)


# The server's end -------------------------------------------------------------------------------


class SimServer(grpc.aio.Server):
    """Serves what was added to it."""

    def __init__(self, board: Board, process: Process) -> None:
        self.process = process
        self.address = ""
        self.handlers: dict[str, Any] = {}
        self.calls: set[ServerEnd] = set()
        self.board = board
        self._ended = asyncio.Event()

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        pass

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        for name, handler in handlers.items():
            self.handlers[f"/{service}/{name}"] = handler

    def add_insecure_port(self, address: str) -> int:
        raise NotImplementedError

    def add_secure_port(self, address: str, credentials: object) -> int:
        raise NotImplementedError

    async def start(self) -> None:
        self.board.servers[self.address] = self

    async def stop(self, grace: float | None) -> None:
        if self.board.servers.get(self.address) is self:
            del self.board.servers[self.address]
        tasks = [call.task for call in self.calls]
        if tasks:
            await asyncio.wait(tasks, timeout=grace or 0)
        for call in list(self.calls):
            call.end(Code.UNAVAILABLE, "Server shutting down")
        self._ended.set()

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        await self._ended.wait()
        return True


class _Aborted(Exception):
    """The handler has ended its call."""


class ServerEnd:
    """A call as its handler sees it: a ``ServicerContext``."""

    def __init__(self, server: SimServer, client: ClientEnd, deadline: float | None) -> None:
        self._server = server
        self._client = client
        self._handler = server.handlers[client.path]
        self._requests: deque[bytes] = deque()
        self._half_closed = False
        self._more = asyncio.Event()
        self._pipe = Pipe(client.network, server.process, client.process)
        self._deadline = deadline
        self._is_over = False
        self.task: asyncio.Task[None] = server.process.loop.create_task(self._run())
        server.calls.add(self)
        loop = server.process.loop
        if deadline is not None:
            loop.call_at(deadline, self._give_up)
        else:
            loop.call_later(PING_SECONDS, self._ping)

    def receive(self, message: bytes) -> None:
        """Apply what the client said."""
        self._requests.append(message)
        self._more.set()

    def half_close(self) -> None:
        """Record that the client says no more."""
        self._half_closed = True
        self._more.set()

    def cancel(self) -> None:
        """Record that the client has gone."""
        if not self._is_over:
            self._is_over = True
            self._server.calls.discard(self)
            self.task.cancel()

    def end(self, code: Code, details: str, trailing: Any = ()) -> None:
        """End the call."""
        if self._is_over:
            return
        self.cancel()
        client = self._client
        self._pipe.send(lambda: client.finish(code, details, trailing))

    # What handlers call --------------------------------------------------------------------

    async def read(self) -> Any:
        while not self._requests:
            if self._half_closed:
                return grpc.aio.EOF
            self._more.clear()
            await self._more.wait()
        return self._handler.request_deserializer(self._requests.popleft())

    async def write(self, message: Any) -> None:
        if self._is_over:
            raise asyncio.CancelledError
        data, client = self._handler.response_serializer(message), self._client
        self._server.board.on_answer(client, data)
        self._pipe.send(lambda: client.receive(data))
        await asyncio.sleep(0)

    async def abort(self, code: Code, details: str = "", trailing: Any = ()) -> None:
        self._server.board.on_end(self._client, code, details)
        self.end_soon(code, details, trailing)
        raise _Aborted

    def end_soon(self, code: Code, details: str, trailing: Any = ()) -> None:
        """End the call from within its handler, which goes on to its own end."""
        if not self._is_over:
            self._is_over = True
            self._server.calls.discard(self)
            client = self._client
            self._pipe.send(lambda: client.finish(code, details, trailing))

    def time_remaining(self) -> float | None:
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - self._server.process.world.now)

    def auth_context(self) -> Mapping[str, Any]:
        return {}

    def peer(self) -> str:
        return f"unix:{self._client.process.name}"

    def invocation_metadata(self) -> Any:
        return self._client.metadata

    # How it runs ---------------------------------------------------------------------------

    async def _run(self) -> None:
        handler = self._handler
        try:
            if handler.request_streaming:
                await self._run_streaming(handler)
            else:
                request = await self.read()
                if handler.response_streaming:
                    await self._answer_with(handler.unary_stream(request, self))
                else:
                    await self.write(await handler.unary_unary(request, self))
        except _Aborted:
            pass
        except Exception as error:
            world = self._server.process.world
            world.errors.append(f"{self._server.process.name}: {self._client.path}: {error!r}")
            self.end_soon(Code.UNKNOWN, f"Unexpected {type(error)}: {error}")
        else:
            self.end_soon(Code.OK, "")

    async def _run_streaming(self, handler: Any) -> None:
        assert handler.response_streaming, "no call uploads here"
        await self._answer_with(handler.stream_stream(self._messages(), self))

    async def _answer_with(self, work: Any) -> None:
        if inspect.isawaitable(work):
            await work
            return
        async for message in work:
            await self.write(message)

    async def _messages(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    def _give_up(self) -> None:
        self.end(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def _ping(self, *, may_wait: bool = True) -> None:
        if self._is_over:
            return
        loop, client = self._server.process.loop, self._client
        if client.network.answers(self._server.process, client.process):
            loop.call_later(PING_SECONDS, self._ping)
        elif may_wait:
            loop.call_later(PING_TIMEOUT, lambda: self._ping(may_wait=False))
        else:
            self._pipe.broken = True
            self.cancel()


# The client's end -------------------------------------------------------------------------------


def _method_of(kind: str) -> Any:
    """Return the method of a channel that makes methods of one kind."""

    def method(
        channel: SimChannel,
        path: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool = False,
    ) -> Any:
        return channel._method(path, request_serializer, response_deserializer, kind)

    return method


class SimChannel(grpc.aio.Channel):
    """A channel to one address."""

    def __init__(self, board: Board, process: Process, address: str) -> None:
        self._board = board
        self._process = process
        self._address = address
        self._calls: set[ClientEnd] = set()
        self._closed = False

    def _method(self, path: str, serialize: Any, deserialize: Any, kind: str) -> Any:
        def call(
            request: Any = None,
            *,
            timeout: float | None = None,
            metadata: Any = (),
            copied: bool = False,
        ) -> ClientEnd:
            made = ClientEnd(
                self._board,
                self._process,
                self._address,
                path,
                serialize,
                deserialize,
                metadata,
            )
            made.is_copy = copied
            self._calls.add(made)
            made.add_done_callback(self._calls.discard)
            made.start(timeout)
            if kind in {"unary_unary", "unary_stream"}:
                made.say(request)
                made.half_close()
            return made

        return call

    unary_unary: Any = _method_of("unary_unary")
    unary_stream: Any = _method_of("unary_stream")
    stream_unary: Any = _method_of("stream_unary")
    stream_stream: Any = _method_of("stream_stream")

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        if self._closed:
            return grpc.ChannelConnectivity.SHUTDOWN
        server = self._board.find(self._address)
        if server is None:
            return grpc.ChannelConnectivity.TRANSIENT_FAILURE
        if not self._board.network.answers(self._process, server.process):
            return grpc.ChannelConnectivity.CONNECTING
        return grpc.ChannelConnectivity.READY

    async def wait_for_state_change(
        self, last_observed_state: grpc.ChannelConnectivity
    ) -> None:
        while self.get_state() is last_observed_state:
            await asyncio.sleep(0.1)

    async def channel_ready(self) -> None:
        while self.get_state() is not grpc.ChannelConnectivity.READY:
            await asyncio.sleep(0.1)

    async def close(self, grace: float | None = None) -> None:
        self._closed = True
        if grace:
            deadline = self._process.world.now + grace
            while self._calls and self._process.world.now < deadline:
                await asyncio.sleep(0.05)
        for call in list(self._calls):
            call.cancel()

    async def __aenter__(self) -> SimChannel:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()


class ClientEnd:
    """A call as its client sees it, of whichever kind."""

    def __init__(
        self,
        board: Board,
        process: Process,
        address: str,
        path: str,
        serialize: Any,
        deserialize: Any,
        metadata: Any,
    ) -> None:
        self.network = board.network
        self.process = process
        self.path = path
        self.metadata = metadata
        self.is_copy = False
        """It was sent before, by somebody else."""
        self.first_message: bytes | None = None
        self._board = board
        self._address = address
        self._serialize = serialize
        self._deserialize = deserialize
        self._server: SimServer | None = None
        self._peer: ServerEnd | None = None
        self._pipe: Pipe | None = None
        self._answers: deque[bytes] = deque()
        self._more = asyncio.Event()
        self._status: tuple[Code, str, Any] | None = None
        self._done: list[Callable[[Any], None]] = []

    def start(self, timeout: float | None) -> None:
        loop, now = self.process.loop, self.process.world.now
        deadline = None if timeout is None else now + timeout
        if deadline is not None:
            loop.call_at(deadline, self._give_up)
        server = self._server = self._board.find(self._address)
        if server is None:
            loop.call_later(
                self.network.delay(), lambda: self.finish(Code.UNAVAILABLE, REFUSED)
            )
            return
        self._pipe = Pipe(self.network, self.process, server.process)
        server.process.on_end.append(self._peer_died)
        self.process.on_end.append(self._died)

        def arrive() -> None:
            if self.path not in server.handlers:
                self.finish(Code.UNIMPLEMENTED, "Method not found!")
            else:
                self._peer = ServerEnd(server, self, deadline)

        self._pipe.send(arrive)
        if deadline is None:
            loop.call_later(PING_SECONDS, self._ping)

    def say(self, message: Any) -> None:
        """Send a message."""
        data = self._serialize(message)
        if not self.is_copy:
            self._board.on_request(self, self._address, self.path, data)
        self.first_message = self.first_message or data
        if self._pipe is not None:
            self._pipe.send(lambda: self._peer.receive(data) if self._peer else None)

    def half_close(self) -> None:
        """Say no more."""
        if self._pipe is not None:
            self._pipe.send(lambda: self._peer.half_close() if self._peer else None)

    def receive(self, data: bytes) -> None:
        """Apply what the server said."""
        if self._status is None:
            self._answers.append(data)
            self._more.set()

    def finish(self, code: Code, details: str, trailing: Any = ()) -> None:
        """Apply how the call ended. The first end counts."""
        if self._status is not None:
            return
        self._status = (code, details, trailing)
        self._more.set()
        if self._server is not None:
            self._forget()
        for callback in self._done:
            callback(self)

    # What clients call ---------------------------------------------------------------------

    def __await__(self) -> Any:
        return self._unary().__await__()

    async def _unary(self) -> Any:
        try:
            while self._status is None:
                self._more.clear()
                await self._more.wait()
        except asyncio.CancelledError:
            self.cancel()
            raise
        self._raise_if_failed()
        return self._deserialize(self._answers.popleft())

    async def read(self) -> Any:
        while not self._answers:
            if self._status is not None:
                self._raise_if_failed()
                return grpc.aio.EOF
            self._more.clear()
            await self._more.wait()
        return self._deserialize(self._answers.popleft())

    async def write(self, message: Any) -> None:
        if self._status is not None:
            self._raise_if_failed()
            raise asyncio.InvalidStateError("the call has ended")
        self.say(message)
        await asyncio.sleep(0)

    async def done_writing(self) -> None:
        self.half_close()

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    def cancel(self) -> bool:
        if self._status is not None:
            return False
        if self._pipe is not None:
            self._pipe.send(lambda: self._peer.cancel() if self._peer else None)
        self.finish(Code.CANCELLED, "Locally cancelled by application!")
        return True

    def done(self) -> bool:
        return self._status is not None

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._done.append(callback)

    async def code(self) -> Code:
        return self._ended()[0]

    async def details(self) -> str:
        return self._ended()[1]

    async def initial_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata(*self._ended()[2])

    # How it ends ---------------------------------------------------------------------------

    def _ended(self) -> tuple[Code, str, Any]:
        assert self._status is not None, "it has not ended"
        return self._status

    def _raise_if_failed(self) -> None:
        code, details, trailing = self._ended()
        if code is Code.CANCELLED:
            raise asyncio.CancelledError
        if code is not Code.OK:
            raise grpc.aio.AioRpcError(
                code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details
            )

    def _give_up(self) -> None:
        self.finish(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def _ping(self, *, may_wait: bool = True) -> None:
        if self._status is not None or self._server is None:
            return
        loop = self.process.loop
        if self.network.answers(self.process, self._server.process):
            loop.call_later(PING_SECONDS, self._ping)
        elif may_wait:
            loop.call_later(PING_TIMEOUT, lambda: self._ping(may_wait=False))
        else:
            self._break(SILENT)

    def _break(self, why: str) -> None:
        if self._pipe is not None:
            self._pipe.broken = True
        self.finish(Code.UNAVAILABLE, why)

    def _peer_died(self) -> None:
        """The kernel of the server's machine says so, if its packets get through."""
        assert self._server is not None
        way = self._server.process.name, self.process.name
        if self.network.hold(*way, self._peer_died):
            return
        self.process.world.call_in(
            self.network.delay(), lambda: self.process.call(lambda: self._break(RESET))
        )

    def _died(self) -> None:
        """The client was killed: its kernel notifies the server."""
        if self._status is None and self._server is not None:
            server = self._server.process
            if self.network.hold(self.process.name, server.name, self._died):
                return
            self.process.world.call_in(
                self.network.delay(),
                lambda: server.call(lambda: self._peer.cancel() if self._peer else None),
            )

    def _forget(self) -> None:
        assert self._server is not None
        for process, callback in (
            (self._server.process, self._peer_died),
            (self.process, self._died),
        ):
            if callback in process.on_end:
                process.on_end.remove(callback)
