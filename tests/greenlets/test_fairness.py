"""A peer that floods with small units does not hold up those who ask for one."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable

import pytest

import gtcp
from gtcp import _core
from support.peers import frame
from support.timing import LATE, LONG
from support.tls import Authority, Ends

FLOOD = 5000  # units in one read
FLOODS = 2
FAIR = 640  # units that others may have before a request is answered: each of them thrice 73 and its debts

Take = Callable[[gtcp.Conn, Callable[[object], None]], object]


def all_of(conn: gtcp.Conn, take: Callable[[], object]) -> None:
    with contextlib.suppress(gtcp.EOF):
        while True:
            take()


def packages(conn: gtcp.Conn, handle: Callable[[object], None]) -> None:
    for package in conn.packages():
        handle(package)


def lines(conn: gtcp.Conn, handle: Callable[[object], None]) -> None:
    for line in conn.lines():
        handle(line)


def recv(conn: gtcp.Conn, handle: Callable[[object], None]) -> None:
    all_of(conn, lambda: handle(conn.recv(3)))


def recv_pkg(conn: gtcp.Conn, handle: Callable[[object], None]) -> None:
    all_of(conn, lambda: handle(conn.recv_pkg()))


def recv_pkgs(conn: gtcp.Conn, handle: Callable[[object], None]) -> None:
    all_of(conn, lambda: [handle(package) for package in conn.recv_pkgs(10)])


def gathered(conn: gtcp.Conn, handle: Callable[[object], None]) -> None:
    with conn.gathered():
        for package in conn.packages():
            handle(package)
            conn.send_pkg(package)


def pkg_handler(conn: gtcp.Conn, handle: Callable[[object], None]) -> None:
    gtcp.pkg_handler(handle)(conn)


def stackless(conn: gtcp.Conn, handle: Callable[[object], None]) -> None:
    ended = _core.Signal()
    _core.PkgHandler(handle, None).serve(conn, lambda _: ended.set())
    ended.wait()


def stackless_gathered(conn: gtcp.Conn, handle: Callable[[object], None]) -> None:
    def answer(package: bytes) -> bytes:
        handle(package)
        return package

    ended = _core.Signal()
    conn._gather_sends()
    _core.PkgHandler(answer, None).serve(conn, lambda _: ended.set())
    ended.wait()


TAKES: list[Take] = [packages, lines, recv, recv_pkg, recv_pkgs, gathered, pkg_handler, stackless, stackless_gathered]


@pytest.mark.parametrize("take", TAKES, ids=lambda take: take.__name__)
def test_small_units_that_came_together_do_not_hold_up_the_others(take: Take) -> None:
    handled = 0
    meanwhile: list[int] = []

    def handle(_: object) -> None:
        nonlocal handled
        handled += 1
        if handled == FLOOD // 5:
            there.sendall(frame(b"now"))

    def ask(conn: gtcp.Conn) -> None:
        assert conn.recv_pkg() == b"now"
        meanwhile.append(handled - FLOOD // 5)

    def main() -> None:
        asking = gtcp.spawn(ask, stack.enter_context(gtcp.Conn.from_socket(here)))
        gtcp.sleep(0)
        flooding = [gtcp.spawn(take, stack.enter_context(flooded(stack)), handle) for _ in range(FLOODS)]
        for fiber in [asking, *flooding]:
            fiber.get(LONG)

    with contextlib.ExitStack() as stack:
        here, there = socket.socketpair()
        stack.enter_context(there)
        gtcp.run(main)
    assert handled == FLOOD * FLOODS
    assert meanwhile[0] <= FAIR


def flooded(stack: contextlib.ExitStack) -> gtcp.Conn:
    """A connection to which all has come that ever comes."""
    here, there = socket.socketpair()
    stack.enter_context(there)
    there.sendall(frame(b"\n") * FLOOD)
    there.shutdown(socket.SHUT_WR)
    return gtcp.Conn.from_socket(here)


def test_a_large_send_over_tls_does_not_hold_up_the_others() -> None:
    longest = 0.0

    def watch() -> None:
        nonlocal longest
        last = time.thread_time()  # of this thread alone: whatever else the machine does
        while True:
            gtcp.sleep(0)
            now = time.thread_time()
            longest = max(longest, now - last)
            last = now

    def main() -> None:
        gtcp.spawn(watch)
        gtcp.sleep(0)
        conn.send(bytes(256 << 20), timeout=LONG)

    with Ends(Authority()) as ends:
        conn, far = ends.connect()
        far.setblocking(True)
        # A quick reader, which does not care what it reads.
        with subprocess.Popen(["cat"], stdin=far.fileno(), stdout=subprocess.DEVNULL):
            gtcp.run(main)
            conn.abort()
    assert longest <= LATE / 20  # a mebibyte takes a tenth of that
