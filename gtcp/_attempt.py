"""A dial that one thread begins and another one can finish."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gtcp import _core
from gtcp._address import Address
from gtcp._dial import Dialer, SocketOption, earlier
from gtcp._resolve import Lookup, Target, lookups, numeric

if TYPE_CHECKING:
    from gtcp._conn import Conn

# Between two looks at whether the result is still wanted.
_SLICE = 0.1


class Attempt:
    """Name, addresses, connection: as far as one `drive` gets, and on from there with the next.

    `str()` tells what it is at.
    """

    def __init__(self, address: Address, options: Sequence[SocketOption] = ()) -> None:
        self.address = address
        self.options = options
        self._lookup: Lookup | None = None
        self._dialer: Dialer | None = None
        self._connected = False
        self._conn: Conn | None = None
        self._cancel = _core.Signal()

    def __str__(self) -> str:
        if self._lookup is not None and self._dialer is None:
            return f"resolving {self.address.host!r}"
        return f"connecting to {self.address}"

    def drive(self, until: float | None) -> socket.socket | None:
        """The connected socket, or None when it is not there at `until`. Raises what dialling raises, closed then."""
        try:
            return self._drive(until)
        except BaseException:
            self.close()
            raise

    def finish(self, until: float | None, wanted: Callable[[], bool]) -> socket.socket | None:
        """The same, but None as soon as it is cancelled or not wanted any more; closed then."""
        while not self.is_cancelled() and wanted():
            end = earlier(until, _core.to_deadline(_SLICE))
            try:
                sock = self.drive(end)
            except Exception:
                if self.is_cancelled():
                    break
                raise
            if sock is not None:
                self._connected = True
                if not self.is_cancelled():
                    return sock
                sock.close()
            elif end == until:
                break
        self.close()
        return None

    def set_up(self, conn: Conn) -> None:
        """It has led to this connection, on which there is something to be said before it is ready for use."""
        self._conn = conn
        if self.is_cancelled():
            conn.close()

    def is_connected(self) -> bool:
        """There is a connection already."""
        return self._conn is not None

    def cancel(self) -> None:
        """Ends it from another thread: nothing stays open, and who talks on the connection is told."""
        self._cancel.set()
        if self._conn is not None:
            self._conn.close()
        elif not self._connected:
            self.close()

    def is_cancelled(self) -> bool:
        return self._cancel.is_set

    def _drive(self, until: float | None) -> socket.socket | None:
        if self._dialer is None:
            targets = self._resolve(until)
            if targets is None:
                return None
            self._dialer = Dialer(targets, self.address, self.options)
        dialer = self._dialer
        while (sock := dialer.step()) is None:
            end = earlier(dialer.next_start, until)
            dialer.ready = _core.wait_any(dict.fromkeys(dialer.pending, _core.POLLOUT), end)
            if not dialer.ready and _core.remaining(until) == 0:
                return None
        dialer.close()
        sock.setblocking(True)
        return sock

    def _resolve(self, until: float | None) -> Sequence[Target] | None:
        if self._lookup is None:
            targets = numeric(self.address)
            if targets is not None:
                return targets
            self._lookup = lookups.join(self.address.host, self.address.port)
        return self._lookup.result() if self._lookup.done.wait(until) else None

    def close(self) -> None:
        """Gives up."""
        if self._dialer is not None:
            self._dialer.close()
