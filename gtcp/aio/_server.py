"""Server: accepts connections and runs a handler for each in a task."""

from __future__ import annotations

import asyncio
import inspect
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING

from gtcp import _core
from gtcp._address import Address, AddressLike, of_socket
from gtcp._errors import Error
from gtcp._limits import Limits, Patience
from gtcp._listen import Listening, Names
from gtcp._listener import CAPACITY, FATAL, Listener, longer
from gtcp._report import Report
from gtcp._stats import ServerStats
from gtcp.aio import _dial
from gtcp.aio._conn import Conn

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Self

Handler = Callable[[Conn], Awaitable[object]]

logger = logging.getLogger("gtcp")

# Connections accepted in a row before the loop serves those that are there.
_AT_ONCE = 64


class Server(Listening[Handler]):
    """A TCP server: `async def handler(conn)` runs in a task of its own for each connection.

    Arguments, limits and callbacks as those of `gtcp.Server`; the callbacks are plain functions, called in the loop.

    The connection is closed when the handler returns, unless it was detached. An exception of the handler is logged and
    ends only its connection; the end of a connection that leaves the handler as `EOF` is the normal end.

    A server belongs to the loop that started it. In `async with`, it starts, and closes at the end.
    """

    def __init__(
        self,
        address: AddressLike | Address = "",
        handler: Handler | None = None,
        name: str | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        sock: socket.socket | None = None,
        reuse_port: bool = False,
        max_connections: int | None = None,
        handshake_timeout: float | None = 10.0,
        first_byte_timeout: float | None = None,
        idle_timeout: float | None = None,
        send_timeout: float | None = None,
        backlog: int = 1024,
        on_connect: Callable[[Conn], object] | None = None,
        on_close: Callable[[Conn, BaseException | None], object] | None = None,
        on_error: Callable[[Conn | None, BaseException], object] | None = None,
    ) -> None:
        limits = Limits(max_connections, handshake_timeout, first_byte_timeout, idle_timeout, send_timeout, backlog)
        super().__init__(address, handler, tls, limits, sock, reuse_port)
        if any(map(inspect.iscoroutinefunction, (on_connect, on_close, on_error))):
            raise TypeError("on_connect, on_close and on_error must be plain functions: nobody would await them")
        self._report = Report(on_connect, on_close, on_error)
        self.name = name
        self._acceptor: _Acceptor | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        # Each with the moment its handler began, None before.
        self._connections: dict[Conn, float | None] = {}
        self._patience = Patience(limits)
        self._stopped = asyncio.Event()
        if name is not None:
            _names.register(name, self)

    # -- life

    async def start(self) -> None:
        """Listens; when it returns, clients can connect.

        Raises RuntimeError when the server is running, ValueError without a handler, SocketError or ResolveError when
        the address cannot be used: the server is as before then.
        """
        self._check_idle()
        address = self._address
        if address.host:
            *_, name = (await _dial.resolve(address, None))[0]
            address = of_socket(name)
            self._check_idle()
        self._stopped = asyncio.Event()
        self._acceptor = _Acceptor(self._listen(address), self._serve, self._has_room, self._report)
        self._listened = self._acceptor.listener.address
        if self._patience.interval is not None:
            self._acceptor.repeat(self._patience.interval, self._look)

    def _check_idle(self) -> None:
        if self._acceptor is not None:
            raise RuntimeError("the server is running already")
        if self._handler is None:
            raise ValueError("the server has no handler")

    async def run(self) -> None:
        """`start()`, then serves until `close()` or `shutdown()`; returns normally then.

        When its task is cancelled, the server closes.
        """
        await self.start()
        await self.serve_forever()

    async def serve_forever(self) -> None:
        """Serves until `close()` or `shutdown()`; starts first if need be. When its task is cancelled, it closes."""
        if self._acceptor is None:
            await self.start()
        try:
            await self._stopped.wait()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stops listening, cancels the handlers and waits for their ends, which close their connections. Idempotent.

        A handler that calls it goes on.
        """
        self._stop_listening()
        for task in self._others():
            task.cancel()
        await self._ends(None)
        self._stopped.set()
        _names.unregister(self)

    async def shutdown(self, timeout: float | None = None) -> int:
        """Stops listening, closes connections whose handlers wait for a client's next words, lets the others finish.

        After `timeout` seconds (None: as long as it takes) the rest is cancelled; answers how many those were.
        """
        deadline = _core.to_deadline(timeout)
        self._stop_listening()
        for conn in self.connections:
            conn._drain()
        await self._ends(deadline)
        cut = len(self._others())
        self._report.tally.add("cut", cut)
        await self.close()
        return cut

    def _stop_listening(self) -> None:
        acceptor, self._acceptor, self._listened = self._acceptor, None, None
        if acceptor is not None:
            acceptor.stop()

    def _others(self) -> set[asyncio.Task[None]]:
        """The tasks of the handlers, but not the caller's."""
        return self._tasks - {asyncio.current_task()}

    async def _ends(self, deadline: float | None) -> None:
        """Waits until the other handlers have ended, or for the deadline."""
        while (tasks := self._others()) and (deadline is None or _core.remaining(deadline)):
            await asyncio.wait(tasks, timeout=_core.remaining(deadline))

    # -- connections

    @property
    def connections(self) -> list[Conn]:
        """Those that are open now, from before their TLS handshake until their handler's end."""
        return list(self._connections)

    def _has_room(self) -> bool:
        most = self._limits.max_connections
        return most is None or len(self._connections) < most

    def _look(self) -> None:
        """Ends the connections that kept their handlers waiting for too long."""
        for conn, limit in self._patience.overdue(self._connections.items(), time.monotonic()):
            if conn._cut(f"{limit} of {getattr(self._limits, limit):g} s"):
                self._report.tally.add(limit)

    def stats(self) -> ServerStats:
        """The numbers of the server."""
        return self._report.stats(len(self._connections))

    def _serve(self, sock: socket.socket) -> None:
        """Takes a new connection on, in a callback of the loop."""
        self._report.tally.add("accepted")
        try:
            conn = Conn.from_socket(sock)
        except OSError:
            sock.close()  # gone already
            return
        self._connections[conn] = None
        task = asyncio.get_running_loop().create_task(self._handle(conn))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, conn: Conn) -> None:
        handler = self._handler
        assert handler is not None
        error: BaseException | None = None
        try:
            if not self._report.refuses(conn) and (self._tls is None or await self._agree_on_tls(conn, self._tls)):
                self._connections[conn] = time.monotonic()
                await handler(conn)
        except Exception as raised:  # noqa: BLE001 (nothing a handler raises ends the server)
            error = self._report.judge(conn, raised, ending=self._acceptor is None)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._connections.pop(conn, None)
            if self._acceptor is not None:
                self._acceptor.made_room()
            try:
                await conn.close()
            finally:
                self._report.tell_close(conn, error)

    async def _agree_on_tls(self, conn: Conn, context: ssl.SSLContext) -> bool:
        """The handshake, in the handler's task: nobody else waits for it."""
        try:
            await conn._tls_server(context, _core.to_deadline(self._limits.handshake_timeout))
        except (Error, OSError) as error:
            self._report.no_handshake(conn, error, ending=self._acceptor is None)
            return False
        return True

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class _Acceptor:
    """The listening socket in its loop."""

    def __init__(
        self,
        listener: Listener,
        serve: Callable[[socket.socket], None],
        has_room: Callable[[], bool],
        report: Report[Conn],
    ) -> None:
        self.listener = listener
        self._listener = listener.socket
        self._serve = serve
        self._has_room = has_room
        self._report = report
        self._full = False
        self._timer: asyncio.TimerHandle | None = None
        self._back_off = 0.0
        self._pause: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._listener, self._accept)

    def repeat(self, interval: float, look: Callable[[], None]) -> None:
        """Calls `look` every so many seconds, until it is stopped."""

        def again() -> None:
            look()
            self.repeat(interval, look)

        self._timer = self._loop.call_later(interval, again)

    def made_room(self) -> None:
        """A connection has ended."""
        if self._full:
            self._full = False
            self._loop.add_reader(self._listener, self._accept)

    def stop(self) -> None:
        """Ends the listening."""
        for timer in (self._pause, self._timer):
            if timer is not None:
                timer.cancel()
        self._loop.remove_reader(self._listener)
        self.listener.close()

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if not self._has_room():
                self._full = True
                self._loop.remove_reader(self._listener)
                return
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if not self._survives(error):
                    return
            else:
                self._back_off = 0.0
                self._serve(sock)

    def _survives(self, error: OSError) -> bool:
        """Whether to go on accepting at once: most errors belong to the connection that was not accepted."""
        if error.errno in FATAL:
            logger.error("listening on %s ended: %s", self.listener.address, error)
            self._report.tell_error(None, error)
            self._loop.remove_reader(self._listener)
        elif error.errno in CAPACITY:
            if self._back_off == 0.0:
                logger.error("cannot accept connections on %s for now: %s", self.listener.address, error)
                self._report.tell_error(None, error)
            self._back_off = longer(self._back_off)
            self._loop.remove_reader(self._listener)
            self._pause = self._loop.call_later(self._back_off, self._resume)
        else:
            return True
        return False

    def _resume(self) -> None:
        self._loop.add_reader(self._listener, self._accept)


# -- servers by name

_names: Names[Server] = Names()


def get_server(name: str = "default") -> Server:
    """The server of this name; made, without address and handler, when there is none."""
    server = _names.get(name)
    return Server(name=name) if server is None else server


Server.__module__ = "gtcp.aio"
