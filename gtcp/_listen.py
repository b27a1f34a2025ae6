"""What every server shares: its settings, its listening socket, what the errors of accept mean."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from gtcp import _core
from gtcp._address import Address, AddressLike, parse
from gtcp._dial import resolve
from gtcp._errors import BY_ERRNO, SocketError

if TYPE_CHECKING:
    import ssl
    from os import PathLike

HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])

# Errors of accept(2) that end the listening; all others belong to the connection that was not accepted,
# or pass when descriptors or memory become free.
FATAL = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP, errno.EFAULT}
CAPACITY = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_BACK_OFF_FIRST = 0.005
_BACK_OFF_MOST = 0.5


def longer(back_off: float) -> float:
    """The next wait, in seconds, after an error that passes when descriptors or memory become free."""
    return min(max(2 * back_off, _BACK_OFF_FIRST), _BACK_OFF_MOST)


class Listening(Generic[HandlerT]):
    """The settings of a server."""

    def __init__(
        self,
        address: AddressLike | Address,
        handler: HandlerT | None,
        tls: ssl.SSLContext | None,
        handshake_timeout: float | None,
        backlog: int,
    ) -> None:
        self.set_address(address)
        self._tls: ssl.SSLContext | None = None
        self._tls_files: tuple[str | PathLike[str], str | PathLike[str]] | None = None
        if tls is not None:
            self.set_tls_config(tls)
        self._handshake_timeout = handshake_timeout
        _core.to_deadline(handshake_timeout)
        self._handler: HandlerT | None = None
        if handler is not None:
            self.set_handler(handler)
        self._backlog = backlog
        self._listened: Address | None = None

    def set_address(self, address: AddressLike | Address) -> None:
        """Where to listen from the next `start` on. ValueError or TypeError for a bad address."""
        self._address = parse(address, listening=True)
        self._address_given = address

    def get_address(self) -> AddressLike | Address:
        """What `set_address` was given."""
        return self._address_given

    def set_handler(self, handler: HandlerT) -> None:
        """The function that is called with each new Conn from now on. TypeError when it is none."""
        if not callable(handler):
            raise TypeError(f"handler must be callable, got {handler!r}")
        self._handler = handler

    def set_tls_config(self, config: ssl.SSLContext) -> None:
        """TLS by this context for the connections accepted from now on. TypeError or ValueError for anything else."""
        from gtcp import _tls

        self._tls, self._tls_files = _tls.server_context(config), None

    def set_tls_key_crt(self, crt_file: str | PathLike[str], key_file: str | PathLike[str]) -> None:
        """TLS with a certificate and its key, PEM files, for the connections accepted from now on.

        OSError when a file cannot be read, TLSError when its content is wrong: the server is as before then.
        """
        from gtcp import _tls

        self._tls = _tls.load_key_crt(crt_file, key_file, server_side=True)
        self._tls_files = crt_file, key_file

    def reload_tls(self) -> None:
        """Reads the files of `set_tls_key_crt` again, for the connections accepted from now on.

        Those that are open go on. RuntimeError when the server has no files to read; errors as there.
        """
        if self._tls_files is None:
            raise RuntimeError("there are no files to read again: set_tls_key_crt was not called")
        self.set_tls_key_crt(*self._tls_files)

    def get_listened_address(self) -> Address | None:
        """The address in use; None while not listening."""
        return self._listened

    def get_listened_port(self) -> int:
        """The port in use; -1 while not listening."""
        address = self.get_listened_address()
        return -1 if address is None else address.port

    def __repr__(self) -> str:
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        return f"<{name} {'not listening' if self._listened is None else self._listened}>"


ServerT = TypeVar("ServerT", bound=Listening[Any])


class Names(dict[str, ServerT]):
    """Servers by name."""

    def register(self, name: str, server: ServerT) -> None:
        if self.setdefault(name, server) is not server:
            raise ValueError(f"there is a server named {name!r} already")

    def unregister(self, server: ServerT) -> None:
        for name in [name for name, known in self.items() if known is server]:
            del self[name]


def listen(address: Address, backlog: int) -> socket.socket:
    """A listening, non-blocking socket; every interface means both IPv6 and IPv4 where the system has both."""
    if address.host:
        family, kind, protocol, name = resolve(address, None)[0]
        return _bind(family, kind, protocol, name, backlog, address)
    if socket.has_dualstack_ipv6():
        try:
            name = ("::", address.port, 0, 0)
            return _bind(socket.AF_INET6, socket.SOCK_STREAM, 0, name, backlog, address)
        except SocketError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    return _bind(socket.AF_INET, socket.SOCK_STREAM, 0, ("0.0.0.0", address.port), backlog, address)


def _bind(
    family: int, kind: int, protocol: int, name: tuple[object, ...], backlog: int, address: Address
) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if address.host else 0)
        sock.bind(name)
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        number = error.errno or errno.EIO
        raise BY_ERRNO.get(number, SocketError)(number, os.strerror(number), str(address)) from None
    except BaseException:
        sock.close()
        raise
    return sock
