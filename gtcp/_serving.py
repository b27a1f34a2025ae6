"""What one run of every server shares: its connections, taken on, looked after and told of the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Generic

from gtcp._dial import tune
from gtcp._limits import Limits, Patience
from gtcp._listener import Listener
from gtcp._report import ConnT, Report

if TYPE_CHECKING:
    import socket

# How long the last bytes of a connection may take to arrive, in seconds, and the pauses between two looks.
_ARRIVAL = 5.0
_SHORTEST_LOOK = 0.001
_LONGEST_LOOK = 0.05


class Serving(Generic[ConnT]):
    """The connections of a running server."""

    def __init__(self, limits: Limits, listener: Listener, report: Report[ConnT], conn_type: type[ConnT]) -> None:
        self._limits = limits
        self._report = report
        self._conn_type = conn_type
        self._patience = Patience(limits)
        self._name = listener.own_name()
        # Each with the moment its handler began, None before.
        self._connections: dict[ConnT, float | None] = {}
        # In the middle of their TLS handshakes.
        self._agreeing: set[ConnT] = set()
        self.ending = False

    @property
    def interval(self) -> float | None:
        """Seconds between two looks; None when there is nothing to look for."""
        return self._patience.interval

    def connections(self) -> list[ConnT]:
        return list(self._connections)

    # -- for the acceptor

    def has_room(self) -> bool:
        """One more connection may be served."""
        most = self._limits.max_connections
        return most is None or len(self._connections) < most

    def serve(self, sock: socket.socket, peer: object) -> None:
        """Takes a new connection on."""
        raise NotImplementedError

    def _adopt(self, sock: socket.socket, peer: object) -> ConnT | None:
        """The handle of a new connection; None when it has gone already."""
        self._report.tally.add("accepted")
        conn = self._conn_type.__new__(self._conn_type)
        try:
            if sys.platform != "linux":  # where it inherits nothing
                tune(sock)
            conn._adopt(sock, self._name or sock.getsockname(), peer)
        except OSError:
            sock.close()  # gone already
            return None
        self._connections[conn] = None
        return conn

    def look(self) -> None:
        """Ends the connections that kept their handlers waiting for too long."""
        for conn, limit in self._patience.overdue(list(self._connections.items()), time.monotonic()):
            if conn._cut(f"{limit} of {getattr(self._limits, limit):g} s"):
                self._report.tally.add(limit)

    def accept_failed(self, error: BaseException) -> None:
        """No connection could be accepted, which says something about the server."""
        self._report.tell_error(None, error)

    # -- the end

    def _until_arrived(self, conn: ConnT) -> Iterator[float]:
        """Seconds to sleep, again and again, until nothing can be lost any more that was sent to the client.

        Bytes that come and that nobody reads make the kernel answer a close by a reset.
        """
        end = time.monotonic() + _ARRIVAL
        look = _SHORTEST_LOOK
        while conn._arriving() and time.monotonic() < end:
            yield look
            look = min(2 * look, _LONGEST_LOOK)

    def _drain(self) -> None:
        """Ends the connections where nobody is at work: those that wait for the peer's next words, or agree on TLS."""
        for conn in self.connections():
            if conn in self._agreeing:
                conn._cut("the server ends")
            conn._drain()
