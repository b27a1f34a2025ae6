"""Hazards of the original's reconnect on send (gtcp_pool.go) that gtcp does not inherit.

The numbers are those of the project's list of hazards; its severities A and B have a test each.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import gtcp
from conftest import MakePeer
from support.crew import Worker
from support.leaks import descriptors
from support.peers import echo, listen, read, reset, silent
from support.timing import LONG, SHORT, eventually, quick, takes

HUGE = bytes(16 << 20)


class Accepts:
    """A listener whose connections the test takes one by one."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.address = f"127.0.0.1:{listener.getsockname()[1]}"

    def take(self) -> socket.socket:
        sock, _ = self.listener.accept()
        sock.settimeout(LONG)
        return sock


@contextmanager
def stale_lease(backlog: int = 128, **options: object) -> Iterator[tuple[Accepts, gtcp.Pool, gtcp.PoolConn]]:
    """A lease of a reused connection which the peer resets after the look at checkout."""
    with listen(backlog=backlog) as listener, gtcp.Pool(address_of(listener), **options) as pool:  # type: ignore[arg-type]
        listener.settimeout(LONG)
        lease = pool.acquire()
        peer = Accepts(listener)
        first = peer.take()
        lease.send(b"x")
        first.sendall(read(first, 1))
        assert lease.recv(1) == b"x"
        lease.close()
        lease = pool.acquire()
        reset(first)
        eventually(lambda: not lease.is_alive())
        yield peer, pool, lease


def address_of(listener: socket.socket) -> str:
    return f"127.0.0.1:{listener.getsockname()[1]}"


def balanced(pool: gtcp.Pool) -> bool:
    stats = pool.stats()
    return stats.created - sum(stats.closed.values()) == stats.idle + stats.in_use


def test_H47_a_message_that_was_sent_in_part_is_not_sent_again() -> None:
    with listen() as listener, gtcp.Pool(address_of(listener)) as pool:
        peer = Accepts(listener)
        lease = pool.acquire()
        with peer.take() as first:
            lease.send(b"x")
            first.sendall(read(first, 1))
            assert lease.recv(1) == b"x"
            lease.close()
            lease = pool.acquire()
            sender = Worker(lambda: lease.send(HUGE, timeout=LONG))
            assert read(first, 1) == HUGE[:1]
            reset(first)
            error = sender.error()
        assert isinstance(error, gtcp.SocketError)
        assert error.sent is not None
        assert error.sent > 0
        lease.close()
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
        assert (pool.stats().created, pool.stats().closed["error"]) == (1, 1)


def test_H47_a_message_is_not_sent_again_after_a_reply() -> None:
    """What was received in this lease shows that the connection was alive: the failure is the caller's to judge."""
    with listen() as listener, gtcp.Pool(address_of(listener)) as pool:
        peer = Accepts(listener)
        lease = pool.acquire()
        first = peer.take()
        for _ in range(2):
            lease.send(b"x")
            first.sendall(read(first, 1))
            assert lease.recv(1) == b"x"
            if pool.stats().acquired == 1:
                lease.close()
                lease = pool.acquire()
        reset(first)
        eventually(lambda: not lease.is_alive())
        with pytest.raises(gtcp.SocketError):
            lease.send(b"y")
        lease.close()
        assert pool.stats().created == 1


def test_H47_reconnecting_can_be_switched_off() -> None:
    with stale_lease(reconnect=False) as (_, pool, lease):
        with pytest.raises(gtcp.SocketError):
            lease.send(b"y")
        lease.close()
        assert pool.stats().created == 1


def test_H48_the_connection_that_was_replaced_is_closed() -> None:
    with stale_lease() as (peer, pool, lease):
        old = {(fd, target) for fd, target in descriptors() if fd == lease.fileno()}
        assert len(old) == 1
        lease.send(b"y")
        with peer.take() as second:
            assert read(second, 1) == b"y"
            assert not old & descriptors()
            lease.discard()
        assert balanced(pool)
        assert (pool.stats().created, pool.stats().closed["peer_closed"]) == (2, 1)


