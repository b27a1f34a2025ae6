"""Server: accepts connections and runs a handler for each."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from gtcp import _core
from gtcp._address import Address, AddressLike
from gtcp._conn import Conn
from gtcp._limits import Limits
from gtcp._listen import Listening, Names
from gtcp._options import is_async
from gtcp._report import Report
from gtcp._service import Handler, Service
from gtcp._stats import ServerStats
from gtcp._workers import make_crew

if TYPE_CHECKING:
    import socket
    import ssl

    from typing_extensions import Self


class Server(Listening[Handler]):
    """A TCP server: `handler(conn)` runs in a thread or greenlet of its own for each connection.

    `address`: "host:port", ":port" for every interface, "" for any free port (see `get_listened_port`), "unix:///path".
    `name`: for `get_server`. `tls`: an ssl.SSLContext for servers. `concurrency`: "threads", or "greenlets" (Linux) for
    thousands of connections in one thread, where only gtcp's own waits let others run. `sock`: a listening socket to
    accept from instead of an address; it stays the caller's. `reuse_port`: others may listen on the same port.
    `stack_size`: bytes for each thread's stack.

    Limits, in seconds, None for no limit. `max_connections`: more wait in the backlog. `handshake_timeout`: for TLS.
    `first_byte_timeout`: until the first package, line or other unit is there. `idle_timeout`: how long a handler waits
    to receive a unit. `send_timeout`: how long one waits for a client that does not read. What is over ends the
    connection, within an eighth of the limit: the handler gets ClosedError. `backlog`: connections that may wait to be
    accepted.

    `on_connect(conn)` is called before TLS and handler; False refuses the connection. `on_close(conn, error)`: it has
    been closed; None after a normal end. `on_error(conn, error)`: what was logged; conn is None when accepting failed.

    The connection is closed when the handler returns, unless it was detached. An exception of the handler is logged
    and ends only its connection; the end of a connection that leaves the handler as `EOF` is the normal end.

    All methods may be called from any thread. In `with`, the server starts, and closes at the end.
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
        concurrency: Literal["threads", "greenlets"] = "threads",
        stack_size: int | None = None,
        gather_sends: bool = False,
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
        self._report = Report(on_connect, on_close, on_error)
        self._concurrency: Literal["threads", "greenlets"] = concurrency
        self._stack_size = stack_size
        make_crew(concurrency, stack_size)  # what is missing is said now
        self._gather_sends = gather_sends
        self.name = name
        self._starting = threading.Lock()
        self._closings = 0
        self._service: Service | None = None
        if name is not None:
            _names.register(name, self)

    def set_handler(self, handler: Handler) -> None:
        """The function that is called with each new Conn from now on. TypeError when it is none, or async."""
        if is_async(handler):
            raise TypeError(f"handler must be a plain function, nobody would await {handler!r}; see gtcp.aio.Server")
        super().set_handler(handler)

    # -- life

    def start(self) -> None:
        """Listens; when it returns, clients can connect.

        Raises RuntimeError when the server is running, ValueError without a handler, SocketError or ResolveError when
        the address cannot be used: the server is as before then.
        """
        self._start()

    def _start(self) -> Service:
        if not self._starting.acquire(blocking=False):
            raise RuntimeError("the server is running already")
        try:
            if self._service is not None:
                raise RuntimeError("the server is running already")
            if self._handler is None:
                raise ValueError("the server has no handler")
            closings = self._closings
            crew = make_crew(self._concurrency, self._stack_size)
            listener = self._listen(self._address)
            try:
                service = Service(self, listener, crew, self._report, self._gather_sends)
                service.start()
            except BaseException:
                listener.close()
                raise
            self._listened, self._service = listener.address, service
            if closings != self._closings:  # a signal handler or another thread was faster
                self.close()
            return service
        finally:
            self._starting.release()

    def run(self) -> None:
        """`start()`, then serves until `close()` or `shutdown()`; returns normally then.

        An exception in this thread, such as KeyboardInterrupt, closes the server and goes on.
        """
        service = self._start()
        try:
            service.closed.wait()
        finally:
            self.close()

    def close(self) -> None:
        """Stops listening and closes every connection, at once: handlers that wait get ClosedError. Idempotent.

        May be called from anywhere: another thread, a handler, a signal handler.
        """
        self._closings += 1
        service = self._service
        if service is not None:
            self._listened = None
            service.close()
            if self._service is service:
                self._service = None
        _names.unregister(self)

    def shutdown(self, timeout: float | None = None) -> int:
        """Stops listening, closes connections whose handlers wait for a client's next words, lets the others finish.

        After `timeout` seconds (None: as long as it takes) the rest is cut; answers how many those were. A handler
        finishes with the unit it has, and those that have come already; a receive that finds no more raises
        ClosedError. In a handler it does not wait for that one.
        """
        deadline = _core.to_deadline(timeout)
        service = self._service
        cut = 0
        if service is not None:
            self._listened = None
            cut = service.shutdown(deadline)
        self.close()
        return cut

    # -- what it does

    @property
    def connections(self) -> list[Conn]:
        """Those that are open now, from before their TLS handshake until their handler's end."""
        service = self._service
        return [] if service is None else service.connections()

    def stats(self) -> ServerStats:
        """The numbers of the server."""
        return self._report.stats(len(self.connections))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# -- servers by name

_names: Names[Server] = Names()


def get_server(name: str = "default") -> Server:
    """The server of this name; made, without address and handler, when there is none."""
    server = _names.get(name)
    return Server(name=name) if server is None else server


Server.__module__ = "gtcp"
