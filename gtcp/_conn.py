"""Conn: one TCP connection."""

from __future__ import annotations

import select
import socket
import sys
import warnings

from gtcp import _core
from gtcp._address import Address, AddressLike, check_host, of_socket, parse
from gtcp._dial import connect, tune
from gtcp._resolve import LOCALHOST

TYPE_CHECKING = False  # see _address
if TYPE_CHECKING:
    import ssl

    from typing_extensions import Buffer, Self

    from gtcp._options import PkgOption, Retry
    from gtcp._tls import TLSInfo


class Handle(_core.BaseConn):
    """What every Conn and PoolConn shares in the Python layer, however its calls wait.

    A subclass names the class of the core first: objects are made as the first base makes them.
    """

    __slots__ = ()

    @classmethod
    def from_socket(cls, sock: socket.socket) -> Self:
        """Takes a connected stream socket over: `sock` is detached, the connection owns the descriptor.

        TypeError for anything but a stream socket, ValueError for one that is closed, that listens or that was never
        connected; `sock` is as before then.
        """
        if not isinstance(sock, socket.socket):
            raise TypeError(f"sock must be a socket.socket, not {type(sock).__name__}")
        if sock.type != socket.SOCK_STREAM:
            raise TypeError(f"sock must be a stream socket, not {sock.type!r}")
        if sock.fileno() < 0:
            raise ValueError("sock must be connected, this one is closed")
        local, remote = names_of(sock)
        if remote is None:
            _check_connected(sock)
        conn = cls.__new__(cls)
        tune(sock)
        conn._adopt(sock, local, remote)
        return conn

    def _name_for_tls(self, server_hostname: str | None) -> str:
        """Whom the peer's certificate must name."""
        return check_name(server_hostname) or self._dialled or self.remote_addr().host

    def tls_info(self) -> TLSInfo | None:
        """Version, cipher, ALPN protocol and the peer's certificate; None for plain TCP.

        BrokenError after a handshake that failed, ConcurrencyError during one, ClosedError in a forked child.
        """
        return self._ask_tls(_describe_tls)

    def _take_socket(self, sock: socket.socket) -> None:
        local, remote = names_of(sock)
        self._adopt(sock, local, remote)

    # -- addresses

    def local_addr(self) -> Address:
        """This end of the connection; ClosedError before it is open and after a lease ended."""
        return of_socket(self._names()[0])

    def remote_addr(self) -> Address:
        """The peer's end of the connection; ClosedError before it is open and after a lease ended."""
        return of_socket(self._names()[1])

    def _dropped(self) -> None:
        """The last reference went away while the connection was open."""
        try:
            if not sys.is_finalizing():
                warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        finally:
            self._discard()

    def __repr__(self) -> str:
        if self.closed:
            return f"<{type(self).__module__}.{type(self).__qualname__} closed>"
        return f"<{type(self).__module__}.{type(self).__qualname__} {self.local_addr()} -> {self.remote_addr()}>"


