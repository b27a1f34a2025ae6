"""TCP connections, a connection pool, a server and a small package protocol, after GoFrame's gtcp."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

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
from gtcp._lease import PoolConn
from gtcp._listener import inherited_sockets
from gtcp._options import PkgOption, Retry
from gtcp._pool import Pool
from gtcp._serve import serve
from gtcp._server import Server, get_server
from gtcp._shared import get_pool, pools
from gtcp._stats import PoolStats, ServerStats
from gtcp._waiting import set_wait_function

if _TYPE_CHECKING:
    from gtcp._tls import CertificateError, TLSError, TLSInfo, TruncatedError, load_key_crt

__version__ = "0.1.0"

__all__ = [
    "EOF",
    "FREE_PORT_ADDRESS",
    "AbortedError",
    "Address",
    "BrokenError",
    "CertificateError",
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
    "ServerStats",
    "SocketError",
    "TLSError",
    "TLSInfo",
    "TimedOutError",
    "Timeout",
    "TruncatedError",
    "dial",
    "get_free_port",
    "get_free_ports",
    "get_pool",
    "get_server",
    "inherited_sockets",
    "load_key_crt",
    "pools",
    "send",
    "send_pkg",
    "send_pkg_with_timeout",
    "send_recv",
    "send_recv_pkg",
    "send_recv_pkg_with_timeout",
    "send_recv_with_timeout",
    "send_with_timeout",
    "serve",
    "set_wait_function",
]


def __getattr__(name: str) -> object:
    """The names of TLS load the ssl module when they are first asked for: plain TCP does without it."""
    if name in {"CertificateError", "TLSError", "TLSInfo", "TruncatedError", "load_key_crt"}:
        from gtcp import _tls

        return getattr(_tls, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
