"""serve: a server as a program, in one process or several, that ends gracefully when it is told to."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Literal, TypedDict

from gtcp import _core
from gtcp._address import AddressLike, parse
from gtcp._conn import Conn
from gtcp._listener import Listener, adopt, check_listening_socket, listen
from gtcp._options import check_count
from gtcp._processes import Processes
from gtcp._server import Server
from gtcp._service import Handler

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Unpack

    from gtcp._address import Address

logger = logging.getLogger("gtcp")

_STOP = (signal.SIGTERM, signal.SIGINT)
# How often a server is looked at that may have ended by itself, in seconds.
_LOOK = 1.0


class ServerOptions(TypedDict, total=False):
    """What `serve` hands on to Server."""

    tls: ssl.SSLContext | None
    concurrency: Literal["threads", "greenlets"]
    stack_size: int | None
    gather_sends: bool
    max_connections: int | None
    handshake_timeout: float | None
    first_byte_timeout: float | None
    idle_timeout: float | None
    send_timeout: float | None
    on_connect: Callable[[Conn], object] | None
    on_close: Callable[[Conn, BaseException | None], object] | None
    on_error: Callable[[Conn | None, BaseException], object] | None


def serve(
    address: AddressLike | Address = "",
    handler: Handler | None = None,
    *,
    sock: socket.socket | None = None,
    processes: int = 1,
    drain_timeout: float | None = 30.0,
    backlog: int = 1024,
    **options: Unpack[ServerOptions],
) -> None:
    """Serves until SIGTERM or SIGINT, then lets handlers finish for `drain_timeout` seconds and returns.

    A second signal cuts what is left at once. `sock`: a listening socket instead of an address, which stays the
    caller's. `processes`: so many workers share the address, each with the limits in `options`; one that dies is
    started again, after a growing pause if it dies soon; they end when this process does. Other arguments as those of
    `Server`.

    Only for the main thread (RuntimeError elsewhere), as it takes the signals over until it returns.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("serve is for the main thread, which gets the signals; elsewhere use Server")
    check_count("processes", processes, 1)
    _core.to_deadline(drain_timeout)
    if sock is not None:
        check_listening_socket(sock)
        if address:
            raise ValueError(f"serve needs an address or a socket, got {address!r} and {sock!r}")
    checked = Server(handler=handler, backlog=backlog, **options)  # what is wrong is said before anything begins
    if checked._handler is None:
        raise ValueError("serve needs a handler")
    listeners = _listeners(address, sock, processes, backlog)

    own = len(listeners) == processes and sock is None

    def work(listener: Listener, lifeline: int | None = None) -> None:
        server = Server(handler=handler, sock=listener.socket, backlog=backlog, **options)
        _run(server, drain_timeout, lifeline, listener.refuse if own else None)

    def close() -> None:
        for listener in listeners:
            listener.close()

    try:
        logger.info("serving on %s", listeners[0].address)
        if processes == 1:
            work(listeners[0])
        else:
            jobs = [partial(work, listeners[i % len(listeners)]) for i in range(processes)]
            supervisor = Processes(jobs, drain_timeout, close)
            with _signals(_STOP, supervisor.stop), supervisor.children():
                supervisor.run()
    finally:
        close()


def _listeners(
    address: AddressLike | Address, sock: socket.socket | None, processes: int, backlog: int
) -> list[Listener]:
    """One for each process where the kernel spreads connections over them, else one for all.

    They belong to this process: what waits in the queue of a worker that died is served by the next.
    """
    if sock is not None:
        return [adopt(sock, backlog)]
    where = parse(address, listening=True)
    if processes == 1 or where.path is not None or sys.platform != "linux":
        return [listen(where, backlog)]
    listeners: list[Listener] = []
    try:
        for _ in range(processes):
            listeners.append(listen(where, backlog, reuse_port=True))
            if where.port == 0:
                where = parse((where.host, listeners[0].address.port))
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _run(server: Server, drain_timeout: float | None, lifeline: int | None, refuse: Callable[[], None] | None) -> None:
    """Serves until it is told to stop, then drains.

    `lifeline`: of a worker; its end says that all stop, a signal that this one does. `refuse`: nobody shall connect any
    more when all stop.
    """
    stop = _core.Signal()
    all_stop = [True] if lifeline is None else []

    def on_signal() -> None:
        # Looked at here, too: the thread that does may be late, and this signal the supervisor's second word.
        if stop.is_set or (lifeline is not None and _core.wait_any({lifeline: _core.POLLIN}, 0.0)):
            server.close()
        stop.set()

    def hold(lifeline: int) -> None:
        _core.wait_any({lifeline: _core.POLLIN})
        all_stop.append(True)
        stop.set()

    with _signals(_STOP if lifeline is None else _STOP[:1], on_signal):
        try:
            service = server._start()
            if lifeline is not None:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP[:1])
                threading.Thread(target=hold, args=(lifeline,), name="gtcp-lifeline", daemon=True).start()
            while not stop.wait(_core.to_deadline(_LOOK)):
                if service.closed.is_set:
                    return
            service.stop_accepting()  # before its socket is none to accept from
            if refuse is not None and all_stop:
                refuse()
            cut = server.shutdown(drain_timeout)
            if cut:
                logger.warning("%d connections did not end within %s s and were cut", cut, drain_timeout)
        finally:
            server.close()


@contextlib.contextmanager
def _signals(numbers: Iterable[signal.Signals], call: Callable[[], None]) -> Iterator[None]:
    """Calls the function for each of the signals."""
    before = {number: signal.signal(number, lambda *_: call()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
