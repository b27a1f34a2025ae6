"""The types of what a pool of an event loop can be told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from gtcp._pooloptions import CommonOptions

if TYPE_CHECKING:
    import socket

    from gtcp._address import Address
    from gtcp.aio._conn import Conn
    from gtcp.aio._lease import PoolConn

Check = Callable[["PoolConn"], object]
"""Answers False, or an awaitable of that, when the connection is to be replaced."""
Dial = Callable[["Address", "float | None"], "socket.socket | Conn | Awaitable[socket.socket | Conn]"]


class PoolOptions(CommonOptions, total=False):
    """What Pool takes beside the address."""

    check: bool | Check
    dial: Dial | None
    on_connect: Callable[[Conn], object] | None
    on_acquire: Callable[[PoolConn], object] | None
    on_release: Callable[[PoolConn], object] | None
    on_close: Callable[[Conn, str], object] | None
