"""PoolConn: a connection on loan to a task."""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, NoReturn, Protocol

from gtcp import _core
from gtcp._address import Address, AddressLike, parse
from gtcp._errors import ClosedError
from gtcp._lease import give_up
from gtcp.aio._conn import Conn

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Self


class Lender(Protocol):
    """A pool, as far as its leases know it."""

    def _lend(self, lease: PoolConn, timeout: float | None = ...) -> Coroutine[object, object, PoolConn]: ...


Find = Callable[[Address, object, "str | None"], Lender]


class PoolConn(Conn):
    """A connection on loan from the shared pool of `addr` in the running loop; `close()` puts it back.

    It is taken by awaiting the object or by `async with`, which gives it back too. `timeout`: seconds to wait for a
    free connection and to dial, by default the pool's. Everything that `gtcp.PoolConn` promises: a connection goes back
    only if it is healthy, empty and in step, so one whose call was cancelled is closed; a send that finds a reused
    connection dead before a byte left is made on a new one.

    The object is dead after `close()`: its connection may be somebody else's by then.
    """

    __slots__ = ("_address", "_lender", "_timeout", "_tls")

    _lender: Lender | None

    def __init__(
        self,
        addr: AddressLike | Address,
        timeout: float | None = _core.UNSET,
        *,
        tls: ssl.SSLContext | bool | None = None,
        server_hostname: str | None = None,
    ) -> None:
        self._check_new()
        if timeout is not _core.UNSET:
            _core.to_deadline(timeout)
        self._lender = None
        self._address = parse(addr)
        self._tls = tls, server_hostname
        self._timeout = timeout

    def _opened(self) -> Coroutine[object, object, Self]:
        try:
            lender = self._lender
        except AttributeError:
            raise ClosedError("the connection was never opened") from None
        if lender is None:
            lender = _find(self._address, *self._tls)
        return lender._lend(self, self._timeout)  # type: ignore[return-value]

    @classmethod
    def from_socket(cls, sock: socket.socket) -> NoReturn:  # noqa: ARG003
        """TypeError: a pool dials its own connections."""
        raise TypeError("a PoolConn comes from a pool; use Conn.from_socket")

    def discard(self) -> None:
        """Ends the lease and closes the connection instead of putting it back. Idempotent."""
        self._discard()

    def _dropped(self) -> None:
        give_up(self)


def lease_of(lender: Lender, timeout: float | None) -> PoolConn:
    """A lease that is yet to be opened."""
    lease = PoolConn.__new__(PoolConn)
    lease._lender = lender
    lease._timeout = timeout
    return lease


_find: Find


def serve(find: Find) -> None:
    """`find(address, tls, server_hostname)` answers the running loop's shared pool."""
    global _find  # noqa: PLW0603
    _find = find


PoolConn.__module__ = "gtcp.aio"
