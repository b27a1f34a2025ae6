"""How a pool comes by a connection: the dial, TLS, and what the user adds to them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from gtcp import _core
from gtcp._address import Address
from gtcp._attempt import Attempt
from gtcp._conn import Conn, Handle, tls_context
from gtcp._lease import PoolConn

C = TypeVar("C", bound=Handle)


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
        blaming: Callable[[float | None, str], AbstractContextManager[None]],
    ) -> Conn | None:
        """A connection that is ready for use; None when it is not wanted any more or time is up before it connects.

        `blaming(until, words)`: says so when what happens inside does not end in time.
        """
        if self._dial is not None:
            seconds = _core.remaining(until)
            if seconds == 0.0:  # which to a socket would mean: do not block
                return None
            with blaming(until, f"connecting to {self.addr}"):
                made = self._dial(self.addr, seconds)
            conn = adopt_dialled(made, Conn, PoolConn)
        else:
            sock = attempt.finish(until, wanted)
            if sock is None:
                return None
            conn = wrap(sock, Conn)
        try:
            attempt.set_up(conn)
            if self._context is not None:
                from gtcp import _tls

                with blaming(until, f"agreeing on TLS with {self.addr}"):
                    _tls.connect(conn, self._context, self._server_hostname or self.addr.host, until)
            if self._on_connect is not None:
                conn.set_deadline(until)
                with blaming(until, f"setting up a connection to {self.addr}"):
                    self._on_connect(conn)
        except BaseException:
            conn.close()
            raise
        return conn


def wrap(sock: socket.socket, conn_type: type[C]) -> C:
    """A handle for a socket that a dial made; the socket is closed when this fails."""
    try:
        conn = conn_type.__new__(conn_type)
        conn._take_socket(sock)
    except BaseException:
        sock.close()
        raise
    return conn


def adopt_dialled(made: object, conn_type: type[C], lease_type: type[Handle]) -> C:
    """The connection that a user's `dial` has answered. What cannot be one is closed; nothing else is done with it."""
    kind = f"a connected socket or {conn_type.__module__}.{conn_type.__name__}"
    if isinstance(made, lease_type):
        made._discard()
        raise ValueError(f"dial must answer {kind}: a connection that another pool has lent is not the pool's")
    if isinstance(made, conn_type):
        return made
    if not isinstance(made, socket.socket):
        raise TypeError(f"dial must answer {kind}, not {type(made).__name__}")
    try:
        return conn_type.from_socket(made)
    except BaseException as error:
        made.close()
        if isinstance(error, (TypeError, ValueError)):
            raise type(error)(f"dial must answer {kind}: {error}") from None
        raise
