"""Server: accepts connections and runs a handler for each in a thread."""

from __future__ import annotations

import logging
import queue
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from gtcp import _core
from gtcp._address import Address, AddressLike, of_socket
from gtcp._conn import Conn
from gtcp._errors import EOF, ClosedError, Error
from gtcp._listen import CAPACITY, FATAL, Listening, Names, listen, longer

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Self

Handler = Callable[[Conn], object]

logger = logging.getLogger("gtcp")


class Server(Listening[Handler]):
    """A TCP server: `handler(conn)` runs in a thread of its own for each connection.

    `address`: "host:port", ":port" for every interface, "" for any free port (see `get_listened_port`). `name`: for
    `get_server`. `tls`: an ssl.SSLContext for servers; a client has `handshake_timeout` seconds. `backlog`: connections
    that may wait to be accepted.

    The connection is closed when the handler returns, unless it was detached. An exception of the handler is logged
    and ends only its connection; the end of a connection that leaves the handler as `EOF` is the normal end.

    All methods may be called from any thread. In `with`, the server starts, and closes at the end.
    """

    def __init__(
        self,
        address: AddressLike | Address = "",
        handler: Handler | None = None,
        name: str | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        handshake_timeout: float | None = 10.0,
        concurrency: Literal["threads", "greenlets"] = "threads",
        gather_sends: bool = False,
        backlog: int = 1024,
    ) -> None:
        super().__init__(address, handler, tls, handshake_timeout, backlog)
        self._gather_sends = gather_sends
        self.name = name
        self._lock = threading.Lock()
        self._acceptor: _Acceptor | None = None
        self._connections: set[Conn] = set()
        self._all_done = _core.Signal()
        self._stopped = _core.Signal()
        self._workers = _make_workers(concurrency)
        if name is not None:
            _names.register(name, self)

    # -- life

    def start(self) -> None:
        """Listens; when it returns, clients can connect.

        Raises RuntimeError when the server is running, ValueError without a handler, SocketError or ResolveError when
        the address cannot be used: the server is as before then.
        """
        with self._lock:
            if self._acceptor is not None:
                raise RuntimeError("the server is running already")
            if self._handler is None:
                raise ValueError("the server has no handler")
            self._stopped = _core.Signal()
            acceptor = _Acceptor(listen(self._address, self._backlog), self._serve, self._workers.host)
            try:
                acceptor.start()
            except BaseException:
                acceptor.stop()
                raise
            self._acceptor, self._listened = acceptor, acceptor.address

    def run(self) -> None:
        """`start()`, then serves until `close()` or `shutdown()`; returns normally then.

        An exception in this thread, such as KeyboardInterrupt, closes the server and goes on.
        """
        self.start()
        try:
            self._stopped.wait()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stops listening and closes every connection, at once: handlers that wait get ClosedError. Idempotent."""
        self._stop_listening()
        with self._lock:
            connections = list(self._connections)
        for conn in connections:
            conn._discard()  # which, unlike close, waits for nobody's goodbye
        self._workers.close()
        self._stopped.set()
        _names.unregister(self)

    def shutdown(self, timeout: float | None = None) -> int:
        """Stops listening, lets handlers finish for `timeout` seconds (None: as long as it takes), closes the rest.

        Answers how many connections had to be cut.
        """
        deadline = _core.to_deadline(timeout)
        self._stop_listening()
        with self._lock:
            self._all_done = done = _core.Signal()
            if not self._connections:
                done.set()
        done.wait(deadline)
        with self._lock:
            cut = len(self._connections)
        self.close()
        return cut

    def _stop_listening(self) -> None:
        with self._lock:
            acceptor, self._acceptor, self._listened = self._acceptor, None, None
        if acceptor is not None:
            acceptor.stop()

    # -- connections

    def _serve(self, sock: socket.socket) -> None:
        """Takes a new connection on, in the acceptor's thread."""
        try:
            conn = Conn.from_socket(sock)
        except OSError:
            sock.close()  # gone already
            return
        with self._lock:
            self._connections.add(conn)
        try:
            self._workers.run(lambda: self._handle(conn))
        except RuntimeError as error:
            logger.error("no thread for the connection from %s: %s", conn.remote_addr(), error)
            self._forget(conn)

    def _handle(self, conn: Conn) -> None:
        handler = self._handler
        assert handler is not None
        try:
            if self._agree_on_tls(conn):
                if self._gather_sends:
                    conn._gather_sends()
                handler(conn)
                if self._gather_sends and not conn.closed:
                    conn.flush()
        except EOF as end:
            if end.partial or end.expected is not None:
                logger.exception("the peer of %r closed in the middle", conn)
        except ClosedError:
            if self._acceptor is not None:
                logger.exception("the handler of %r failed", conn)
        except BaseException:
            logger.exception("the handler of %r failed", conn)
        finally:
            self._forget(conn)

    def _agree_on_tls(self, conn: Conn) -> bool:
        """The handshake, in the handler's thread: the acceptor never waits for one."""
        context = self._tls
        if context is None:
            return True
        from gtcp import _tls

        try:
            _tls.accept(conn, context, _core.to_deadline(self._handshake_timeout))
        except (Error, OSError) as error:
            logger.warning("TLS handshake of %r failed: %s", conn, error)
            return False
        return True

    def _forget(self, conn: Conn) -> None:
        conn.close()
        with self._lock:
            self._connections.discard(conn)
            if not self._connections:
                self._all_done.set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Acceptor:
    """The thread that accepts, and the only one that touches the listening socket."""

    def __init__(
        self,
        listener: socket.socket,
        serve: Callable[[socket.socket], None],
        host: Callable[[Callable[[], None]], None],
    ) -> None:
        self._listener = listener
        self._serve = serve
        self._wake, self._waker = socket.socketpair()
        self._ended = _core.Signal()
        self._thread = threading.Thread(target=host, args=(self._run,), name="gtcp-accept", daemon=True)
        self.address = of_socket(listener.getsockname())

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the listening; nobody is accepted any more when it returns."""
        self._waker.close()
        if self._thread.is_alive():  # not so in a forked child, which has only a copy of the sockets
            self._ended.wait()
        self._listener.close()
        self._wake.close()

    def _run(self) -> None:
        try:
            self._accept()
        finally:
            self._ended.set()

    def _accept(self) -> None:
        back_off = 0.0
        watched = {self._wake.fileno(): _core.POLLIN, self._listener.fileno(): _core.POLLIN}
        while self._wake.fileno() not in _core.wait_any(watched):
            try:
                while True:
                    sock, _ = self._listener.accept()
                    back_off = 0.0
                    self._serve(sock)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno in FATAL:
                    logger.error("listening on %s ended: %s", self.address, error)
                    return
                if error.errno in CAPACITY:
                    if back_off == 0.0:
                        logger.error("cannot accept connections on %s for now: %s", self.address, error)
                    back_off = longer(back_off)
                    if _core.wait_any({self._wake.fileno(): _core.POLLIN}, _core.to_deadline(back_off)):
                        return


def _make_workers(concurrency: str) -> _Threads | _Greenlets:
    if concurrency == "threads":
        return _Threads()
    if concurrency == "greenlets":
        return _Greenlets()
    raise ValueError(f"concurrency must be 'threads' or 'greenlets', got {concurrency!r}")


class _Greenlets:
    """Greenlets of one hub, which runs in the acceptor's thread."""

    def __init__(self) -> None:
        self._hub: _core.Hub | None = None
        _core.Hub()  # what is missing is said when the server is made, not in its thread

    def host(self, accept: Callable[[], None]) -> None:
        """Accepts as a greenlet among the others, until `close`."""
        self._hub = hub = _core.Hub(_log_failure)
        hub.spawn(accept)
        hub.run()

    def run(self, job: Callable[[], None]) -> None:
        assert self._hub is not None
        self._hub.spawn(job)

    def close(self) -> None:
        if self._hub is not None:
            self._hub.stop()


