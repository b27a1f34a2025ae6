"""One run of a server: from the first connection to the end of the last handler."""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from gtcp import _core
from gtcp._acceptor import Acceptor
from gtcp._conn import Conn
from gtcp._errors import Error
from gtcp._listen import Listening
from gtcp._listener import Listener
from gtcp._report import Report
from gtcp._serving import Serving
from gtcp._workers import Crew

if TYPE_CHECKING:
    import socket
    import ssl

Handler = Callable[[Conn], object]


logger = logging.getLogger("gtcp")

# How long greenlets may go on after the end before they are killed.
_FAREWELL = 1.0

# Whose handler the caller is.
_serving: contextvars.ContextVar[Conn | None] = contextvars.ContextVar("gtcp_serving", default=None)


class Service(Serving[Conn]):
    """The connections of a running server. No lock is held anywhere, so a signal handler may end it at any moment."""

    def __init__(
        self, settings: Listening[Handler], listener: Listener, crew: Crew, report: Report[Conn], gather: bool
    ) -> None:
        super().__init__(settings._limits, listener, report, Conn)
        self._settings = settings
        self._crew = crew
        self._gather = gather
        # Handlers that wait in `shutdown`, so nobody waits for them.
        self._spared: set[Conn] = set()
        # All handlers have ended; or `shutdown` need not wait for them any more.
        self._all_done = _core.Signal()
        self._drained = _core.Signal()
        self.closed = _core.Signal()
        self.acceptor = Acceptor(listener, self)

    # -- from any thread

    def start(self) -> None:
        """RuntimeError when there can be no more threads."""
        host = self._crew.host
        try:
            threading.Thread(target=host, args=(self._live, self._part), name="gtcp-accept", daemon=True).start()
        except BaseException:
            self.acceptor.close()
            raise

    def stop_accepting(self) -> None:
        """The beginning of the end; the connections go on."""
        self.ending = True
        self.acceptor.stop()
        self._crew.close()  # whose threads need not rest any more between two jobs

    def close(self) -> None:
        """Ends everything at once."""
        self.stop_accepting()
        for conn in self.connections():
            conn._cut("the server was closed")
        self.closed.set()
        self._drained.set()

    def shutdown(self, deadline: float | None) -> int:
        """Lets handlers that work finish, then ends the rest; answers how many those were."""
        own = _serving.get()
        if own is not None and own in self._connections:
            self._spared.add(own)
        self.stop_accepting()
        self._drain()
        self._note_end()
        self._drained.wait(deadline)
        left = self._connections.keys() - self._spared
        self._report.tally.add("cut", sum(conn._cut("the server was closed") for conn in left))
        self.close()
        return len(left)

    # -- the acceptor's part

    def _live(self) -> None:
        try:
            self.acceptor.run()
        finally:
            if not self.ending:  # the socket is none to listen on any more
                self._settings._listened = None
                self.close()

    def _part(self) -> None:
        self.closed.wait()
        self._note_end()
        self._all_done.wait(_core.to_deadline(_FAREWELL))

    def serve(self, sock: socket.socket, peer: object) -> None:
        """Takes a new connection on."""
        conn = self._adopt(sock, peer)
        if conn is None:
            return
        try:
            self._crew.run(self._attend, conn)
        except RuntimeError as error:
            logger.error("no thread for the connection from %s: %s", conn.remote_addr(), error)
            self._report.tell_error(conn, error)
            self._end(conn, error)

    # -- the handler's part, in its thread

    def _attend(self, conn: Conn) -> None:
        _serving.set(conn)
        try:
            if self._welcomes(conn) and not self._handle(conn):
                return
        except BaseException as error:  # noqa: BLE001 (nothing a handler raises ends the server)
            self._handled(conn, error)
        else:
            self._handled(conn, None)

    def _welcomes(self, conn: Conn) -> bool:
        """Whether the connection is wanted, and has agreed on TLS: the acceptor waits for neither."""
        if self._report.refuses(conn) or conn.closed:
            return False
        context = self._settings._tls
        return context is None or self._agree_on_tls(conn, context)

    def _agree_on_tls(self, conn: Conn, context: ssl.SSLContext) -> bool:
        from gtcp import _tls

        self._agreeing.add(conn)
        try:
            if self.ending:
                return False
            _tls.accept(conn, context, _core.to_deadline(self._limits.handshake_timeout))
        except (Error, OSError) as error:
            self._report.no_handshake(conn, error, ending=self.ending)
            return False
        finally:
            self._agreeing.discard(conn)
        return True

    def _handle(self, conn: Conn) -> bool:
        """False when the handler goes on without this greenlet; `_handled` follows then."""
        handler = self._settings._handler
        assert handler is not None
        self._connections[conn] = time.monotonic()
        if self._gather:
            conn._gather_sends()
        if self._crew.stackless and isinstance(handler, _core.PkgHandler):
            handler.serve(conn, partial(self._handled, conn))
            return False
        handler(conn)
        return True

    def _handled(self, conn: Conn, error: BaseException | None) -> None:
        """The handler has ended, by what it raised or with None."""
        try:
            if error is not None:
                error = self._judge(conn, error)
            if error is None or isinstance(error, Exception):
                failure = self._let_arrive(conn)
                if error is None and failure is not None:
                    error = self._judge(conn, failure)
        finally:
            self._end(conn, error)
            _serving.set(None)

    def _let_arrive(self, conn: Conn) -> BaseException | None:
        """Lets the client have the replies that the handler gave; answers what went wrong."""
        try:
            if self._gather and not conn.closed:
                conn.flush()
            for pause in self._until_arrived(conn):
                _core.sleep(pause)
        except BaseException as error:  # noqa: BLE001
            return error
        return None

    def _judge(self, conn: Conn, error: BaseException) -> BaseException | None:
        """What the exception that left a handler means. None for a normal end."""
        if self.ending and isinstance(error, self._crew.killed):
            return error
        return self._report.judge(conn, error, ending=self.ending)

    def _end(self, conn: Conn, error: BaseException | None) -> None:
        conn.close()
        self._report.tell_close(conn, error)
        self._connections.pop(conn, None)
        self._spared.discard(conn)
        self.acceptor.made_room()
        self._note_end()

    def _note_end(self) -> None:
        if self.ending and len(self._connections) <= len(self._spared):
            self._all_done.set()
            self._drained.set()
