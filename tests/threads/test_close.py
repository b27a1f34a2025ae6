"""close() from another thread: it wakes everybody at once, and no descriptor changes hands under a sleeper.

Row ids are those of the project's table of faults.
"""

import contextlib
import ctypes
import hashlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import gtcp
from support.crew import Worker, together
from support.peers import socket_pair
from support.timing import LATE, LONG, quick

HUGE = bytes(16 << 20)
WIDE = gtcp.PkgOption(header_size=4)

BLOCKING: dict[str, Callable[[gtcp.Conn], object]] = {
    "recv": lambda conn: conn.recv(1),
    "recv with timeout": lambda conn: conn.recv(1, timeout=LONG),
    "recv_into": lambda conn: conn.recv_into(bytearray(4)),
    "recv_line": lambda conn: conn.recv_line(),
    "recv_pkg": lambda conn: conn.recv_pkg(),
    "recv_pkgs": lambda conn: conn.recv_pkgs(),
    "packages": lambda conn: list(conn.packages()),
    "send": lambda conn: conn.send(HUGE),
    "send_pkg": lambda conn: conn.send_pkg(HUGE, WIDE, timeout=LONG),
    "send_pkgs": lambda conn: conn.send_pkgs([HUGE], WIDE),
    "send_recv": lambda conn: conn.send_recv(b"x", 1),
    "send_recv_pkg": lambda conn: conn.send_recv_pkg(HUGE, WIDE),
    "send_recv_pkgs": lambda conn: conn.send_recv_pkgs([HUGE] * 2, WIDE),
}
ENDS = {"close": gtcp.Conn.close, "abort": gtcp.Conn.abort}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", BLOCKING)
def test_H1_close_wakes_a_blocked_call(name: str, end: str) -> None:
    with socket_pair() as (ours, _), gtcp.Conn.from_socket(ours) as conn:
        blocked = Worker(lambda: BLOCKING[name](conn))
        blocked.asleep()
        with quick():
            ENDS[end](conn)
            assert isinstance(blocked.error(), gtcp.ClosedError)
        assert conn.fileno() == -1


def test_H1_close_wakes_everybody_who_queues() -> None:
    with socket_pair() as (ours, _), gtcp.Conn.from_socket(ours) as conn:
        calls = [
            lambda: conn.send(HUGE),
            *[lambda: conn.send(b"x")] * 4,
            *[lambda: conn.send_recv(b"x", 1)] * 4,
            *[lambda: conn.send_recv_pkgs([b"x"], timeout=LONG)] * 4,
            *[lambda: conn.send_pkgs([b"x"], timeout=LONG)] * 4,
        ]
        crew: list[Worker[object]] = []
        for call in calls:
            crew.append(Worker(call))
            crew[-1].asleep()
        with quick():
            conn.close()
            assert {type(worker.error()) for worker in crew} == {gtcp.ClosedError}


def test_H1_close_wakes_a_receiver_and_a_sender_together() -> None:
    with socket_pair() as (ours, _), gtcp.Conn.from_socket(ours) as conn:
        crew: list[Worker[object]] = [Worker(lambda: conn.recv(1)), Worker(lambda: conn.send(HUGE))]
        for worker in crew:
            worker.asleep()
        with quick():
            conn.close()
            assert {type(worker.error()) for worker in crew} == {gtcp.ClosedError}


def test_H1_every_close_is_quick_and_every_call_ends() -> None:
    """Many closes at random moments of a call's life, not only while it sleeps."""

    def exchange(conn: gtcp.Conn) -> None:
        while True:
            conn.send_recv(b"ping", 4, timeout=LONG)

    for i in range(100):
        with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:

            def answer(sock: socket.socket = theirs, closing: gtcp.Conn = conn, when: int = i) -> None:
                for _ in range(when):
                    sock.sendall(sock.recv(4))
                closing.close()

            exchanging, _ = together([lambda: exchange(conn), answer])
            assert isinstance(exchanging.error(), gtcp.ClosedError)