class Conn(_core.BlockingConn, Handle):
    """A TCP connection to `addr`: "host:port", "[ipv6]:port", (host, port) or "unix:///path".

    `timeout`: seconds for connecting: name, all addresses, TLS handshake; None for no limit. `tls`: an ssl.SSLContext,
    or True for one that verifies chain and name, TLS 1.2 or later; `server_hostname`: the name that the certificate
    must have, by default the host of `addr`. Raises Timeout, RefusedError, ResolveError, TLSError, CertificateError,
    ValueError or TypeError for a bad argument; nothing is left open then.

    One thread may receive while others send; senders queue up, a second receiver gets ConcurrencyError. `close` may
    be called from any thread and wakes all who wait. In `with`, the connection closes at the end.
    """

    __slots__ = ()

    def __init__(
        self,
        addr: AddressLike | Address,
        timeout: float | None = 30.0,
        *,
        tls: ssl.SSLContext | bool | None = None,
        server_hostname: str | None = None,
    ) -> None:
        self._check_new()
        address = parse(addr)
        context = tls_context(tls, server_hostname)
        self._open(address, _core.to_deadline(timeout), context, server_hostname)

    def _open(
        self,
        address: Address,
        deadline: float | None,
        context: ssl.SSLContext | None,
        server_hostname: str | None,
    ) -> None:
        """Dials, and agrees on TLS when there is a context."""
        self._take_socket(connect(address, deadline))
        self._dialled = address.host
        if context is not None:
            from gtcp import _tls

            try:
                _tls.connect(self, context, server_hostname or address.host or LOCALHOST, deadline)
            except BaseException:
                self.close()
                raise

    def start_tls(
        self,
        tls: ssl.SSLContext | bool = True,
        *,
        server_hostname: str | None = None,
        server_side: bool = False,
        timeout: float | None = 30.0,
    ) -> None:
        """Goes on in TLS, as the client or with `server_side` as the server. Gathered sends leave first, in plain.

        `tls`: an SSLContext, or for a client True for one that verifies chain and name. `server_hostname`: the name
        that the certificate must have, by default the host that was dialled, else the peer's IP address. `timeout`:
        seconds for the handshake.

        Raises BrokenError when plain bytes have arrived already: they could be an attacker's; ConcurrencyError while
        another call uses the connection, RuntimeError when it speaks TLS, TypeError or ValueError for bad arguments: it
        is as before then. TLSError, CertificateError or Timeout when the handshake fails: it can only be closed then.
        """
        from gtcp import _tls

        deadline = _core.to_deadline(timeout)
        if server_side:
            _tls.accept(self, _tls.server_context(tls), deadline)
        else:
            _tls.connect(self, _tls.client_context(tls), self._name_for_tls(server_hostname), deadline)

    # -- the forms of the original with a timeout in front

    def send_with_timeout(self, data: Buffer, timeout: float | None, retry: Retry | None = None) -> None:
        """`send(data, retry, timeout=timeout)`."""
        self.send(data, retry, timeout=timeout)

    def recv_with_timeout(self, length: int, timeout: float | None, retry: Retry | None = None) -> bytes:
        """`recv(length, retry, timeout=timeout)`."""
        return self.recv(length, retry, timeout=timeout)

    def send_recv_with_timeout(
        self, data: Buffer, length: int, timeout: float | None, retry: Retry | None = None
    ) -> bytes:
        """`send_recv(data, length, retry, timeout=timeout)`: the timeout is for both together."""
        return self.send_recv(data, length, retry, timeout=timeout)

    def send_pkg_with_timeout(self, data: Buffer, timeout: float | None, option: PkgOption | None = None) -> None:
        """`send_pkg(data, option, timeout=timeout)`."""
        self.send_pkg(data, option, timeout=timeout)

    def recv_pkg_with_timeout(self, timeout: float | None, option: PkgOption | None = None) -> bytes:
        """`recv_pkg(option, timeout=timeout)`."""
        return self.recv_pkg(option, timeout=timeout)

    def send_recv_pkg_with_timeout(self, data: Buffer, timeout: float | None, option: PkgOption | None = None) -> bytes:
        """`send_recv_pkg(data, option, timeout=timeout)`: the timeout is for both together."""
        return self.send_recv_pkg(data, option, timeout=timeout)

    def detach(self) -> socket.socket:
        """Gives the connection away as a blocking socket; this object is closed then.

        Raises BrokenError while received bytes are buffered, which would be lost, and ConcurrencyError while a call
        is in progress; the connection is as before then.
        """
        return socket.socket(fileno=self._detach())


def _describe_tls(session: ssl.SSLObject) -> TLSInfo:
    from gtcp import _tls

    return _tls.info(session)


def names_of(sock: socket.socket) -> tuple[object, object]:
    """(local, remote) name of a socket; None where the peer is gone already, which the first call will tell."""
    try:
        return sock.getsockname(), sock.getpeername()
    except OSError:
        return sock.getsockname(), None


def _check_connected(sock: socket.socket) -> None:
    """ValueError for a socket that has no peer and never had one. One whose peer is gone has its end to be read."""
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ValueError(f"sock must be connected, this one listens at {of_socket(sock.getsockname())}")
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    if not any(events & select.POLLIN for _, events in poll.poll(0)):
        raise ValueError("sock must be connected, this one has no peer")


def check_name(server_hostname: str | None) -> str | None:
    """The name, if it can be one: TypeError or ValueError before anybody is dialled."""
    if server_hostname is None:
        return None
    if not isinstance(server_hostname, str):
        raise TypeError(f"server_hostname must be a str, not {type(server_hostname).__name__}")
    return check_host(server_hostname)


def tls_context(tls: ssl.SSLContext | bool | None, server_hostname: str | None) -> ssl.SSLContext | None:
    """The context that `tls` asks for. The module is loaded when the first connection needs it."""
    check_name(server_hostname)
    if tls is None or tls is False:
        if server_hostname is not None:
            raise ValueError(f"server_hostname is for TLS, got {server_hostname!r} without tls")
        return None
    from gtcp import _tls

    return _tls.client_context(tls)


Conn.__module__ = "gtcp"
