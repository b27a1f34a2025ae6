"""PoolConn: a connection on loan."""

from __future__ import annotations

import socket
import sys
import warnings
from typing import TYPE_CHECKING, NoReturn

from gtcp import _core
from gtcp._conn import Conn, Handle

if TYPE_CHECKING:
    import ssl

    from gtcp._address import Address, AddressLike


class PoolConn(Conn):
    """A connection on loan from the shared pool of `addr`; `close()` puts it back.

    `timeout`: seconds to wait for a free connection and to dial, by default the pool's. Everything that Conn can do. A
    connection goes back only if it is healthy, empty and in step; else `close()` closes it, as does `with` when it is
    left by an exception. A send that finds a reused connection dead before a byte left is made on a new one.

    The object is dead after `close()`: its connection may be somebody else's by then. One thread should use a lease.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        def __init__(
            self,
            addr: AddressLike | Address,
            timeout: float | None = ...,
            *,
            tls: ssl.SSLContext | bool | None = None,
            server_hostname: str | None = None,
        ) -> None: ...

    else:
        __init__ = _core.open_lease  # no Python frame on the way to a connection

    @classmethod
    def from_socket(cls, sock: socket.socket) -> NoReturn:  # noqa: ARG003
        """TypeError: a pool dials its own connections."""
        raise TypeError("a PoolConn comes from a pool; use Conn.from_socket")

    def discard(self) -> None:
        """Ends the lease and closes the connection instead of putting it back. Idempotent."""
        self._discard()

    def _dropped(self) -> None:
        give_up(self)


def give_up(lease: Handle) -> None:
    """Nobody holds the lease any more: says so, and frees its place in the pool."""
    try:
        if not sys.is_finalizing():
            warnings.warn(f"lease not closed: {lease!r}", ResourceWarning, source=lease, stacklevel=3)
    finally:
        lease._leak()


PoolConn.__module__ = "gtcp"
