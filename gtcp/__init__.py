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

_TYPE_CHECKING = False  # as type checkers know it, without the import of typing
if _TYPE_CHECKING:
    from gtcp._greenlets import run, sleep, spawn
    from gtcp._handlers import pkg_handler
    from gtcp._lease import PoolConn
    from gtcp._listener import inherited_sockets
    from gtcp._options import PkgOption, Retry
    from gtcp._pool import Pool
    from gtcp._serve import serve
    from gtcp._server import Server, get_server
    from gtcp._shared import get_pool, pools
    from gtcp._stats import PoolStats, ServerStats
    from gtcp._tls import CertificateError, TLSError, TLSInfo, TruncatedError, load_key_crt
    from gtcp._waiting import set_wait_function

# What not every client needs is loaded when it is first asked for, each module with these names.
_LATER = {
    "_greenlets": ("run", "sleep", "spawn"),
    "_handlers": ("pkg_handler",),
    "_listener": ("inherited_sockets",),
    "_options": ("PkgOption", "Retry"),
    "_pool": ("Pool", "PoolConn"),
    "_serve": ("serve",),
    "_server": ("Server", "get_server"),
    "_shared": ("get_pool", "pools"),
    "_stats": ("PoolStats", "ServerStats"),
    "_tls": ("CertificateError", "TLSError", "TLSInfo", "TruncatedError", "load_key_crt"),
    "_waiting": ("set_wait_function",),
}

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
    "pkg_handler",
    "pools",
    "run",
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
    "sleep",
    "spawn",
]


def __getattr__(name: str) -> object:
    """Loads a name of `_LATER`.

    Before the object exists: a pool or server that wants to log that descriptors have run out could load nothing then.
    """
    from importlib import import_module

    if name in _LATER["_pool"]:
        import_module("gtcp._shared")  # which tells the core where PoolConn(addr) finds its pool
    for module, names in _LATER.items():
        if name in names:
            value: object = getattr(import_module(f"gtcp.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
