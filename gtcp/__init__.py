"""TCP connections, a connection pool, a server and a small package protocol, after GoFrame's gtcp."""

from gtcp._address import FREE_PORT_ADDRESS, Address, get_free_port, get_free_ports
from gtcp._conn import Conn
from gtcp._dial import dial
from gtcp._errors import (
    EOF,
    AbortedError,
    BrokenError,
    ClosedError,
    ConcurrencyError,
    DeniedError,
    Error,
    LimitError,
    PipeError,
    PoolClosed,
    PoolTimeout,
    RefusedError,
    ResetError,
    ResolveError,
    SocketError,
    TimedOutError,
    Timeout,
)
from gtcp._funcs import (
    send,
    send_pkg,
    send_pkg_with_timeout,
    send_recv,
    send_recv_pkg,
    send_recv_pkg_with_timeout,
    send_recv_with_timeout,
    send_with_timeout,
)
from gtcp._options import PkgOption, Retry
from gtcp._pool import Pool, PoolConn, PoolStats, get_pool
from gtcp._server import Server, get_server

__version__ = "0.1.0"

__all__ = [
    "EOF",
    "FREE_PORT_ADDRESS",
    "AbortedError",
    "Address",
    "BrokenError",
    "ClosedError",
    "ConcurrencyError",
    "Conn",
    "DeniedError",
    "Error",
    "LimitError",
    "PipeError",
    "PkgOption",
    "Pool",
    "PoolClosed",
    "PoolConn",
    "PoolStats",
    "PoolTimeout",
    "RefusedError",
    "ResetError",
    "ResolveError",
    "Retry",
    "Server",
    "SocketError",
    "TimedOutError",
    "Timeout",
    "dial",
    "get_free_port",
    "get_free_ports",
    "get_pool",
    "get_server",
    "send",
    "send_pkg",
    "send_pkg_with_timeout",
    "send_recv",
    "send_recv_pkg",
    "send_recv_pkg_with_timeout",
    "send_recv_with_timeout",
    "send_with_timeout",
]
