"""A listening socket: where it comes from, and what has to be tidied up when it closes."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

from gtcp._address import Address, of_socket, unix_name
from gtcp._dial import tune
from gtcp._errors import BY_ERRNO, SocketError
from gtcp._resolve import resolve

_EVERY_INTERFACE = {"0.0.0.0", "::"}
# systemd hands over descriptors from here on (sd_listen_fds).
_FIRST_INHERITED = 3


class Listener:
    """A listening, non-blocking socket, and the file of a Unix one, which goes with it."""

    def __init__(self, sock: socket.socket, file: SocketFile | None = None, *, shared: bool = False) -> None:
        tune(sock)  # what is accepted inherits it
        self.socket = sock
        self.address = of_socket(sock.getsockname())
        self._file = file
        self._shared = shared

    def own_name(self) -> object:
        """getsockname() of every connection that is accepted; None when each has its own."""
        name = self.socket.getsockname()
        return None if self.address.path is None and name[0] in _EVERY_INTERFACE else name

    def refuse(self) -> None:
        """Nobody can connect any more, already before the descriptor is closed, which others may wait on."""
        if not self._shared:
            with contextlib.suppress(OSError):  # systems other than Linux refuse
                self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self._file is not None:
            self._file.remove()
        self.socket.close()


class SocketFile:
    """What bind(2) leaves in the file system, as long as it is ours: another server may have put its own there."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity = self._look()
        self._process = os.getpid()

    def _look(self) -> tuple[int, int]:
        status = os.lstat(self._path)
        return status.st_dev, status.st_ino

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            if self._process == os.getpid() and self._look() == self._identity:
                os.unlink(self._path)  # noqa: PTH108


def listen(address: Address, backlog: int, *, reuse_port: bool = False) -> Listener:
    """Listens on an address; every interface means both IPv6 and IPv4 where the system has both.

    `reuse_port`: other sockets may listen on the same port, and the kernel spreads the connections over them.
    """
    if address.path is not None:
        return _listen_unix(address, address.path, backlog)
    if address.host:
        family, _, _, name = resolve(address, None)[0]
        return _listen_tcp(family, name, backlog, address, reuse_port)
    if socket.has_dualstack_ipv6():
        try:
            return _listen_tcp(socket.AF_INET6, ("::", address.port, 0, 0), backlog, address, reuse_port)
        except SocketError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    return _listen_tcp(socket.AF_INET, ("0.0.0.0", address.port), backlog, address, reuse_port)


def _listen_tcp(
    family: int, name: tuple[object, ...] | str, backlog: int, address: Address, reuse_port: bool
) -> Listener:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if address.host else 0)
        sock.bind(name)
        return _begin(sock, backlog)
    except OSError as error:
        sock.close()
        raise _failure(error, address) from None
    except BaseException:
        sock.close()
        raise


def _listen_unix(address: Address, path: str, backlog: int) -> Listener:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    file = None
    try:
        try:
            sock.bind(unix_name(path))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_left_over(path):
                raise
            os.unlink(path)  # noqa: PTH108
            sock.bind(path)
        file = None if path.startswith("@") else SocketFile(path)
        return _begin(sock, backlog, file)
    except BaseException as error:
        if file is not None:
            file.remove()
        sock.close()
        if isinstance(error, OSError):
            raise _failure(error, address) from None
        raise


def _is_left_over(path: str) -> bool:
    """A socket's file whose server is gone: nobody answers there any more."""
    if path.startswith("@") or not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) == errno.ECONNREFUSED


def adopt(sock: socket.socket, backlog: int) -> Listener:
    """Listens on a socket of the user's, who keeps it: its connections wait in its queue while no server runs."""
    own = sock.dup()
    address = of_socket(own.getsockname())
    try:
        if not own.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            own.listen(backlog)
        own.setblocking(False)
        return Listener(own, shared=True)
    except OSError as error:
        own.close()
        raise _failure(error, address) from None


def _begin(sock: socket.socket, backlog: int, file: SocketFile | None = None) -> Listener:
    sock.listen(backlog)
    sock.setblocking(False)
    return Listener(sock, file)


def _failure(error: OSError, address: Address) -> SocketError:
    number = error.errno or errno.EIO
    return BY_ERRNO.get(number, SocketError)(number, os.strerror(number), str(address))


def check_listening_socket(sock: socket.socket) -> None:
    """TypeError for what a server cannot accept connections from."""
    if not isinstance(sock, socket.socket):
        raise TypeError(f"sock must be a socket.socket, not {type(sock).__name__}")
    if sock.type != socket.SOCK_STREAM:
        raise TypeError(f"sock must be a stream socket, not {sock.type!r}")


def inherited_sockets() -> list[socket.socket]:
    """The listening sockets that the service manager opened for this process (systemd's socket activation).

    Empty when there are none. The variables LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES are taken out of the environment,
    so a second call answers none and children inherit none. OSError when a descriptor is no socket.
    """
    count, process = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if process != str(os.getpid()) or not count.isdecimal():
        return []
    sockets: list[socket.socket] = []
    try:
        for fd in range(_FIRST_INHERITED, _FIRST_INHERITED + int(count)):
            os.set_inheritable(fd, False)
            sockets.append(socket.socket(fileno=fd))
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets
