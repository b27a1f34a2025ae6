"""The other end of a connection: a script per connection, and addresses where nobody answers."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

Script = Callable[[socket.socket], object]
"""What a Peer does with one connection: a function of a blocking socket, which is closed when it returns."""


class Peer:
    """A server on the loopback that runs `script(sock)` in a thread per connection, from the moment it is made.

    `port`: 0 for any free one. `patience`: seconds that a call of a script may wait. In `with`, or by `close()`, every
    connection is closed, every script is waited for, and what the first failing one raised is raised.
    """

    def __init__(self, script: Script, *, host: str = "127.0.0.1", port: int = 0, patience: float = 30.0) -> None:
        self._script = script
        self._patience = patience
        self._listener = socket.create_server((host, port), family=_family(host), backlog=128)
        self.host: str = host
        self.port: int = self._listener.getsockname()[1]
        self.errors: list[BaseException] = []
        self.accepted = 0
        self._closing = False
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, name=f"peer-{self.port}", daemon=True)]
        self._threads[0].start()

    @property
    def address(self) -> str:
        """Where it listens, as "host:port"."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(self._patience)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                if self._closing:
                    sock.close()
                    return
                thread = threading.Thread(target=self._run, args=(sock,), name=f"peer-{self.port}", daemon=True)
                self.accepted += 1
                self._sockets.add(sock)
                self._threads.append(thread)
            thread.start()

    def _run(self, sock: socket.socket) -> None:
        try:
            self._script(sock)
        except BaseException as error:  # noqa: BLE001 (`close` raises it)
            if not (self._closing and isinstance(error, OSError)):
                self.errors.append(error)
        finally:
            with self._lock:
                self._sockets.discard(sock)
                sock.close()

    def close(self) -> None:
        """Ends everything; raises what the first failing script raised. Idempotent."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._closing = True
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for thread in self._threads:
            thread.join(self._patience)
        if self.errors:
            raise self.errors.pop(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


# Scripts that many tests need.


def echo(sock: socket.socket) -> None:
    """Sends back what comes, until the other side goes."""
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(65536):
            sock.sendall(data)


def echo_packages(header_size: int = 2, prefix: bytes = b"") -> Script:
    """Sends each `length | data` package back, `prefix` in front of its data."""

    def script(sock: socket.socket) -> None:
        with contextlib.suppress(ConnectionError), sock.makefile("rb") as stream:
            while len(header := stream.read(header_size)) == header_size:
                data = prefix + stream.read(int.from_bytes(header, "big"))
                sock.sendall(len(data).to_bytes(header_size, "big") + data)

    return script


def echo_lines(sock: socket.socket) -> None:
    """Sends each line back."""
    with contextlib.suppress(ConnectionError), sock.makefile("rb") as stream:
        for line in stream:
            sock.sendall(line)


def reset(sock: socket.socket) -> None:
    """Closes with a reset, as a peer that crashed would."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# Addresses where nobody answers.


@contextlib.contextmanager
def refusing_address(host: str = "127.0.0.1") -> Iterator[str]:
    """An address that refuses every connection, and that nobody else can take meanwhile."""
    with socket.socket() as sock:
        sock.bind((host, 0))
        yield f"{host}:{sock.getsockname()[1]}"


@contextlib.contextmanager
def deaf_address(host: str = "127.0.0.1") -> Iterator[str]:
    """An address where an attempt to connect stays unanswered: the queue of the listener is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, 0))
        listener.listen(0)
        for _ in range(8):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            number = sock.connect_ex(listener.getsockname())
            if number not in {0, errno.EINPROGRESS, errno.EINTR}:
                raise OSError(number, "cannot fill the queue of the listener")
        yield f"{host}:{listener.getsockname()[1]}"
