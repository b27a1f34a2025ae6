"""Everything that a connection can do with the peer, as tables that the tests go through."""

from collections.abc import Callable
from typing import Any, NamedTuple

import gtcp
from support.peers import frame

Operation = Callable[[gtcp.Conn], Any]


class Receive(NamedTuple):
    """A way to receive: the call, a unit that it takes from the wire, what it makes of it."""

    call: Callable[[gtcp.Conn, float | None], Any]
    wire: bytes
    result: Any


def into(conn: gtcp.Conn, n: int, timeout: float | None) -> bytes:
    buffer = bytearray(100)
    return bytes(buffer[: conn.recv_into(buffer, n, timeout=timeout)])


# Those that need several bytes, so that a timeout or the peer's end can come in the middle.
UNITS: dict[str, Receive] = {
    "recv": Receive(lambda conn, t: conn.recv(5, timeout=t), b"hello", b"hello"),
    "recv_into": Receive(lambda conn, t: into(conn, 5, t), b"hello", b"hello"),
    "recv_line": Receive(lambda conn, t: conn.recv_line(timeout=t), b"hello\n", b"hello"),
    "recv_till": Receive(lambda conn, t: conn.recv_till(b"--", timeout=t), b"hello--", b"hello--"),
    "recv_pkg": Receive(lambda conn, t: conn.recv_pkg(timeout=t), frame(b"hello"), b"hello"),
    "recv_pkgs": Receive(
        lambda conn, t: conn.recv_pkgs(2, timeout=t), frame(b"hello") + frame(b"you"), [b"hello", b"you"]
    ),
    "lines": Receive(lambda conn, t: next(conn.lines(timeout=t)), b"hello\n", b"hello"),
    "packages": Receive(lambda conn, t: next(conn.packages(timeout=t)), frame(b"hello"), b"hello"),
}

# And those that take what comes.
RECEIVES: dict[str, Receive] = {
    **UNITS,
    "recv(0)": Receive(lambda conn, t: conn.recv(0, timeout=t), b"hello", b"hello"),
    "recv(-1)": Receive(lambda conn, t: conn.recv(timeout=t), b"hello", b"hello"),
    "recv_into(0)": Receive(lambda conn, t: into(conn, 0, t), b"hello", b"hello"),
    "recv_pkgs(-1)": Receive(lambda conn, t: conn.recv_pkgs(timeout=t), frame(b"hello"), [b"hello"]),
}

SENDS: dict[str, Callable[[gtcp.Conn, bytes, float | None], Any]] = {
    "send": lambda conn, data, t: conn.send(data, timeout=t),
    "send_pkg": lambda conn, data, t: conn.send_pkg(data, gtcp.PkgOption(4), timeout=t),
    "send_pkgs": lambda conn, data, t: conn.send_pkgs([data], gtcp.PkgOption(4), timeout=t),
}

EXCHANGES: dict[str, Callable[[gtcp.Conn, bytes, float | None], Any]] = {
    "send_recv": lambda conn, data, t: conn.send_recv(data, 5, timeout=t),
    "send_recv_pkg": lambda conn, data, t: conn.send_recv_pkg(data, gtcp.PkgOption(4), timeout=t),
    "send_recv_pkgs": lambda conn, data, t: conn.send_recv_pkgs([data], gtcp.PkgOption(4), timeout=t),
}

# Every one of them, with nothing to choose.
OPERATIONS: dict[str, Operation] = {
    **{name: lambda conn, call=each.call: call(conn, None) for name, each in RECEIVES.items()},
    **{name: lambda conn, call=call: call(conn, b"hello", None) for name, call in SENDS.items()},
    **{name: lambda conn, call=call: call(conn, b"hello", None) for name, call in EXCHANGES.items()},
}
