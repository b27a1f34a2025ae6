"""The kinds of connections that have to keep the contract.

A test asks the fixture `make_conn` for connections and never learns which kind it got. A new kind is one more
class here, and the whole suite runs on it.
"""

import contextlib
import functools
import socket
import ssl
from typing import Any, NamedTuple
from unittest.mock import patch

import gtcp
import gtcp.aio
from gtcp._threads import workers
from support.calls import Call
from support.loops import Facade, LoopThread
from support.peers import Peer, Script, listen
from support.secure import over_tls, wrap
from support.timing import LONG
from support.tls import Authority


class Link(NamedTuple):
    """A connection and the socket at its other end."""

    conn: gtcp.Conn
    far: socket.socket


class Maker:
    """Opens connections of one kind and closes them in the end."""

    detached_timeout: float | None = None
    secure = False
    """Bytes go through TLS; tests marked `plain` are about the bare socket and do not run on it."""
    modules: frozenset[str] | None = None
    """The parts of the suite that other kinds do not answer for this one; None: all."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack

    def _open(self, address: str) -> gtcp.Conn:
        raise NotImplementedError

    def __call__(self, *, receive_buffer: int | None = None) -> Link:
        """A connection whose other end is in the test's hands; it takes `receive_buffer` bytes unread."""
        with listen(receive_buffer=receive_buffer) as listener:
            host, port = listener.getsockname()
            conn, far = self._both_ends(listener, f"{host}:{port}")
        self._stack.enter_context(far)
        far.settimeout(LONG)
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Link(conn, far)

    def to(self, script: Script, *, receive_buffer: int | None = None) -> gtcp.Conn:
        """A connection to a peer that runs the script, for as long as the connection is open."""

        def until_closed(sock: socket.socket) -> None:
            with contextlib.suppress(ConnectionError):
                script(sock)

        peer = Peer(self._over(until_closed), receive_buffer=receive_buffer)
        return self._opened(self._stack.enter_context(peer).address)

    def _both_ends(self, listener: socket.socket, address: str) -> tuple[gtcp.Conn, socket.socket]:
        conn = self._opened(address)
        return conn, listener.accept()[0]

    def _over(self, script: Script) -> Script:
        """The script for the socket of a `Peer`, when it is written for what is at the other end here."""
        return script

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


@functools.cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of the far end and of ours; making them costs more than a test."""
    authority = Authority()
    return authority.server(), authority.client()


class SecureMaker(Maker):
    """Connections over TLS 1.3, to an other end of the standard library."""

    secure = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._theirs, self._ours = contexts()

    def _both_ends(self, listener: socket.socket, address: str) -> tuple[gtcp.Conn, socket.socket]:
        accepting = Call(lambda: wrap(listener.accept()[0], self._theirs))
        return self._opened(address), accepting.result()

    def _over(self, script: Script) -> Script:
        return over_tls(script, self._theirs)


class SecureConnMaker(SecureMaker):
    def _open(self, address: str) -> gtcp.Conn:
        return gtcp.Conn(address, LONG, tls=self._ours)


class SecurePoolConnMaker(SecureMaker):
    """Leases of TLS connections. What they send and receive is that of Conn, so only their failures and ends differ."""

    modules = frozenset({"test_close", "test_concurrency", "test_end", "test_exchanges"})

    def __init__(self, stack: contextlib.ExitStack) -> None:
        super().__init__(stack)
        # The thread of a dial waits for the next one, and each test for all threads to end.
        stack.enter_context(patch.object(workers, "_linger", 0.0))

    def _open(self, address: str) -> gtcp.Conn:
        return self._stack.enter_context(gtcp.Pool(address, tls=self._ours)).acquire(LONG)


class AioConnMaker(Maker):
    """Connections of an event loop, behind a facade that blocks."""

    detached_timeout = 0.0
    loop = "asyncio"

    def __init__(self, stack: contextlib.ExitStack) -> None:
        super().__init__(stack)
        self._thread = stack.enter_context(LoopThread(self.loop))

    def _open(self, address: str) -> Any:
        return Facade.of(self._thread, self._thread.call(gtcp.aio.Conn, address, LONG))


class AioPoolConnMaker(AioConnMaker):
    """Leases of a pool of an event loop."""

    def _open(self, address: str) -> Any:
        pool = Facade.of(self._thread, self._thread.call(gtcp.aio.Pool, address))
        self._stack.callback(pool.close)
        return Facade.of(self._thread, pool.acquire(LONG))


class SecureAioConnMaker(SecureMaker, AioConnMaker):
    """TLS in a loop. Arguments and the parser know nothing of either."""

    modules = frozenset(
        f"test_{part}"
        for part in ("batches", "bytes", "close", "concurrency", "end", "exchanges", "sending", "timeouts")
    )

    def _open(self, address: str) -> Any:
        return Facade.of(self._thread, self._thread.call(gtcp.aio.Conn, address, LONG, tls=self._ours))


def on_uvloop(maker: type[AioConnMaker], modules: frozenset[str] | None = None) -> type[AioConnMaker]:
    return type(maker.__name__, (maker,), {"loop": "uvloop", "modules": modules})


KINDS: dict[str, type[Maker]] = {
    "Conn": ConnMaker,
    "Conn-TLS": SecureConnMaker,
    "PoolConn": PoolConnMaker,
    "PoolConn-TLS": SecurePoolConnMaker,
    "aio.Conn-asyncio": AioConnMaker,
    "aio.Conn-uvloop": on_uvloop(AioConnMaker),
    "aio.Conn-TLS-asyncio": SecureAioConnMaker,
    # What readiness and timers of the loop have a part in.
    "aio.Conn-TLS-uvloop": on_uvloop(SecureAioConnMaker, frozenset({"test_close", "test_sending"})),
    "aio.PoolConn-asyncio": AioPoolConnMaker,
    "aio.PoolConn-uvloop": on_uvloop(AioPoolConnMaker),
}
