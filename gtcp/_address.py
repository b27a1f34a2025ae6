"""Addresses: what users write, what the socket module wants, what people read."""

from __future__ import annotations

import os
import socket

TYPE_CHECKING = False  # as type checkers know it, without the import of typing
if TYPE_CHECKING:
    from typing import NoReturn

FREE_PORT_ADDRESS = ":0"

AddressLike = str | tuple[str, int]

_PORT_DIGITS = 5
_NOT_IN_HOST = frozenset(map(chr, range(0x21))) | frozenset("\x7f/\\[]@?#")
_MAX_HOST = 253
_MAX_LABEL = 63
_UNIX = "unix://"
# What fits into sockaddr_un beside the final zero: 108 bytes on Linux, 104 elsewhere.
_MAX_PATH = 103


class Address:
    """One end of a connection: `host` (empty for every interface) and `port`; `str()` gives "host:port".

    A Unix socket has a `path` instead (empty for the end that has no name); `str()` gives "unix:///path". Immutable.
    """

    # By hand: dataclasses would double the time that `import gtcp` takes.
    __slots__ = __match_args__ = ("host", "port", "path")

    host: str
    port: int
    path: str | None

    def __init__(self, host: str, port: int, path: str | None = None) -> None:
        for name, value in zip(self.__slots__, (host, port, path), strict=True):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"an Address does not change: {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"an Address does not change: {name}")

    def _fields(self) -> tuple[str, int, str | None]:
        return self.host, self.port, self.path

    def __eq__(self, other: object) -> bool:
        return self._fields() == other._fields() if isinstance(other, Address) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._fields())

    def __reduce__(self) -> tuple[type[Address], tuple[str, int, str | None]]:
        return Address, self._fields()

    def __repr__(self) -> str:
        return f"Address(host={self.host!r}, port={self.port!r}, path={self.path!r})"

    def __str__(self) -> str:
        if self.path is not None:
            return f"{_UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Address.__module__ = "gtcp"


def parse(addr: AddressLike | Address, *, listening: bool = False) -> Address:
    """Reads "host:port", "[ipv6]:port", ":port", (host, port) or "unix:///path". ValueError or TypeError says why not.

    Port 0 (any free one) and, for an empty string, no port at all are only for listening.
    """
    if isinstance(addr, Address):
        if addr.path is not None:
            return _unix(addr.path)
        host, port = addr.host, addr.port
    elif isinstance(addr, tuple):
        parts: tuple[object, ...] = addr
        if len(parts) != 2 or not isinstance(parts[0], str):
            raise TypeError(f"an address tuple must be (host, port), got {addr!r:.200}")
        host, port = addr
        if isinstance(port, bool) or not isinstance(port, int):
            raise TypeError(f"a port must be an int, not {type(port).__name__}")
    elif isinstance(addr, str):
        if addr.startswith(_UNIX):
            return _unix(addr[len(_UNIX) :])
        host, port = _split(addr or (FREE_PORT_ADDRESS if listening else ""), addr)
    else:
        raise TypeError(f"an address must be a str or a (host, port) tuple, not {type(addr).__name__}")
    if not (0 if listening else 1) <= port <= 65535:
        raise ValueError(f"the port must be from {0 if listening else 1} to 65535, got {port}")
    return Address(check_host(host), port)


def _split(text: str, addr: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    # int() would also take "8_0", " 80", "+80" and digits of other scripts.
    if not colon or not (port.isascii() and port.isdigit() and len(port) <= _PORT_DIGITS):
        raise ValueError(f"an address must be 'host:port' with a port of 1 to 5 digits, got {addr!r:.200}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise ValueError(f"only IPv6 addresses stand in brackets, got {addr!r:.200}")
    elif ":" in host:
        raise ValueError(f"an IPv6 address must stand in brackets, as [::1]:80, got {addr!r:.200}")
    return host, int(port)


def check_host(host: str) -> str:
    """The host in ASCII, or ValueError for what can be no name and no IP address."""
    if len(host) > _MAX_HOST:
        raise ValueError(f"a host name has at most {_MAX_HOST} characters, got {len(host)}")
    if not _NOT_IN_HOST.isdisjoint(host):
        raise ValueError(f"a host name cannot contain control characters, spaces or delimiters, got {host!r}")
    labels = [] if ":" in host else host.split(".")
    if "" in labels[:-1] or any(len(label) > _MAX_LABEL for label in labels):
        raise ValueError(f"a label of a host name has from 1 to {_MAX_LABEL} characters, got {host!r}")
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise ValueError(f"{host!r} is not a host name: {error}") from None
    return host


def _unix(path: str) -> Address:
    if not path.startswith(("/", "@")) or len(path) == 1:
        raise ValueError(f"a Unix address must be 'unix:///path' or 'unix://@abstract', got {_UNIX + path!r:.200}")
    if "\0" in path:
        raise ValueError(f"a path cannot contain a zero, got {path!r:.200}")
    if len(os.fsencode(path)) > _MAX_PATH:
        raise ValueError(f"the path of a Unix socket has at most {_MAX_PATH} bytes, got {path!r:.200}")
    return Address("", 0, path)


def unix_name(path: str) -> str:
    """What the socket module wants for the path: an abstract name begins with a zero."""
    return "\0" + path[1:] if path.startswith("@") else path


def of_socket(name: object) -> Address:
    """The Address of what getsockname() or getpeername() gave."""
    if isinstance(name, tuple):
        host, port = name[0], name[1]
        return Address(host[7:] if host.startswith("::ffff:") and "." in host else host, port)
    if isinstance(name, str):
        return Address("", 0, name)
    if isinstance(name, bytes):
        return Address("", 0, os.fsdecode(name).replace("\0", "@", 1))
    return Address("", 0)


def get_free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses now; better: listen on ":0" and ask `get_listened_port()`."""
    return get_free_ports(1)[0]


def get_free_ports(count: int) -> list[int]:
    """So many different ports of 127.0.0.1 that nobody uses now. ValueError below 0, OSError when they run out."""
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"count must be an int, not {type(count).__name__}")
    if count < 0:
        raise ValueError(f"count must not be negative, got {count}")
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = socket.socket()
            sockets.append(sock)  # all stay open until the last is found, so they differ
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()
