"""Loopback peers made of the standard library only: they share no code with what they test.

A `Peer` listens and runs a script, a plain function of one socket, in a thread per connection::

    def script(sock):
        assert read(sock, 5) == b"hello"
        sock.sendall(b"world")

    with Peer(script) as peer, gtcp.Conn(peer.address) as conn:
        assert conn.send_recv(b"hello", 5) == b"world"

At the end of the block the peer closes everything it opened, waits for its threads and raises what a
script raised, so an assertion in a script fails the test. The fixture `peer` does the same for tests
that need several.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from support.timing import LONG

if TYPE_CHECKING:
    from typing_extensions import Self

Script = Callable[[socket.socket], object]


class Peer:
    def __init__(
        self, script: Script, *, host: str = "127.0.0.1", port: int = 0, receive_buffer: int | None = None
    ) -> None:
        self._script = script
        self._listener = listen(host, port, receive_buffer=receive_buffer)
        self.host, self.port = self._listener.getsockname()[:2]
        self.address = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        self.accepted = 0
        """Connections so far."""
        self.errors: list[BaseException] = []
        self._stopping = False
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._serve, name=f"peer-{self.port}")]
        self._threads[0].start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(LONG)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._run, args=(sock,), name=f"peer-{self.port}-{self.accepted}")
            with self._lock:
                if self._stopping:
                    sock.close()
                    return
                self.accepted += 1
                self._sockets.add(sock)
                self._threads.append(thread)
                thread.start()

    def _run(self, sock: socket.socket) -> None:
        try:
            self._script(sock)
        except BaseException as error:  # noqa: BLE001 (every failure of a script is the test's)
            # What breaks because the test is over is not an error.
            if not (self._stopping and isinstance(error, OSError)):
                self.errors.append(error)
        finally:
            with self._lock:
                self._sockets.discard(sock)
                sock.close()

    def stop_listening(self) -> None:
        """Refuse new connections; those that are open go on."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # close() alone would not wake accept()
        self._threads[0].join(LONG)
        self._listener.close()

    def close(self) -> None:
        """Close everything, wait for every script and raise what the first failing one raised."""
        self.stop_listening()
        with self._lock:
            self._stopping = True
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(LONG)
            assert not thread.is_alive(), f"{thread.name} does not end"
        if self.errors:
            raise self.errors[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.close()
        except BaseException as mine:
            # The script's complaint is usually the cause of the test's own: show both.
            if error is not None:
                raise mine from error
            raise


def listen(
    host: str = "127.0.0.1", port: int = 0, *, backlog: int = 128, receive_buffer: int | None = None
) -> socket.socket:
    """A listening socket; a small `receive_buffer` lets the other side's sends block soon."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        listener.bind((host, port))
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener


def read(sock: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes, or an EOFError that tells how many came."""
    data = bytearray()
    while len(data) < size:
        chunk = sock.recv(min(size - len(data), 1 << 20))
        if not chunk:
            raise EOFError(f"{len(data)} of {size} bytes")
        data += chunk
    return bytes(data)


def reset(sock: socket.socket) -> None:
    """Close with RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def frame(payload: bytes, header: int = 2) -> bytes:
    """A package as it stands on the wire."""
    return len(payload).to_bytes(header, "big") + payload


def read_frame(sock: socket.socket, header: int = 2) -> bytes:
    return read(sock, int.from_bytes(read(sock, header), "big"))


# Scripts that many tests need.


def echo(sock: socket.socket) -> None:
    """Send back what comes, until the other side goes."""
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(65536):
            sock.sendall(data)


class Talker:
    """An echo of packages that counts the connections that have ended."""

    def __init__(self) -> None:
        self.ended = 0

    def __call__(self, sock: socket.socket) -> None:
        try:
            while True:
                sock.sendall(frame(read_frame(sock)))
        except (EOFError, ConnectionError):
            self.ended += 1


class Holder:
    """Its ends of the connections are in the test's hands, until `over` is set."""

    def __init__(self) -> None:
        self.ends: list[socket.socket] = []
        self.over = threading.Event()

    def __call__(self, sock: socket.socket) -> None:
        self.ends.append(sock)
        assert self.over.wait(LONG)


def silent(sock: socket.socket) -> None:
    """Read and say nothing, until the other side goes."""
    with contextlib.suppress(ConnectionError):
        while sock.recv(65536):
            pass


def says(data: bytes) -> Script:
    """Send `data`, then close cleanly once the other side has nothing more to say."""

    def script(sock: socket.socket) -> None:
        sock.sendall(data)
        with contextlib.suppress(OSError):  # the other side may have had enough, and closed with bytes unread
            sock.shutdown(socket.SHUT_WR)
        silent(sock)

    return script


def drips(data: bytes, gap: float = 0.0) -> Script:
    """Send `data` one byte per segment, `gap` seconds apart, then close. The other side may have enough before."""

    def script(sock: socket.socket) -> None:
        pause = threading.Event()
        with contextlib.suppress(ConnectionError):
            for i in range(len(data)):
                sock.sendall(data[i : i + 1])
                pause.wait(gap)
            sock.shutdown(socket.SHUT_WR)
            silent(sock)

    return script


# Addresses where nobody answers.


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now."""
    with listen(host) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def closed_address(host: str = "127.0.0.1") -> Iterator[str]:
    """An address that refuses every connection: bound, so nobody else gets it, but not listening."""
    with socket.socket() as sock:
        sock.bind((host, 0))
        yield f"{host}:{sock.getsockname()[1]}"


@contextlib.contextmanager
def deaf_address(host: str = "127.0.0.1") -> Iterator[str]:
    """An address where a connection attempt stays unanswered: the queue of the listener is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen(host, backlog=0))
        for _ in range(8):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            assert sock.connect_ex(listener.getsockname()) in {0, errno.EINPROGRESS}
        yield f"{host}:{listener.getsockname()[1]}"


@contextlib.contextmanager
def socket_pair(host: str = "127.0.0.1") -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected TCP sockets, the first of them to be handed to the code under test."""
    with listen(host) as listener:
        ours = socket.create_connection(listener.getsockname()[:2], LONG)
        theirs, _ = listener.accept()
    theirs.settimeout(LONG)
    theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with ours, theirs:
        yield ours, theirs
