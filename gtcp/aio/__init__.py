"""gtcp in an event loop: the same names as in `gtcp`, awaitable. Works on asyncio's loops and on uvloop."""

from gtcp.aio._conn import Conn, connect
from gtcp.aio._dial import dial
from gtcp.aio._funcs import (
    send,
    send_pkg,
    send_pkg_with_timeout,
    send_recv,
    send_recv_pkg,
    send_recv_pkg_with_timeout,
    send_recv_with_timeout,
    send_with_timeout,
)
from gtcp.aio._lease import PoolConn
from gtcp.aio._pool import Pool
from gtcp.aio._server import Server, get_server
from gtcp.aio._shared import get_pool, pools

__all__ = [
    "Conn",
    "Pool",
    "PoolConn",
    "Server",
    "connect",
    "dial",
    "get_pool",
    "get_server",
    "pools",
    "send",
    "send_pkg",
    "send_pkg_with_timeout",
    "send_recv",
    "send_recv_pkg",
    "send_recv_pkg_with_timeout",
    "send_recv_with_timeout",
    "send_with_timeout",
]
