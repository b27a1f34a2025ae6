"""How a pool comes by a connection: the dial, TLS, and what the user adds to them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

from gtcp import _core
from gtcp._address import Address
from gtcp._attempt import Attempt
from gtcp._conn import Conn, tls_context
from gtcp._errors import PoolTimeout, Timeout


class Connector:
    """Opens connections to one address as the pool's options say."""

    def __init__(self, addr: Address, options: Mapping[str, Any]) -> None:
        self.addr = addr
        self._socket_options = tuple(options["socket_options"])
        self._server_hostname = options["server_hostname"]
        self._context = tls_context(options["tls"], self._server_hostname)
        self._dial = options["dial"]
        self._on_connect = options["on_connect"]
        # Only a plain dial is made of steps, so that one thread can begin it and another one finish it.
        self.is_plain = self._context is None and self._dial is None and self._on_connect is None

    def attempt(self) -> Attempt:
        return Attempt(self.addr, self._socket_options)

    def open(
        self,
        attempt: Attempt,
        until: float | None,
        wanted: Callable[[], bool],
        too_slow: Callable[[str], PoolTimeout],
    ) -> Conn | None:
        """A connection that is ready for use; None when it is not wanted any more or time is up before it connects.

        Raises what `too_slow` makes of the words for a TLS handshake that does not end in time.
        """
        if self._dial is not None:
            conn = self._dialled_by_user(self._dial, until)
        else:
            sock = attempt.finish(until, wanted)
            if sock is None:
                return None
            conn = wrap(sock)
        try:
            if self._context is not None:
                from gtcp import _tls

                try:
                    _tls.connect(conn, self._context, self._server_hostname or self.addr.host, until)
                except Timeout as error:
                    raise too_slow(f"agreeing on TLS with {self.addr}") from error
            if self._on_connect is not None:
                conn.set_deadline(until)
                self._on_connect(conn)
        except BaseException:
            conn.close()
            raise
        return conn

    def _dialled_by_user(self, dial: Callable[[Address, float | None], Any], until: float | None) -> Conn:
        made = dial(self.addr, _core.remaining(until))
        if isinstance(made, socket.socket):
            return Conn.from_socket(made)
        if not isinstance(made, Conn):
            raise TypeError(f"dial must answer a connected socket or Conn, not {type(made).__name__}")
        return made


def wrap(sock: socket.socket) -> Conn:
    """A handle for a socket that a dial made; the socket is closed when this fails."""
    try:
        conn = Conn.__new__(Conn)
        conn._take_socket(sock)
    except BaseException:
        sock.close()
        raise
    return conn
