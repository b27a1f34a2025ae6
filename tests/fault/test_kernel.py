"""A kernel that does what it may: short transfers, interrupts, false alarms, full queues, a clock that jumps.

Everything that gtcp does in the child passes the shim of chaos.c; the other end is here, and undisturbed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import gtcp
import gtcp.aio
from support import child, shim
from support.crew import Worker, asleep, together
from support.loops import LOOPS, Facade, LoopThread
from support.peers import Peer, Script, echo, frame, read, read_frame, silent
from support.timing import LONG, SHORT, quick, takes

STORMS = {
    "one byte at a time": (1, 0, 0, 0),
    "short": (7, 0, 0, 0),
    "interrupted": (0, 300, 0, 0),
    "not ready": (0, 0, 300, 0),
    "all of it": (50, 150, 150, 0),
}
SEEDS = range(int(os.environ.get("GTCP_TEST_SEEDS", "2")))


def pattern(size: int, first: int = 0) -> bytes:
    return bytes((first + i * 7 + (i >> 8)) & 0xFF for i in range(size))


@contextlib.contextmanager
def connected(face: str, address: str) -> Iterator[Any]:
    """A connection that blocks, or one of a loop of this kind."""
    with contextlib.ExitStack() as stack:
        if face == "blocking":
            yield stack.enter_context(gtcp.Conn(address, LONG))
        else:
            thread = stack.enter_context(LoopThread(face))
            yield stack.enter_context(Facade.of(thread, thread.call(gtcp.aio.Conn, address, LONG)))


def everything(face: str, address: str) -> None:
    """Each way to send and to receive, with an echo."""
    wide = gtcp.PkgOption(4)
    with connected(face, address) as conn:
        for size in (0, 1, 2, 300, 1100, 20_000):
            data = pattern(size, size & 0xFF)
            assert conn.send_recv_pkg(data, timeout=LONG) == data
            conn.send_pkg(data, wide, timeout=LONG)
            assert conn.recv_pkg(wide, timeout=LONG) == data
            if size:
                assert conn.send_recv(data, size, timeout=LONG) == data
        many = [pattern(size) for size in range(0, 400, 7)]
        assert conn.send_recv_pkgs(many, timeout=LONG) == many
        conn.send_pkgs(many, timeout=LONG)
        assert conn.recv_pkgs(len(many), timeout=LONG) == many
        conn.send(b"one\ntwo\r\nthree--four--")
        assert [conn.recv_line(timeout=LONG), conn.recv_line(timeout=LONG)] == [b"one", b"two\r"]
        assert [conn.recv_till(b"--", timeout=LONG), conn.recv_till(b"--", timeout=LONG)] == [b"three--", b"four--"]
        conn.send(b"into")
        buffer = bytearray(4)
        assert conn.recv_into(buffer, 4, timeout=LONG) == 4
        assert buffer == b"into"
        conn.close_write()
        with pytest.raises(gtcp.EOF):
            conn.recv(1, timeout=LONG)
    assert shim.injected() > 0


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", STORMS)
@pytest.mark.parametrize("face", ["blocking", *LOOPS])
def test_C1_B1_C5_a_client(face: str, kind: str, seed: int) -> None:
    with Peer(echo) as peer:
        # The loops' own calls are left in peace.
        behind_the_shim = shim.environment((seed, *STORMS[kind]), only="gtcp/_core")
        child.run(everything, face, peer.address, environment=behind_the_shim)


def through_a_pool(address: str) -> None:
    with gtcp.Pool(address, max_size=2) as pool:

        def use(first: int) -> None:
            for i in range(first, first + 30):
                with pool.acquire(LONG) as conn:
                    assert conn.send_recv_pkg(pattern(i), timeout=LONG) == pattern(i)

        for worker in together([lambda first=first: use(first) for first in range(0, 400, 100)]):
            worker.result()
        books = pool.stats()
        assert (books.in_use, books.idle, sum(books.closed.values())) == (0, books.created, 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_C5_a_pool(seed: int) -> None:
    with Peer(echo) as peer:
        child.run(through_a_pool, peer.address, environment=shim.environment((seed, 30, 100, 100, 0)))


def serve() -> None:
    with gtcp.Server("127.0.0.1:0", lambda conn: [conn.send_pkg(package) for package in conn.packages()]) as server:
        there = ("127.0.0.1", server.get_listened_port())
        shim.storm(int(os.environ["GTCP_TEST_SEED"]), 20, 100, 100)
        for i in range(20):
            with socket.create_connection(there, LONG) as client:
                client.settimeout(LONG)
                client.sendall(frame(pattern(i)) * 3)
                assert [read_frame(client) for _ in range(3)] == [pattern(i)] * 3
        shim.calm()


@pytest.mark.parametrize("seed", SEEDS)
def test_C5_F2_a_server(seed: int) -> None:
    child.run(serve, environment={**shim.environment(), "GTCP_TEST_SEED": str(seed)})


def with_full_queues(address: str, count: int) -> None:
    data = pattern(100_000)
    with gtcp.Conn(address, LONG) as conn:
        shim.fail("send", errno.ENOBUFS, 3)
        shim.fail("sendmsg", errno.ENOBUFS, 3, skip=1)
        retry = gtcp.Retry(count, interval=0.001)
        if count:
            conn.send_pkg(data, gtcp.PkgOption(4, retry=retry), timeout=LONG)
            conn.send(b"rest", retry, timeout=LONG)
            shim.calm()
            assert conn.recv_pkg(gtcp.PkgOption(4), timeout=LONG) == data
            assert conn.recv(4, timeout=LONG) == b"rest"
        else:
            try:
                conn.send(b"rest")
            except gtcp.SocketError as error:
                assert (error.errno, error.sent) == (errno.ENOBUFS, 0)  # noqa: PT017 (a child has no pytest.raises)
            else:
                raise AssertionError("sent into a full queue")


@pytest.mark.parametrize("count", [0, 10])
def test_C5_full_queues_are_an_error_that_a_retry_outlives(count: int) -> None:
    with Peer(echo) as peer:
        child.run(with_full_queues, peer.address, count, environment=shim.environment())


def with_little_memory(address: str, number: int) -> None:
    with gtcp.Conn(address, LONG) as conn:
        for call in (lambda: conn.recv(5), conn.recv_pkg, conn.recv_line):
            shim.fail("recv", number)
            with pytest.raises(gtcp.SocketError) as failed:
                call()
            assert failed.value.errno == number
        retry = gtcp.Retry(3, interval=0.001)
        shim.fail("recv", number, 3)
        assert conn.send_recv(b"hello", 5, retry, timeout=LONG) == b"hello"
        conn.send(frame(b"a") + b"line\n")
        shim.fail("recv", number, 3)
        assert conn.recv_pkg(gtcp.PkgOption(retry=retry), timeout=LONG) == b"a"
        shim.fail("recv", number, 3)
        assert conn.recv_line(retry, timeout=LONG) == b"line"
        shim.fail("recv", number, 4)
        with pytest.raises(gtcp.SocketError):
            conn.recv(1, retry, timeout=LONG)
        assert conn.send_recv(b"again", 5, timeout=LONG) == b"again"


@pytest.mark.parametrize("name", ["ENOMEM", "ENOBUFS"])
def test_C5_a_receive_for_want_of_memory_is_an_error_that_a_retry_outlives(name: str) -> None:
    with Peer(echo) as peer:
        child.run(with_little_memory, peer.address, getattr(errno, name), environment=shim.environment())


def partly() -> Script:
    """Take 5 bytes, say how they were, take the rest."""

    def script(sock: socket.socket) -> None:
        sock.sendall(read(sock, 5))
        sock.sendall(read(sock, 5))

    return script


def go_on_where_it_stopped(address: str) -> None:
    with gtcp.Conn(address, LONG) as conn:
        shim.storm(0, 1, 0, 0)
        shim.fail("send", errno.ENOMEM, 1, skip=5)
        try:
            conn.send(b"0123456789")
        except gtcp.SocketError as error:
            shim.calm()
            assert (error.errno, error.sent) == (errno.ENOMEM, 5)  # noqa: PT017
            assert conn.recv(5, timeout=LONG) == b"01234"
            conn.send(b"0123456789"[error.sent :])
            assert conn.recv(5, timeout=LONG) == b"56789"
        else:
            raise AssertionError("sent without memory")


def test_C3_a_failed_send_says_where_it_stopped() -> None:
    with Peer(partly()) as peer:
        child.run(go_on_where_it_stopped, peer.address, environment=shim.environment())


def while_the_clock_jumps(address: str, echoing: str) -> None:
    year = 365 * 86400
    for jump in (year, -year):
        with gtcp.Conn(address, LONG) as conn:
            main = threading.current_thread()

            def move() -> None:
                asleep(main)  # noqa: B023
                shim.move_clock(jump)  # noqa: B023

            with takes(SHORT):
                mover = Worker(move)
                try:
                    conn.recv(1, timeout=SHORT)
                except gtcp.Timeout:
                    pass
                else:
                    raise AssertionError("received from a silent peer")
            mover.result()
    with gtcp.Pool(echoing, ttl=LONG) as pool:
        for jump in (0, year, -year, 0):
            shim.move_clock(jump)
            with quick(), pool.acquire(LONG) as conn:
                assert conn.send_recv(b"tick", 4, timeout=LONG) == b"tick"
        assert pool.stats().created == 1


def test_D3_the_wall_clock_jumps() -> None:
    with Peer(silent) as peer, Peer(echo) as other:
        child.run(while_the_clock_jumps, peer.address, other.address, environment=shim.environment())