@contextmanager
def undisturbed() -> Iterator[None]:
    """No other thread gets the interpreter inside the block, unless it is handed over."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(LONG)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def dup(fd: int) -> int:
    """The lowest free descriptor. Unlike os.dup it never lets other threads run."""
    copy: int = ctypes.PyDLL(None).dup(fd)
    assert copy >= 0
    return copy


@pytest.mark.parametrize("name", ["recv", "send", "send_recv"])
def test_H2_the_number_of_a_descriptor_is_not_free_while_a_call_sleeps_on_it(name: str) -> None:
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        blocked = Worker(lambda: BLOCKING[name](conn))
        blocked.asleep()
        number = conn.fileno()
        with undisturbed():
            conn.close()
            # The sleeper is awake, but has not left its call: it needs the interpreter for that.
            copies = [dup(theirs.fileno()) for _ in range(8)]
        assert isinstance(blocked.error(), gtcp.ClosedError)
        free = dup(theirs.fileno())
        for fd in [*copies, free]:
            os.close(fd)
        assert number not in copies
        assert free <= number, "the number has never been released"


def test_H2_no_stranger_is_read_from_or_written_to() -> None:
    """New sockets are made at once after the close, and bytes wait in them."""
    for _ in range(100):
        with socket_pair() as (ours, theirs):
            conn = gtcp.Conn.from_socket(ours)
            crew: list[Worker[object]] = [
                Worker(lambda: conn.recv(0, timeout=LONG)),  # noqa: B023
                Worker(lambda: conn.send(HUGE, timeout=LONG)),  # noqa: B023
            ]
            theirs.recv(1)
            conn.close()
            strangers = [socket.socketpair() for _ in range(4)]
            for mine, other in strangers:
                other.sendall(b"private")
                mine.setblocking(False)
                other.setblocking(False)
            assert {type(worker.error()) for worker in crew} == {gtcp.ClosedError}
            for mine, other in strangers:
                assert mine.recv(100) == b"private"
                with pytest.raises(BlockingIOError):
                    other.recv(1)
                mine.close()
                other.close()


def test_H1_close_from_many_threads_closes_once() -> None:
    for _ in range(200):
        with socket_pair() as (ours, _):
            conn = gtcp.Conn.from_socket(ours)
            number = conn.fileno()
            crew = together([conn.close] * 4)
            assert [worker._error for worker in crew] == [None] * 4
            with pytest.raises(OSError, match="Bad file"):
                os.fstat(number)


def test_H6_the_last_reference_goes_while_another_thread_receives() -> None:
    with socket_pair() as (ours, theirs):
        held = [gtcp.Conn.from_socket(ours)]
        inside = threading.Event()

        def receive() -> bytes:
            conn = held[0]
            inside.set()
            try:
                return conn.recv(4, timeout=LONG)
            finally:
                conn.close()

        receiver = Worker(receive)
        assert inside.wait(LONG)
        receiver.asleep()
        held.clear()
        theirs.sendall(b"data")
        assert receiver.result() == b"data"


def test_H6_a_bound_method_keeps_its_connection() -> None:
    with socket_pair() as (ours, theirs):
        conn = gtcp.Conn.from_socket(ours)
        close = conn.close
        receiver = Worker(conn.recv_line)
        receiver.asleep()
        del conn
        theirs.sendall(b"line\n")
        assert receiver.result(LATE + LONG) == b"line"
        del receiver
        close()


def test_H1_gathered_bytes_stay_while_the_kernel_reads_them() -> None:
    """Memory that was given back too early holds something else soon, which the peer got: in one round of thousands."""
    for lap in range(2000):
        with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
            conn._gather_sends()
            for _ in range(16):
                conn.send(bytes(4000))
            gate = threading.Barrier(2)
            closing = Worker(lambda: (gate.wait(LONG), burn(lap % 29), conn.close()))  # noqa: B023
            gate.wait(LONG)
            burn(lap % 23)
            with contextlib.suppress(gtcp.ClosedError):
                conn.flush()
            closing.result()
            received = b""
            while data := theirs.recv(1 << 20):
                received += data
            assert received == bytes(len(received))


def burn(rounds: int) -> None:
    """Take some time without the GIL."""
    for _ in range(rounds):
        hashlib.sha256(HUGE[:5000])