def _log_failure(error: BaseException) -> None:
    logger.error("a greenlet failed", exc_info=error)


class _Threads:
    """Threads that run handlers; one that is done waits for the next for a while."""

    LINGER = 5.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle = 0
        self._closed = False
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def host(self, accept: Callable[[], None]) -> None:
        """Accepts in the acceptor's own thread."""
        accept()

    def run(self, job: Callable[[], None]) -> None:
        """Runs the job in a waiting thread or a new one. RuntimeError when the system has no more threads."""
        with self._lock:
            self._closed = False
            if self._idle:
                self._idle -= 1
                self._jobs.put(job)
                return
        threading.Thread(target=self._work, args=(job,), name="gtcp-handler", daemon=True).start()

    def _work(self, job: Callable[[], None] | None) -> None:
        while job is not None:
            job()
            with self._lock:
                if self._closed:
                    return
                self._idle += 1
            try:
                job = self._jobs.get(timeout=self.LINGER)
            except queue.Empty:
                with self._lock:
                    if self._idle:
                        self._idle -= 1
                        return
                job = self._jobs.get()  # it was given away meanwhile

    def close(self) -> None:
        """Ends the waiting threads now, and those at work when their jobs are done; the next `run` opens again."""
        with self._lock:
            self._closed = True
            for _ in range(self._idle):
                self._jobs.put(None)
            self._idle = 0


# -- servers by name

_names: Names[Server] = Names()


def get_server(name: str = "default") -> Server:
    """The server of this name; made, without address and handler, when there is none."""
    server = _names.get(name)
    return Server(name=name) if server is None else server


Server.__module__ = "gtcp"
