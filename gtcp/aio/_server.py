"""Server: accepts connections and runs a handler for each in a task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from gtcp import _core
from gtcp._address import Address, AddressLike, of_socket
from gtcp._limits import Limits
from gtcp._listen import Listening, Names
from gtcp._report import Report
from gtcp._stats import ServerStats
from gtcp.aio import _dial
from gtcp.aio._conn import Conn
from gtcp.aio._service import Handler, Service

if TYPE_CHECKING:
    import socket
    import ssl

    from typing_extensions import Self

T = TypeVar("T")


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
        self._report = Report(on_connect, on_close, on_error, fatal=(KeyboardInterrupt, SystemExit))
        self.name = name
        self._closings = 0
        # The last one; its handlers may outlive its end by a moment.
        self._service: Service | None = None
        if name is not None:
            _names.register(name, self)

    # -- life

    async def start(self) -> None:
        """Listens; when it returns, clients can connect.

        Raises RuntimeError when the server is running, ValueError without a handler, SocketError or ResolveError when
        the address cannot be used: the server is as before then.
        """
        await self._start()

    async def _start(self) -> Service:
        self._check_idle()
        address, closings = self._address, self._closings
        if address.host:
            *_, name = (await _dial.resolve(address, None))[0]
            address = of_socket(name)
            self._check_idle()
        service = Service(self, self._listen(address), self._report)
        self._listened, self._service = service.acceptor.address, service
        if closings != self._closings:  # another task was faster
            await self.close()
        return service

    def _check_idle(self) -> None:
        if self._service is not None and not self._service.ending:
            raise RuntimeError("the server is running already")
        if self._handler is None:
            raise ValueError("the server has no handler")

    async def run(self) -> None:
        """`start()`, then serves until `close()` or `shutdown()`; returns normally then.

        When its task is cancelled, the server closes.
        """
        await self._serve_until_closed(await self._start())

    async def serve_forever(self) -> None:
        """Serves until `close()` or `shutdown()`; starts first if need be. When its task is cancelled, it closes."""
        service = self._service
        if service is None or service.ending:
            service = await self._start()
        await self._serve_until_closed(service)

    async def _serve_until_closed(self, service: Service) -> None:
        service.check_loop()
        try:
            await service.closed.wait()
        except BaseException:
            await self.close()
            raise
        _names.unregister(self)

    async def close(self) -> None:
        """Stops listening, cancels the handlers, closes their connections and waits for their ends. Idempotent.

        A handler that calls it goes on; so does one that has not ended a second after it was cancelled.
        """
        await self._stop(Service.close)

    async def shutdown(self, timeout: float | None = None) -> int:
        """Stops listening, closes connections whose handlers wait for a client's next words, lets the others finish.

        After `timeout` seconds (None: as long as it takes) the rest ends as by `close()`; answers how many those were.
        """
        deadline = _core.to_deadline(timeout)
        return await self._stop(lambda service: service.shutdown(deadline)) or 0

    async def _stop(self, end: Callable[[Service], Awaitable[T]]) -> T | None:
        service, ended = self._service, None
        if service is not None:
            service.check_loop()
        self._closings += 1
        if service is not None:
            self._listened = None
            ended = await end(service)
            if self._service is service and service.is_over():
                self._service = None
        _names.unregister(self)
        return ended

    # -- what it does

    @property
    def connections(self) -> list[Conn]:
        """Those that are open now, from before their TLS handshake until their handler's end."""
        service = self._service
        return [] if service is None else service.connections()

    def stats(self) -> ServerStats:
        """The numbers of the server."""
        return self._report.stats(len(self.connections))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


# -- servers by name

_names: Names[Server] = Names()


def get_server(name: str = "default") -> Server:
    """The server of this name; made, without address and handler, when there is none."""
    server = _names.get(name)
    return Server(name=name) if server is None else server


Server.__module__ = "gtcp.aio"
