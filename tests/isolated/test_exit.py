"""The interpreter's end: in time, with the code that was asked for, and without a word.

Row ids are those of the project's table of faults. GTCP_TEST_EXITS is how often the end with blocked
threads is tried; a soak sets it to hundreds.
"""

import builtins
import contextlib
import gc
import os
import sys
import threading
import time
from collections.abc import Callable

import pytest

import gtcp
from support import child
from support.crew import Worker
from support.peers import deaf_address, listen
from support.timing import LONG, eventually

EXITS = int(os.environ.get("GTCP_TEST_EXITS", "3"))
HUGE = bytes(16 << 20)

KEPT: list[object] = []
"""What is alive when the interpreter ends."""
OPEN = contextlib.ExitStack()


def address() -> tuple[str, int]:
    """A listener that accepts, says nothing and lives as long as the process."""
    listener = listen()
    host, port = listener.getsockname()
    listener.detach()
    return host, port


def echo(conn: gtcp.Conn) -> None:
    while True:
        conn.send(conn.recv(0))


def serve(handler: Callable[[gtcp.Conn], object]) -> gtcp.Server:
    server = gtcp.Server("127.0.0.1:0", handler)
    server.start()
    KEPT.append(server)
    return server


def exit_with_blocked_threads(code: int) -> None:
    """A daemon thread in every place where a call of gtcp can sleep."""
    full = gtcp.Conn(address())
    asked = gtcp.Conn(address())
    pool = gtcp.Pool(address(), max_size=1)
    lease = pool.acquire()
    deaf = OPEN.enter_context(deaf_address())
    handling = threading.Event()

    def handler(conn: gtcp.Conn) -> None:
        handling.set()
        conn.recv(1)

    server = serve(handler)
    running = gtcp.Server("127.0.0.1:0", lambda conn: conn.recv(1))
    calls: list[Callable[[], object]] = [
        gtcp.Conn(address()).recv,
        gtcp.Conn(address()).recv_line,
        lambda: gtcp.Conn(address()).recv_pkg(timeout=LONG),
        lambda: full.send(HUGE),
        lambda: full.send(b"queued"),
        lambda: asked.send_recv(b"x", 1),
        lambda: asked.send_recv(b"queued", 1, timeout=LONG),
        lease.recv,
        pool.acquire,
        lambda: pool.acquire(LONG),
        lambda: gtcp.Conn(deaf),
        running.run,
    ]
    for call in calls:
        worker = Worker(call)
        worker.asleep()
        KEPT.append(worker)
    KEPT.append(gtcp.Conn(("127.0.0.1", server.get_listened_port())))
    assert handling.wait(LONG)
    print(time.monotonic())  # noqa: T201
    sys.exit(code)


@pytest.mark.parametrize("run", range(EXITS))
def test_H7_exit_with_blocked_threads(run: int) -> None:
    began = float(child.run(exit_with_blocked_threads, 7, code=7))
    assert time.monotonic() - began <= 2


class Cycle:
    """Dropped only by a collection."""

    def __init__(self, content: object) -> None:
        self.me = self
        self.content = content


def live_objects() -> list[object]:
    """One of everything, used."""
    server = serve(echo)
    there = ("127.0.0.1", server.get_listened_port())
    pool = gtcp.Pool(there, ttl=LONG)
    conns = [gtcp.Conn(there), pool.acquire(), pool.acquire(), gtcp.PoolConn(there)]
    for conn in conns:
        # Its handler runs: CPython 3.10 crashes when a thread starts while the interpreter ends.
        assert conn.send_recv(b"x", 1, timeout=LONG) == b"x"
    conns[1].close()
    return [*conns, pool, gtcp.get_server("kept"), server]


def exit_with_live_objects() -> None:
    """They are reached from wherever the interpreter looks when it ends, early and late."""
    KEPT.extend(live_objects())
    KEPT.append(Cycle(live_objects()))
    gc.disable()
    Cycle(live_objects())  # for the interpreter's own last collection
    sys.modules["__main__"].living = live_objects()  # type: ignore[attr-defined]
    builtins.living = live_objects()  # type: ignore[attr-defined]
    held = live_objects()
    holding = threading.Event()

    def hold() -> object:
        holding.set()
        return held and threading.Event().wait()

    threading.Thread(target=hold, daemon=True).start()
    assert holding.wait(LONG)


@pytest.mark.parametrize("options", [[], ["-W", "error"], ["-X", "dev"]], ids=" ".join)
def test_H7_live_objects_at_the_end_are_not_worth_a_word(options: list[str]) -> None:
    child.run(exit_with_live_objects, options=options)


def exit_in_traffic() -> None:
    """The end of the main thread, while the server's threads are in the middle of requests."""
    there = ("127.0.0.1", serve(echo).get_listened_port())
    busy = threading.Semaphore(0)

    def exchange() -> None:
        with gtcp.Conn(there) as conn:
            while conn.send_recv(b"x", 1) == b"x":
                busy.release()

    KEPT.extend(Worker(exchange) for _ in range(4))
    for _ in range(100):
        assert busy.acquire(timeout=LONG)


@pytest.mark.parametrize("run", range(EXITS))
def test_H7_exit_in_the_middle_of_traffic(run: int) -> None:
    child.run(exit_in_traffic)


def exit_after_the_reaper() -> None:
    """A connection expires at the moment when the interpreter ends."""
    pool = gtcp.Pool(address(), ttl=0.01)
    KEPT.append(pool)
    for _ in range(20):
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(pool.acquire())
    eventually(lambda: pool.stats().closed["ttl"] > 0)


def test_H7_exit_while_idle_connections_expire() -> None:
    child.run(exit_after_the_reaper)


def use_in_atexit() -> None:
    import atexit

    there = ("127.0.0.1", serve(lambda conn: conn.send(conn.recv(0))).get_listened_port())

    def last_words() -> None:
        with gtcp.PoolConn(there) as lease:
            print(lease.send_recv(b"goodbye", 7).decode())  # noqa: T201

    atexit.register(last_words)


def test_H7_connections_work_in_exit_handlers() -> None:
    assert child.run(use_in_atexit) == "goodbye\n"
