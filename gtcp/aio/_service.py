"""One run of a server: from the first connection to the end of the last handler."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from gtcp import _core
from gtcp._dial import is_over
from gtcp._errors import Error
from gtcp._listen import Listening
from gtcp._listener import Listener
from gtcp._report import Report
from gtcp._serving import Serving
from gtcp.aio._acceptor import Acceptor
from gtcp.aio._conn import Conn

if TYPE_CHECKING:
    import socket
    import ssl

Handler = Callable[[Conn], Awaitable[object]]

# How long handlers that have been cancelled keep their connections, for their last words, and how long the end waits.
_LAST_WORDS = 0.05
_FAREWELL = 1.0


class Service(Serving[Conn]):
    """The connections of a running server, in the loop that runs it."""

    def __init__(self, settings: Listening[Handler], listener: Listener, report: Report[Conn]) -> None:
        super().__init__(settings._limits, listener, report, Conn)
        self._settings = settings
        self._tasks: dict[asyncio.Task[None], Conn] = {}
        # Handlers that wait in `close` or `shutdown`, so nobody waits for them.
        self._spared: set[asyncio.Task[object]] = set()
        # Those that a `shutdown` has counted as cut.
        self._counted: set[asyncio.Task[None]] = set()
        self.closed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        # Who waits for the end of the other handlers looks again.
        self._news = self._loop.create_future()
        self.acceptor = Acceptor(listener, self, self._lost)
        self._closing: asyncio.Task[None] | None = None

    def check_loop(self) -> None:
        """The caller runs in the server's loop, or RuntimeError; after the end of that anybody may close it."""
        if not self._loop.is_closed() and asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("the server belongs to another event loop: only the one that started it may use it")

    def is_over(self) -> bool:
        """All handlers have ended."""
        return self.ending and not self._tasks

    # -- the end

    async def close(self) -> None:
        """Cancels the handlers, closes their connections and waits a moment for their ends; not for the caller's."""
        self.check_loop()
        self._stop_accepting()
        if self._loop.is_closed():
            self._let_go()
            return
        try:
            with self._sparing():
                others = {task: conn for task, conn in self._tasks.items() if task not in self._spared}
                for task in others:
                    task.cancel()
                # This ends those that swallow the cancellation, as `wait_for` can before Python 3.12.
                cutting = self._loop.call_later(_LAST_WORDS, _cut, list(others.values()))
                await self._ends(_core.to_deadline(_FAREWELL))
                cutting.cancel()
        finally:
            self.closed.set()

    async def shutdown(self, deadline: float | None) -> int:
        """Lets handlers that work finish, then cancels the rest; answers how many were cut, by whomever, meanwhile."""
        self.check_loop()
        before = self._report.tally["cut"]
        self._stop_accepting()
        self._drain()
        with self._sparing():
            if not self._loop.is_closed():
                await self._ends(deadline)
            left = self._tasks.keys() - self._spared
        self._report.tally.add("cut", len(left - self._counted))
        self._counted |= left
        await self.close()
        return self._report.tally["cut"] - before

    def _stop_accepting(self) -> None:
        if not self.ending:
            self.ending = True
            self.acceptor.stop()

    def _let_go(self) -> None:
        """The loop has ended, and the handlers with it."""
        for conn in self.connections():
            self._end(conn, asyncio.CancelledError())
        self._tasks.clear()  # lets the collector end them

    def _lost(self) -> None:
        """The socket is none to listen on any more."""
        self._settings._listened = None
        self._closing = self._loop.create_task(self.close())

    @contextlib.contextmanager
    def _sparing(self) -> Iterator[None]:
        """Nobody waits for the caller, if that is a handler."""
        task = asyncio.current_task()
        if task is None or task not in self._tasks or task in self._spared:
            yield
            return
        self._spared.add(task)
        self._tell()
        try:
            yield
        finally:
            self._spared.discard(task)

    def _busy(self) -> int:
        """How many handlers are waited for."""
        return len(self._tasks) - len(self._spared)

    async def _ends(self, deadline: float | None) -> None:
        """Waits until the other handlers have ended, or for the deadline."""
        while self._busy() and not is_over(deadline):
            if self._news.done():
                self._news = self._loop.create_future()
            await asyncio.wait([self._news], timeout=_core.remaining(deadline))

    def _tell(self) -> None:
        """Fewer handlers are waited for."""
        if not self._news.done():
            self._news.set_result(None)

    # -- connections

    def serve(self, sock: socket.socket, peer: object) -> None:
        """Takes a new connection on, in a callback of the loop."""
        conn = self._adopt(sock, peer)
        if conn is None:
            return
        task = self._loop.create_task(self._attend(conn))
        self._tasks[task] = conn
        task.add_done_callback(self._note_end)

    async def _attend(self, conn: Conn) -> None:
        """The task of a connection."""
        error: BaseException | None = None
        try:
            if await self._welcomes(conn):
                await self._handle(conn)
        except BaseException as raised:
            error = raised
            if isinstance(raised, (KeyboardInterrupt, SystemExit)) or _was_cancelled(raised):
                raise
            if not self._loop.is_closed():
                error = self._report.judge(conn, raised, ending=self.ending)  # nothing else ends the server
            elif isinstance(raised, GeneratorExit):  # the end of what waited there, and any other error comes of it
                raise
        finally:
            try:
                if error is None or isinstance(error, Exception):
                    for pause in self._until_arrived(conn):
                        await asyncio.sleep(pause)
                await conn.close()
            finally:
                self._end(conn, error)

    async def _welcomes(self, conn: Conn) -> bool:
        """Whether the connection is wanted, and has agreed on TLS."""
        if self._report.refuses(conn) or conn.closed:
            return False
        context = self._settings._tls
        return context is None or await self._agree_on_tls(conn, context)

    async def _agree_on_tls(self, conn: Conn, context: ssl.SSLContext) -> bool:
        self._agreeing.add(conn)
        try:
            if self.ending:
                return False
            await conn._tls_server(context, _core.to_deadline(self._limits.handshake_timeout))
        except (Error, OSError) as error:
            self._report.no_handshake(conn, error, ending=self.ending)
            return False
        finally:
            self._agreeing.discard(conn)
        return True

    async def _handle(self, conn: Conn) -> None:
        handler = self._settings._handler
        assert handler is not None
        self._connections[conn] = time.monotonic()
        answer = handler(conn)
        if not inspect.isawaitable(answer):
            raise TypeError(f"the handler must answer an awaitable, as `async def` does, not {type(answer).__name__}")
        await answer

    def _end(self, conn: Conn, error: BaseException | None) -> None:
        conn.close()  # type: ignore[unused-coroutine]  # which is done at once
        if conn not in self._connections:  # the loop ended before the handler, and this was told then
            return
        try:
            self._report.tell_close(conn, error)
        finally:
            self._connections.pop(conn, None)
            self.acceptor.made_room()

    def _note_end(self, task: asyncio.Task[None]) -> None:
        """The task of a connection has ended."""
        conn = self._tasks.pop(task)
        if conn in self._connections:  # cancelled before it began
            self._end(conn, asyncio.CancelledError())
        self._tell()
        if self.ending and not self._busy():  # the one who began the end may have been cancelled
            self.closed.set()


def _was_cancelled(error: BaseException) -> bool:
    """This task was, and not one that it waited for. Python 3.10 does not tell them apart."""
    if not isinstance(error, asyncio.CancelledError):
        return False
    task: Any = asyncio.current_task()
    return not hasattr(task, "cancelling") or task.cancelling() > 0


def _cut(conns: list[Conn]) -> None:
    for conn in conns:
        conn._cut("the server was closed")
