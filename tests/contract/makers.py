"""The kinds of connections that have to keep the contract.

A test asks the fixture `make_conn` for connections and never learns which kind it got. A new kind (TLS,
say) is one more class here, and the whole suite runs on it.
"""

import contextlib
import socket
from functools import partial
from typing import Any, NamedTuple

import gtcp
import gtcp.aio
from support.loops import Facade, LoopThread
from support.peers import Peer, Script, listen
from support.timing import LONG


class Link(NamedTuple):
    """A connection and the socket at its other end."""

    conn: gtcp.Conn
    far: socket.socket


class Maker:
    """Opens connections of one kind and closes them in the end."""

    detached_timeout: float | None = None

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack

    def _open(self, address: str) -> gtcp.Conn:
        raise NotImplementedError

    def __call__(self, *, receive_buffer: int | None = None) -> Link:
        """A connection whose other end is in the test's hands; it takes `receive_buffer` bytes unread."""
        with listen(receive_buffer=receive_buffer) as listener:
            host, port = listener.getsockname()
            conn = self._opened(f"{host}:{port}")
            far, _ = listener.accept()
        self._stack.enter_context(far)
        far.settimeout(LONG)
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Link(conn, far)

    def to(self, script: Script, *, receive_buffer: int | None = None) -> gtcp.Conn:
        """A connection to a peer that runs the script, for as long as the connection is open."""

        def until_closed(sock: socket.socket) -> None:
            with contextlib.suppress(ConnectionError):
                script(sock)

        return self._opened(self._stack.enter_context(Peer(until_closed, receive_buffer=receive_buffer)).address)

    def _opened(self, address: str) -> gtcp.Conn:
        conn = self._open(address)
        self._stack.callback(conn.close)
        return conn


class ConnMaker(Maker):
    def _open(self, address: str) -> gtcp.Conn:
        return gtcp.Conn(address, LONG)


class PoolConnMaker(Maker):
    def _open(self, address: str) -> gtcp.Conn:
        return self._stack.enter_context(gtcp.Pool(address)).acquire(LONG)


class AioConnMaker(Maker):
    """Connections of an event loop, behind a facade that blocks."""

    detached_timeout = 0.0

    def __init__(self, stack: contextlib.ExitStack, loop: str) -> None:
        super().__init__(stack)
        self._thread = stack.enter_context(LoopThread(loop))

    def _open(self, address: str) -> Any:
        return Facade.of(self._thread, self._thread.call(gtcp.aio.Conn, address, LONG))


class AioPoolConnMaker(AioConnMaker):
    """Leases of a pool of an event loop."""

    def _open(self, address: str) -> Any:
        pool = Facade.of(self._thread, self._thread.call(gtcp.aio.Pool, address))
        self._stack.callback(pool.close)
        return Facade.of(self._thread, pool.acquire(LONG))


KINDS = {
    "Conn": ConnMaker,
    "PoolConn": PoolConnMaker,
    "aio.Conn-asyncio": partial(AioConnMaker, loop="asyncio"),
    "aio.Conn-uvloop": partial(AioConnMaker, loop="uvloop"),
    "aio.PoolConn-asyncio": partial(AioPoolConnMaker, loop="asyncio"),
    "aio.PoolConn-uvloop": partial(AioPoolConnMaker, loop="uvloop"),
}
