"""From an address to a connected socket: names, several addresses at once, one deadline for all of it."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterable

from gtcp import _core
from gtcp._address import Address, AddressLike, parse
from gtcp._errors import BY_ERRNO, Error, RefusedError, SocketError, Timeout
from gtcp._resolve import Target, resolve

# RFC 8305: how long one address may stay silent before the next is tried beside it.
ATTEMPT_DELAY = 0.25
# Go's default: a silent peer is noticed although nobody sends.
KEEPALIVE = 15
# How often a Unix listener whose queue is full is asked again: the kernel does not tell when there is room.
FULL_DELAY = 0.005

SocketOption = tuple[int, int, int | bytes]
"""What setsockopt takes: level, option, value."""


def dial(addr: AddressLike | Address, timeout: float | None = 30.0) -> socket.socket:
    """A connected blocking socket; TCP has TCP_NODELAY and keepalive on.

    `timeout`: seconds for everything: the name's resolution and all its addresses. Raises Timeout, RefusedError,
    ResolveError, ValueError for a bad address; no socket is left open then.
    """
    address = parse(addr)
    return connect(address, _core.to_deadline(timeout))


def connect(address: Address, deadline: float | None) -> socket.socket:
    """The same for a parsed address and a `time.monotonic()` deadline."""
    dialer = Dialer(resolve(address, deadline), address)
    try:
        while (sock := dialer.step()) is None:
            until = earlier(dialer.next_start, deadline)
            dialer.ready = _core.wait_any(dict.fromkeys(dialer.pending, _core.POLLOUT), until)
            if not dialer.ready and deadline is not None and _core.remaining(deadline) == 0:
                raise Timeout(f"timed out while connecting to {address}")
        sock.setblocking(True)
        return sock
    finally:
        dialer.close()


def earlier(a: float | None, b: float | None) -> float | None:
    """The earlier of two moments, None being never."""
    return b if a is None else a if b is None else min(a, b)


class Dialer:
    """Connection attempts to the addresses of one peer, as steps that never block.

    `step()` answers the connected socket, or None: then the descriptors of `pending` are to be watched for
    POLLOUT until `next_start`; those that became ready go into `ready` before the next step.
    """

    def __init__(self, targets: Iterable[Target], address: Address, options: Iterable[SocketOption] = ()) -> None:
        self.address = address
        self.targets = list(targets)
        self.options = tuple(options)
        self.pending: dict[int, tuple[socket.socket, Target]] = {}
        self.ready: list[int] = []
        self.next_start: float | None = None
        self.errors: list[Error] = []
        self.self_connects = 0
        self.full = False

    def step(self) -> socket.socket | None:
        for fd in self.ready:
            sock, target = self.pending.pop(fd)
            if self._settle(sock, target):
                return sock
        self.ready = []
        while self.targets and (self._is_due() if self.full else not self.pending or self._is_due()):
            if (winner := self._start(self.targets.pop(0))) is not None:
                return winner
        if not self.pending and not self.full:
            raise self._failure()
        if not self.targets:
            self.next_start = None
        return None

    def _is_due(self) -> bool:
        return self.next_start is not None and _core.remaining(self.next_start) == 0

    def _start(self, target: Target) -> socket.socket | None:
        """Begins one attempt; answers its socket if it succeeded at once."""
        family, kind, protocol, name = target
        sock = None
        self.full = False
        try:
            sock = socket.socket(family, kind, protocol)
            sock.setblocking(False)
            tune(sock)
            for option in self.options:
                sock.setsockopt(*option)
            number = sock.connect_ex(name)
        except BaseException as error:
            if sock is not None:
                sock.close()
            if not isinstance(error, OSError):
                raise
            self._note(error.errno)
            return None
        if number == errno.EAGAIN and family == socket.AF_UNIX:
            sock.close()
            self.full = True
            self.targets.insert(0, target)
            self.next_start = _core.to_deadline(FULL_DELAY)
            return None
        if number in (errno.EINPROGRESS, errno.EINTR):
            self.pending[sock.fileno()] = sock, target
            self.next_start = _core.to_deadline(ATTEMPT_DELAY)
            return None
        return sock if self._settle(sock, target, number) else None

    def _settle(self, sock: socket.socket, target: Target, number: int | None = None) -> bool:
        """An attempt has ended, with this errno or the one the socket knows: True when it is connected."""
        try:
            if number is None:
                number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number == 0 and sock.family != socket.AF_UNIX and sock.getsockname() == sock.getpeername():
                # A dial to a free port of the ephemeral range can meet itself (Go: selfConnect).
                self.self_connects += 1
                number = errno.ECONNREFUSED
                if self.self_connects < 3:
                    self.targets.insert(0, target)
        except OSError as error:
            # It was connected a moment ago: the peer has reset it since.
            number = errno.ECONNRESET if error.errno in (None, errno.ENOTCONN) else error.errno
        if number == 0:
            return True
        sock.close()
        self._note(number)
        return False

    def _note(self, number: int | None) -> None:
        code = number or errno.EIO
        self.errors.append(BY_ERRNO.get(code, SocketError)(code, os.strerror(code), str(self.address)))

    def _failure(self) -> Error:
        """The first error tells most; the others come with it."""
        first = self.errors[0] if self.errors else RefusedError(errno.ECONNREFUSED, "no address", str(self.address))
        if sys.version_info >= (3, 11):
            for other in self.errors[1:]:
                first.add_note(f"also tried: {other}")
        return first

    def close(self) -> None:
        """Closes the attempts that are still under way."""
        while self.pending:
            _, (sock, _) = self.pending.popitem()
            sock.close()


def is_over(deadline: float | None) -> bool:
    """The moment has come."""
    return deadline is not None and _core.remaining(deadline) == 0


def tune(sock: socket.socket) -> None:
    """What Go sets on every TCP connection: no delay for small packets, keepalive after 15 s of silence."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle = getattr(socket, "TCP_KEEPIDLE", None) or getattr(socket, "TCP_KEEPALIVE", None)
    if idle is not None:
        sock.setsockopt(socket.IPPROTO_TCP, idle, KEEPALIVE)
    if hasattr(socket, "TCP_KEEPINTVL"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE)
