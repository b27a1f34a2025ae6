"""Memory that runs out at every allocation, and sizes that no int of C holds."""

from __future__ import annotations

import contextlib
import mmap
import socket
import sys
from collections.abc import Callable

import pytest

import gtcp
from support import child
from support.crew import Worker
from support.leaks import descriptors
from support.peers import Peer, echo, socket_pair
from support.timing import LONG

LARGE = bytes(50_000)
WIDE = gtcp.PkgOption(4)


def on_a_connection(address: str, use: Callable[[gtcp.Conn], object]) -> Callable[[], object]:
    conn = gtcp.Conn(address)

    def call() -> object:
        try:
            return use(conn)
        finally:
            conn.close()

    return call


def lease(address: str) -> Callable[[], object]:
    pool = gtcp.Pool(address, max_size=1)

    def call() -> None:
        try:
            for _ in range(2):
                with pool.acquire(LONG) as conn:
                    conn.send_recv_pkg(b"hello", timeout=LONG)
        finally:
            books = pool.stats()
            assert (books.in_use, books.connecting) == (0, 0), books
            pool.close()

    return call


def lines(conn: gtcp.Conn) -> None:
    conn.send(b"one\ntwo--")
    conn.recv_line(timeout=LONG)
    conn.recv_till(b"--", timeout=LONG)


CALLS: dict[str, Callable[[str], Callable[[], object]]] = {
    "package": lambda address: on_a_connection(address, lambda conn: conn.send_recv_pkg(b"hello", timeout=LONG)),
    "large": lambda address: on_a_connection(address, lambda conn: conn.send_recv_pkg(LARGE, WIDE, timeout=LONG)),
    "bytes": lambda address: on_a_connection(address, lambda conn: conn.send_recv(b"hello", timeout=LONG)),
    "lines": lambda address: on_a_connection(address, lines),
    "batch": lambda address: on_a_connection(
        address, lambda conn: conn.send_recv_pkgs([b"a", b"bc", LARGE], WIDE, timeout=LONG)
    ),
    "many": lambda address: on_a_connection(
        address, lambda conn: (conn.send_pkgs([b"a"] * 50), conn.recv_pkgs(50, timeout=LONG))
    ),
    "pool": lease,
}


def unless_a_thread_begins(unraisable: sys.UnraisableHookArgs) -> None:
    """CPython's threading complains when memory runs out for a thread of the pool that it is about to begin."""
    if "thread started by" not in (unraisable.err_msg or ""):
        sys.__unraisablehook__(unraisable)


def without_memory(name: str, address: str) -> None:
    import _testcapi  # type: ignore[import-not-found]

    make = CALLS[name]
    sys.unraisablehook = unless_a_thread_begins
    make(address)()  # what is made once
    before = descriptors()
    failed = passed = at = 0
    while passed < 5:
        call = make(address)
        result = error = None
        _testcapi.set_nomemory(at, at + 1)
        try:
            result = call()
        except BaseException as caught:  # noqa: BLE001
            error = caught
        finally:
            _testcapi.remove_mem_hooks()
        if error is None:
            passed += 1
        elif (
            isinstance(error, MemoryError)
            or "memory" in str(error).lower()
            or isinstance(error.__context__, MemoryError)
        ):
            failed += 1
            passed = 0
        else:
            raise error
        del call, result, error
        at += 1
        assert at < 5000
    assert failed > 0
    assert descriptors() == before


@pytest.mark.parametrize("name", CALLS)
def test_B21_memory_runs_out_at_every_allocation(name: str) -> None:
    pytest.importorskip("_testcapi", reason="this Python has no _testcapi")
    with Peer(echo) as peer:
        child.run(without_memory, name, peer.address, options=["-W", "ignore"], within=4 * LONG)


@pytest.mark.skipif(sys.maxsize < 2**32, reason="such a buffer needs 64 bits")
def test_C6_a_buffer_of_more_than_2_gib() -> None:
    size = 2**31 + 4096

    def drain(sock: socket.socket) -> int:
        room, count = bytearray(1 << 20), 0
        with contextlib.suppress(ConnectionError):
            while n := sock.recv_into(room):
                count += n
        return count

    with (
        socket_pair() as (ours, theirs),
        gtcp.Conn.from_socket(ours) as conn,
        mmap.mmap(-1, size, prot=mmap.PROT_READ) as data,
    ):
        reader = Worker(lambda: drain(theirs))
        conn.send(data, timeout=6 * LONG)
        conn.close_write()
        assert reader.result(6 * LONG) == size
