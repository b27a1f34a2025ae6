"""Gathered sends leave before the one who gathered them waits, whatever it waits for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import pytest

import gtcp
from gtcp import _core
from support.calls import Call
from support.peers import frame, read
from support.timing import LONG, eventually
from support.tls import Authority, Ends

Wait = Callable[[], object]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@contextmanager
def sleeping() -> Iterator[Wait]:
    done = threading.Event()

    def wait() -> None:
        while not done.is_set():
            gtcp.sleep(0.01)

    yield wait
    done.set()


@contextmanager
def stepping_aside() -> Iterator[Wait]:
    done = threading.Event()

    def wait() -> None:
        while not done.is_set():
            gtcp.sleep(0)

    yield wait
    done.set()


@contextmanager
def receiving_elsewhere() -> Iterator[Wait]:
    here, there = socket.socketpair()
    with gtcp.Conn.from_socket(here) as other, there:
        yield lambda: other.recv(1, timeout=LONG)
        there.send(b"x")


@contextmanager
def waiting_for_a_pool() -> Iterator[Wait]:
    with socket.create_server(("127.0.0.1", 0)) as listener, gtcp.Pool(listener.getsockname()[:2], max_size=1) as pool:
        lease = pool.acquire(LONG)
        yield lambda: pool.acquire(LONG).close()
        lease.close()


@contextmanager
def joining() -> Iterator[Wait]:
    done = _core.Signal()
    yield lambda: gtcp.spawn(done.wait).join(LONG)
    done.set()


@pytest.mark.parametrize("waiting", [sleeping, stepping_aside, receiving_elsewhere, waiting_for_a_pool, joining])
def test_they_leave_together_before_the_handler_waits_elsewhere(
    waiting: Callable[[], AbstractContextManager[Wait]],
) -> None:
    with waiting() as wait:

        def handler(conn: gtcp.Conn) -> None:
            conn.recv_pkg(timeout=LONG)
            for reply in (b"1", b"2", b"3"):
                conn.send_pkg(reply)
            wait()

        with (
            gtcp.Server("127.0.0.1:0", handler, concurrency="greenlets", gather_sends=True) as server,
            gtcp.Conn(("127.0.0.1", server.get_listened_port()), LONG) as conn,
        ):
            conn.send_pkg(b"?")
            assert conn.recv(0, timeout=LONG) == b"\0\x011\0\x012\0\x013"


def test_replies_of_greenlets_that_end_leave_while_the_handler_receives() -> None:
    def answer(conn: gtcp.Conn, request: bytes) -> None:
        conn.send_pkg(request)
        conn.send_pkg(request)

    def handler(conn: gtcp.Conn) -> None:
        for request in conn.packages():
            gtcp.spawn(answer, conn, request)

    with (
        gtcp.Server("127.0.0.1:0", handler, concurrency="greenlets", gather_sends=True) as server,
        gtcp.Conn(("127.0.0.1", server.get_listened_port()), LONG) as conn,
    ):
        conn.send_pkg(b"1")
        assert conn.recv_pkgs(2, timeout=LONG) == [b"1", b"1"]


@pytest.mark.parametrize("concurrency", ["threads", "greenlets"])
def test_a_send_of_another_thread_leaves_while_the_handler_receives(
    concurrency: Literal["threads", "greenlets"],
) -> None:
    with (
        gtcp.Server("127.0.0.1:0", lambda conn: conn.recv_pkg(), concurrency=concurrency, gather_sends=True) as server,
        gtcp.Conn(("127.0.0.1", server.get_listened_port()), LONG) as conn,
    ):
        eventually(lambda: [served for served in server.connections if served._activity()[0] == _core.POLLIN])
        server.connections[0].send_pkg(b"news")
        assert conn.recv_pkg(timeout=LONG) == b"news"


def test_what_the_kernel_has_no_room_for_leaves_while_the_greenlet_waits_elsewhere() -> None:
    here, there = socket.socketpair()
    here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    data = bytes(range(256)) * 200
    done = threading.Event()

    def main() -> None:
        with gtcp.Conn.from_socket(here) as conn, conn.gathered():
            conn.send(data)
            while not done.is_set():
                gtcp.sleep(0.01)
            conn.send(b"last")

    with there, gtcp.Conn.from_socket(there) as client:
        running = Call(gtcp.run, main)
        assert client.recv(len(data), timeout=LONG) == data
        done.set()
        assert client.recv(4, timeout=LONG) == b"last"
        running.result()


def test_a_receive_that_begins_while_another_thread_has_the_tls_of_what_was_gathered(authority: Authority) -> None:
    """What comes for the receive meanwhile wakes it from another sleep than its own."""
    release = threading.Event()
    taken = threading.Event()

    def hold(_: object) -> None:
        taken.set()
        assert release.wait(LONG)

    def receive(secret: gtcp.Conn, conn: gtcp.Conn) -> bytes:
        secret.send(b"gathered")
        return conn.recv_pkg()

    def main() -> None:
        here, there = socket.socketpair()
        with Ends(authority) as ends, gtcp.Conn.from_socket(here) as conn, there:
            secret, far = ends.connect()
            secret._gather_sends()
            holding = Call(secret._ask_tls, hold)
            assert taken.wait(LONG)
            receiving = gtcp.spawn(receive, secret, conn)
            gtcp.sleep(0)
            there.sendall(frame(b"here"))
            gtcp.sleep(0.001)
            gtcp.sleep(0.001)
            release.set()
            assert receiving.get(LONG) == b"here"
            holding.result()
            assert read(far, 8) == b"gathered"

    gtcp.run(main)


def test_an_error_is_raised_by_the_next_call_and_not_by_the_wait() -> None:
    here, there = socket.socketpair()

    def main() -> None:
        with gtcp.Conn.from_socket(here) as conn:
            conn._gather_sends()
            there.close()
            conn.send_pkg(b"x")
            gtcp.sleep(0)
            conn.send_pkg(b"y")
            with pytest.raises(gtcp.PipeError):
                conn.recv_pkg(timeout=LONG)

    gtcp.run(main)
