"""A signal handler uses the connection or the pool whose call it interrupts: never a deadlock.

Row ids are those of the project's table of faults.
"""

import signal
from collections.abc import Callable
from typing import TypeVar

import pytest

import gtcp
from support import child
from support.crew import Worker
from support.interrupts import shoot
from support.peers import Peer, echo, frame, read, read_frame, socket_pair
from support.timing import LONG, eventually, quick

T = TypeVar("T")
HUGE = bytes(16 << 20)


class Handler:
    """Makes a call when the signal comes, and keeps what it raised."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call
        self.errors: list[BaseException | None] = []
        signal.signal(signal.SIGUSR1, self.handle)

    def handle(self, number: int, frame: object) -> None:
        with quick():
            try:
                self.call()
            except gtcp.Error as error:
                self.errors.append(error)
            else:
                self.errors.append(None)

    def before(self, action: Callable[[], T]) -> Worker[T]:
        """Lets the signal interrupt the main thread when it sleeps; afterwards does `action`, for which it waits."""
        shot = shoot(signal.SIGUSR1)

        def act() -> T:
            shot.wait()
            eventually(lambda: self.errors)
            return action()

        return Worker(act)

    def was_refused(self) -> bool:
        return [type(error) for error in self.errors] == [gtcp.ConcurrencyError]


def receive_inside_receive() -> None:
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        for call in (conn.recv_line, conn.recv_pkg, lambda: conn.send_recv_pkg(b"x")):
            handler = Handler(call)
            answer = handler.before(lambda: theirs.sendall(frame(b"reply")))
            assert conn.recv_pkg(timeout=LONG) == b"reply"
            answer.result()
            assert handler.was_refused()
        handler = Handler(lambda: conn.send_pkg(b"sending is something else"))
        answer = handler.before(lambda: theirs.sendall(frame(read_frame(theirs))))
        assert conn.recv_pkg(timeout=LONG) == b"sending is something else"
        answer.result()
        assert handler.errors == [None]


def test_H5_receiving_in_a_handler_is_refused() -> None:
    child.run(receive_inside_receive)


def send_inside_send() -> None:
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        for call in (lambda: conn.send(b"inside"), lambda: conn.send_pkgs([b"inside"])):
            handler = Handler(call)
            answer = handler.before(lambda: read(theirs, len(HUGE)))
            conn.send(HUGE, timeout=LONG)
            assert answer.result() == HUGE
            assert handler.was_refused()


def test_H5_sending_in_a_handler_is_refused() -> None:
    child.run(send_inside_send)


def send_inside_the_wait_for_a_turn() -> None:
    """The interrupted call would get its turn first, but it cannot go on before the handler returns."""
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        first = Worker(lambda: conn.send(HUGE, timeout=LONG))
        first.asleep()
        handler = Handler(lambda: conn.send(b"inside"))

        reader = handler.before(lambda: read(theirs, len(HUGE) + 7))
        conn.send(b"outside", timeout=LONG)
        assert reader.result() == HUGE + b"outside"
        first.result()
        assert handler.was_refused()


def test_H5_sending_in_a_handler_of_a_waiting_sender_is_refused() -> None:
    child.run(send_inside_the_wait_for_a_turn)


def borrow_inside_an_exchange() -> None:
    with Peer(echo) as peer, gtcp.Pool(peer.address, max_size=2) as pool, pool.acquire() as lease:

        def borrow() -> None:
            with pool.acquire() as other:
                assert other.send_recv_pkg(b"inside", timeout=LONG) == b"inside"

        handler = Handler(borrow)
        answer = handler.before(lambda: lease.send_pkg(b"outside"))
        assert lease.recv_pkg(timeout=LONG) == b"outside"
        answer.result()
        assert handler.errors == [None]


def test_H5_a_handler_may_use_the_pool() -> None:
    child.run(borrow_inside_an_exchange)


def borrow_inside_the_wait_for_a_lease(handed_over: bool) -> None:
    """The interrupted call is served first, perhaps already; it cannot go on before the handler returns."""
    with Peer(echo) as peer, gtcp.Pool(peer.address, max_size=1) as pool:
        holder = pool.acquire()

        def borrow() -> None:
            if handed_over:
                holder.close()
            pool.acquire(LONG).close()

        handler = Handler(borrow)

        ending = handler.before(holder.close)
        pool.acquire(LONG).close()
        ending.result()
        assert handler.was_refused()
        assert (pool.stats().idle, pool.stats().in_use, pool.stats().waiting) == (1, 0, 0)


@pytest.mark.parametrize("handed_over", [False, True])
def test_H5_borrowing_in_a_handler_of_a_waiting_borrower_is_refused(handed_over: bool) -> None:
    child.run(borrow_inside_the_wait_for_a_lease, handed_over)
