"""What chaos happens to: a server of gtcp behind a proxy, a pool on it, and a fresh one of each kind on demand."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import logging
import random
import socket
import sys
import termios
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

import gtcp
from gtcp.testing import FaultProxy, reset
from support.leaks import Baseline
from support.timing import LONG, eventually

if TYPE_CHECKING:
    from typing_extensions import Self

WIDE = gtcp.PkgOption(4)


class Wrong(AssertionError):
    """Not one of the outcomes that are allowed."""


def echo(conn: gtcp.Conn) -> None:
    for package in conn.packages(WIDE, timeout=LONG):
        conn.send_pkg(package, WIDE, timeout=LONG)


class World:
    """Lives through all injections; `check` compares it with what it was at the beginning."""

    def __init__(self, seed: int) -> None:
        logging.getLogger("gtcp").setLevel(logging.CRITICAL + 1)
        self._stack = contextlib.ExitStack()
        self.before = Baseline()
        self.server = self._stack.enter_context(gtcp.Server("127.0.0.1:0", echo))
        self.direct = ("127.0.0.1", self.server.get_listened_port())
        self.proxy = self._stack.enter_context(FaultProxy(self.direct, seed=seed))
        self.pool = self._stack.enter_context(gtcp.Pool(self.proxy.address, max_size=8, timeout=LONG))
        self._count = 0

    def payload(self, chance: random.Random, most: int = 2000) -> bytes:
        """Bytes that no other request has."""
        self._count += 1
        return b"%d:" % self._count + chance.randbytes(chance.choice((0, 1, 10, 100, most)))

    def clean_request(self) -> None:
        """The next request after the fault succeeds, through the proxy and the pool."""
        text = b"clean %d" % self._count
        with self.pool.acquire(LONG) as lease:
            if lease.send_recv_pkg(text, WIDE, timeout=LONG) != text:
                raise Wrong("a reply that belongs to another request")

    def check_books(self) -> None:
        books = self.pool.stats()
        if (books.in_use, books.connecting, books.waiting) != (0, 0, 0):
            raise Wrong(f"somebody is still in the pool: {books}")
        if books.idle != books.created - sum(books.closed.values()):
            raise Wrong(f"the pool's books do not add up: {books}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if error is None:
            gc.collect()
            eventually(lambda: not self.before.differences(), what="descriptors and threads as at the beginning")


@contextlib.contextmanager
def pair(buffers: int = 0) -> Iterator[tuple[gtcp.Conn, socket.socket]]:
    """A connection and the socket at its other end; both hold about `buffers` bytes, 0 for as many as usual."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as near:
        if buffers:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        near.connect(listener.getsockname())
        far, _ = listener.accept()
        conn = gtcp.Conn.from_socket(near)
    far.settimeout(LONG)
    far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with conn, far:
        yield conn, far


@contextlib.contextmanager
def beside(action: object, *arguments: object) -> Iterator[None]:
    """Runs `action` in a thread while the block runs."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            action(*arguments)  # type: ignore[operator]
        except (OSError, gtcp.Error):
            pass  # what breaks because of the fault
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=run, name="beside", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(LONG)
        if thread.is_alive():
            raise Wrong("the other thread hangs")
        if errors:
            raise errors[0]


def reset_after_all(sock: socket.socket) -> None:
    """A reset once everything has arrived: it would drop what waits to leave."""

    def left() -> int:
        return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)

    eventually(lambda: left() == 0)
    reset(sock)
