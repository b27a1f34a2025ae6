"""Conn: one TCP connection in an event loop."""

from __future__ import annotations

import socket
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any

from gtcp import _core
from gtcp._address import Address, AddressLike, parse
from gtcp._conn import Handle, tls_context
from gtcp._errors import ClosedError, ConcurrencyError
from gtcp._options import PkgOption, Retry
from gtcp._resolve import LOCALHOST
from gtcp.aio import _dial

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Buffer, Self


class Conn(_core.AsyncConn, Handle):
    """A TCP connection to `addr`, opened by awaiting it or by `async with`, which closes it too.

    Arguments, errors and methods as those of `gtcp.Conn`; what can wait is awaitable, and can be made a task.

    A connection belongs to the loop that opened it. One task may receive while others send; senders queue up, a second
    receiver gets ConcurrencyError, and so does a second task that opens it. A cancelled receive loses no bytes and can
    be repeated; a cancelled send that has left in part breaks the connection; a cancelled exchange is owed its reply
    (see BrokenError).
    """

    __slots__ = ("_target",)

    def __init__(
        self,
        addr: AddressLike | Address,
        timeout: float | None = 30.0,
        *,
        tls: ssl.SSLContext | bool | None = None,
        server_hostname: str | None = None,
    ) -> None:
        self._check_new()
        _core.to_deadline(timeout)
        self._target = parse(addr), timeout, tls_context(tls, server_hostname), server_hostname

    def __await__(self) -> Generator[Any, Any, Self]:
        return self._opened().__await__()

    async def _opened(self) -> Self:
        if self._opening:
            raise ConcurrencyError("another task is opening this connection")
        self._check_new()
        if not hasattr(self, "_target"):
            raise ClosedError("the connection was never opened")
        address, timeout, context, server_hostname = self._target
        self._opening = True
        try:
            await self._open(address, _core.to_deadline(timeout), context, server_hostname)
        finally:
            self._opening = False
        return self

    async def _open(
        self,
        address: Address,
        deadline: float | None,
        context: ssl.SSLContext | None,
        server_hostname: str | None,
    ) -> None:
        """Dials, and agrees on TLS when there is a context."""
        self._take_socket(await _dial.connect(address, deadline))
        self._dialled = address.host
        if context is not None:
            try:
                await self._tls_client(context, server_hostname or address.host or LOCALHOST, deadline)
            except BaseException:
                self._discard()
                raise

    async def start_tls(
        self,
        tls: ssl.SSLContext | bool = True,
        *,
        server_hostname: str | None = None,
        server_side: bool = False,
        timeout: float | None = 30.0,
    ) -> None:
        """Goes on in TLS; arguments and errors as those of `gtcp.Conn.start_tls`."""
        from gtcp import _tls

        deadline = _core.to_deadline(timeout)
        if server_side:
            await self._tls_server(_tls.server_context(tls), deadline)
        else:
            await self._tls_client(_tls.client_context(tls), self._name_for_tls(server_hostname), deadline)

    async def _tls_client(self, context: ssl.SSLContext, host: str, deadline: float | None) -> None:
        from gtcp import _tls

        peer = _tls.peer_of(self, context, host)
        _tls.remember(peer, await self._start_tls(*_tls.client_session(peer, context, host), deadline))

    async def _tls_server(self, context: ssl.SSLContext, deadline: float | None) -> None:
        from gtcp import _tls

        await self._start_tls(*_tls.server_session(context), deadline)

    # -- the forms of the original with a timeout in front

    def send_with_timeout(
        self, data: Buffer, timeout: float | None, retry: Retry | None = None
    ) -> Coroutine[object, None, None]:
        """`send(data, retry, timeout=timeout)`."""
        return self.send(data, retry, timeout=timeout)

    def recv_with_timeout(
        self, length: int, timeout: float | None, retry: Retry | None = None
    ) -> Coroutine[object, None, bytes]:
        """`recv(length, retry, timeout=timeout)`."""
        return self.recv(length, retry, timeout=timeout)

    def send_recv_with_timeout(
        self, data: Buffer, length: int, timeout: float | None, retry: Retry | None = None
    ) -> Coroutine[object, None, bytes]:
        """`send_recv(data, length, retry, timeout=timeout)`: the timeout is for both together."""
        return self.send_recv(data, length, retry, timeout=timeout)

    def send_pkg_with_timeout(
        self, data: Buffer, timeout: float | None, option: PkgOption | None = None
    ) -> Coroutine[object, None, None]:
        """`send_pkg(data, option, timeout=timeout)`."""
        return self.send_pkg(data, option, timeout=timeout)

    def recv_pkg_with_timeout(
        self, timeout: float | None, option: PkgOption | None = None
    ) -> Coroutine[object, None, bytes]:
        """`recv_pkg(option, timeout=timeout)`."""
        return self.recv_pkg(option, timeout=timeout)

    def send_recv_pkg_with_timeout(
        self, data: Buffer, timeout: float | None, option: PkgOption | None = None
    ) -> Coroutine[object, None, bytes]:
        """`send_recv_pkg(data, option, timeout=timeout)`: the timeout is for both together."""
        return self.send_recv_pkg(data, option, timeout=timeout)

    def detach(self) -> socket.socket:
        """Gives the connection away as a non-blocking socket; else as `gtcp.Conn.detach`."""
        sock = socket.socket(fileno=self._detach())
        sock.setblocking(False)
        return sock


def connect(
    addr: AddressLike | Address,
    timeout: float | None = 30.0,
    *,
    tls: ssl.SSLContext | bool | None = None,
    server_hostname: str | None = None,
) -> Conn:
    """A connection to be awaited or to be entered by `async with`; arguments as those of `Conn`."""
    return Conn(addr, timeout, tls=tls, server_hostname=server_hostname)


Conn.__module__ = "gtcp.aio"