def test_H49_reconnecting_has_an_end() -> None:
    """A peer that accepts and resets: a balancer with a cap."""
    with stale_lease() as (peer, pool, lease):
        resetting = threading.Event()

        def reset_all() -> int:
            count = 0
            while not resetting.is_set():
                try:
                    sock, _ = peer.listener.accept()
                except TimeoutError:
                    continue
                reset(sock)
                count += 1
            return count

        peer.listener.settimeout(SHORT / 5)
        server = Worker(reset_all)
        # The first takes the new connection, whose end it may see; the next one does.
        with quick(), pytest.raises((gtcp.SocketError, gtcp.EOF)):
            lease.send_recv(b"y", 1, timeout=LONG)
        lease.close()
        resetting.set()
        assert server.result() == 1
        assert balanced(pool)


def test_H49_when_nobody_listens_any_more_the_send_says_so() -> None:
    with stale_lease() as (peer, pool, lease):
        peer.listener.close()
        with quick(), pytest.raises(gtcp.RefusedError):
            lease.send(b"y", gtcp.Retry(count=3, interval=LONG))
        assert pool.stats().in_use == 1
        lease.close()
        assert (pool.stats().in_use, pool.stats().idle) == (0, 0)
        assert balanced(pool)


def test_H50_the_deadline_holds_for_the_replacement() -> None:
    with stale_lease() as (peer, _, lease):
        with takes(SHORT), pytest.raises(gtcp.Timeout):
            lease.send_with_timeout(HUGE, SHORT)
        with peer.take():
            lease.close()


def test_H50_the_deadline_holds_for_the_dial_of_the_replacement() -> None:
    # One connection waits to be accepted, which fills the queue: the dial stays unanswered.
    with stale_lease(backlog=0) as (peer, pool, lease), socket.create_connection(peer.listener.getsockname()):
        with takes(SHORT), pytest.raises(gtcp.Timeout, match="connecting"):
            lease.send_with_timeout(b"y", SHORT)
        lease.close()
        assert balanced(pool)


def test_H50_a_lease_that_is_closed_while_it_reconnects_stays_closed() -> None:
    with stale_lease(backlog=0) as (peer, pool, lease), socket.create_connection(peer.listener.getsockname()):
        sender = Worker(lambda: lease.send(b"y", timeout=LONG))
        sender.asleep()
        lease.close()
        with peer.take():  # room in the queue: the dial succeeds when the kernel repeats it
            assert isinstance(sender.error(), gtcp.ClosedError)
        assert lease.closed
        assert (pool.stats().in_use, pool.stats().idle) == (0, 1)  # what it has dialled is the next one's
        assert balanced(pool)


def test_H51_a_connection_that_was_closed_while_idle_is_replaced_unseen(peer: MakePeer) -> None:
    def one_answer(sock: socket.socket) -> None:
        sock.sendall(read(sock, 4))
        sock.shutdown(socket.SHUT_WR)
        silent(sock)
        gone.set()

    gone = threading.Event()
    closing = peer(one_answer)
    with gtcp.Pool(closing.address) as pool:
        for _ in range(10):
            gone.clear()
            with pool.acquire() as lease:
                assert lease.send_recv(b"ping", 4, timeout=LONG) == b"ping"
                eventually(lambda: not lease.is_alive())
        assert closing.accepted == 10


def test_H51_an_end_instead_of_a_reply_is_the_callers_and_ends_the_connection() -> None:
    """The kernel takes a small write to a half-closed connection: nobody can tell whether it was seen."""
    with listen() as listener, gtcp.Pool(address_of(listener)) as pool:
        peer = Accepts(listener)
        lease = pool.acquire()
        with peer.take() as first:
            lease.send(b"x")
            first.sendall(read(first, 1))
            assert lease.recv(1) == b"x"
            lease.close()
            lease = pool.acquire()
            first.shutdown(socket.SHUT_WR)
            eventually(lambda: not lease.is_alive())
            with pytest.raises(gtcp.EOF):
                lease.send_recv(b"y", 1, timeout=LONG)
            lease.close()
        assert (pool.stats().idle, pool.stats().created) == (0, 1)


def test_H51_a_pool_recovers_from_a_restart_of_its_server(peer: MakePeer) -> None:
    echoing = peer(echo)
    with gtcp.Pool(echoing.address) as pool:
        leases = [pool.acquire() for _ in range(5)]
        for lease in leases:
            assert lease.send_recv(b"x", 1) == b"x"
        for lease in leases:
            lease.close()
        echoing.close()
        again = peer(echo, port=echoing.port)
        with quick(), pool.acquire() as lease:
            assert lease.send_recv(b"y", 1) == b"y"
        assert (again.accepted, pool.stats().closed["peer_closed"]) == (1, 5)
