"""Hazards of the original's pool (gtcp_pool.go): what a lease may do to the next one.

The numbers are those of the project's list of hazards; its severities A and B have a test each. The
hazards of sending on a stale connection are in test_reconnect.py.
"""

import gc
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable

import pytest

import gtcp
from conftest import MakePeer
from support.crew import Worker
from support.peers import echo, read, silent
from support.timing import LONG, SHORT, eventually, quick


def ports(pool: gtcp.Pool, leases: int) -> list[int]:
    """The local ports of so many leases in a row, each with an exchange."""
    found = []
    for _ in range(leases):
        with pool.acquire() as lease:
            assert lease.send_recv(b"ping", 4, timeout=LONG) == b"ping"
            found.append(lease.local_addr().port)
    return found


def test_H43_a_second_close_leaves_the_pooled_connection_alone(peer: MakePeer) -> None:
    with gtcp.Pool(peer(echo).address) as pool:
        first = pool.acquire()
        assert first.send_recv(b"x", 1) == b"x"
        port = first.local_addr().port
        first.close()
        first.close()
        with pool.acquire() as second:
            # The connection is in another's hands when the first holder closes once more.
            first.close()
            first.discard()
            first.abort()
            assert second.send_recv(b"y", 1) == b"y"
            assert second.local_addr().port == port
        assert ports(pool, 1) == [port]


USES: dict[str, Callable[[gtcp.PoolConn], object]] = {
    "send": lambda lease: lease.send(b"stray"),
    "send_pkgs": lambda lease: lease.send_pkgs([b"stray"]),
    "send_recv": lambda lease: lease.send_recv(b"stray"),
    "send_recv_pkgs": lambda lease: lease.send_recv_pkgs([b"stray"]),
    "recv": lambda lease: lease.recv(0),
    "recv_into": lambda lease: lease.recv_into(bytearray(1)),
    "recv_line": lambda lease: lease.recv_line(),
    "recv_pkgs": lambda lease: lease.recv_pkgs(),
    "packages": lambda lease: next(lease.packages()),
    "close_write": lambda lease: lease.close_write(),
    "detach": lambda lease: lease.detach(),
    "local_addr": lambda lease: lease.local_addr(),
}


@pytest.mark.parametrize("use", USES)
def test_H44_a_lease_is_dead_after_close(peer: MakePeer, use: str) -> None:
    with gtcp.Pool(peer(echo).address) as pool:
        first = pool.acquire()
        assert first.send_recv(b"x", 1) == b"x"
        first.close()
        with pool.acquire() as second:
            second.send(b"mine")
            with quick(), pytest.raises(gtcp.ClosedError):
                USES[use](first)
            assert (first.closed, first.fileno(), first.buffered, first.is_alive()) == (True, -1, 0, False)
            assert second.recv(4) == b"mine"


def test_H45_a_lease_with_an_unread_reply_is_not_pooled(peer: MakePeer) -> None:
    with gtcp.Pool(peer(echo).address) as pool:
        with pool.acquire() as first:
            first.send(b"nobody reads the reply")
        assert (pool.stats().idle, pool.stats().closed["owed"]) == (0, 1)
        assert ports(pool, 1) != []


def test_H45_a_lease_with_unread_bytes_is_not_pooled(peer: MakePeer) -> None:
    with gtcp.Pool(peer(echo).address) as pool:
        with pool.acquire() as first:
            first.send(b"one\ntwo\n")
            assert first.recv_line() == b"one"
            eventually(lambda: first.buffered)
        assert (pool.stats().idle, pool.stats().closed["dirty"]) == (0, 1)
        assert ports(pool, 1) != []


def test_H46_a_failure_is_not_forgotten_by_a_later_success(peer: MakePeer) -> None:
    def late(sock: socket.socket) -> None:
        assert read(sock, 5) == b"first"
        asked_again.wait(LONG)
        assert read(sock, 6) == b"second"
        sock.sendall(b"reply to the first, reply to the second")
        silent(sock)

    asked_again = threading.Event()
    with gtcp.Pool(peer(late).address) as pool:
        lease = pool.acquire()
        with pytest.raises(gtcp.Timeout):
            lease.send_recv(b"first", 5, timeout=SHORT / 10)
        asked_again.set()
        lease.send(b"second")
        assert lease.recv(39, timeout=LONG) != b""
        lease.close()
        assert (pool.stats().idle, pool.stats().closed["error"]) == (0, 1)


BAD: dict[str, Callable[[gtcp.PoolConn], object]] = {
    "too long": lambda lease: lease.send_pkg(bytes(70_000)),
    "too long for its header": lambda lease: lease.send_recv_pkg(bytes(300), gtcp.PkgOption(header_size=1)),
    "one of many too long": lambda lease: lease.send_pkgs([b"fine", bytes(70_000)]),
    "not bytes": lambda lease: lease.send("text"),  # type: ignore[arg-type]
    "no option": lambda lease: lease.send_pkg(b"x", 2),  # type: ignore[arg-type]
    "negative length": lambda lease: lease.recv(-2),
    "no delimiter": lambda lease: lease.recv_till(b""),
    "negative timeout": lambda lease: lease.recv(1, timeout=-1),
}


@pytest.mark.parametrize("bad", BAD)
def test_H52_wrong_arguments_neither_dial_nor_break(peer: MakePeer, bad: str) -> None:
    echoing = peer(echo)
    with gtcp.Pool(echoing.address) as pool:
        (port,) = ports(pool, 1)
        with pool.acquire() as lease:
            with pytest.raises((ValueError, TypeError)):
                BAD[bad](lease)
            assert lease.send_recv(b"x", 1) == b"x"
        assert ports(pool, 1) == [port]
        assert echoing.accepted == 1


def shut(lease: gtcp.PoolConn) -> None:
    with socket.socket(fileno=os.dup(lease.fileno())) as other:
        other.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "end", [gtcp.PoolConn.abort, gtcp.PoolConn.discard, gtcp.PoolConn.close_write, lambda lease: lease.detach().close()]
)
def test_H55_a_closed_connection_is_never_pooled(peer: MakePeer, end: Callable[[gtcp.PoolConn], object]) -> None:
    with gtcp.Pool(peer(echo).address) as pool:
        lease = pool.acquire()
        assert lease.send_recv(b"x", 1) == b"x"
        end(lease)
        lease.close()
        stats = pool.stats()
        assert (stats.idle, stats.in_use, stats.created - sum(stats.closed.values())) == (0, 0, 0)
        assert ports(pool, 1) != []


def test_H56_deadlines_and_gaps_end_with_their_lease(peer: MakePeer) -> None:
    with gtcp.Pool(peer(echo).address) as pool:
        with pool.acquire() as first:
            assert first.send_recv(b"x", 1) == b"x"
            port = first.local_addr().port
            first.set_deadline(time.monotonic() - 1)
            first.set_buffer_wait_recv(LONG)
        with pool.acquire() as second, quick():
            assert second.send_recv(b"data", -1) == b"data"
            assert second.local_addr().port == port


def test_H59_expired_connections_are_closed_although_nobody_calls(peer: MakePeer) -> None:
    ended = threading.Event()

    def echo_until_the_end(sock: socket.socket) -> None:
        echo(sock)
        ended.set()

    with gtcp.Pool(peer(echo_until_the_end).address, ttl=SHORT) as pool:
        ports(pool, 1)
        assert ended.wait(LONG)
        assert (pool.stats().idle, pool.stats().closed["ttl"]) == (0, 1)


def test_H60_a_pool_has_a_size_a_wait_and_books(peer: MakePeer) -> None:
    echoing = peer(echo)
    with gtcp.Pool(echoing.address, max_size=2, timeout=SHORT / 10) as pool:
        with pool.acquire(LONG), pool.acquire(LONG):
            with pytest.raises(gtcp.PoolTimeout, match="max_size 2, in use 2"):
                pool.acquire()
            assert pool.stats().in_use == 2
        assert (pool.stats().idle, pool.stats().in_use) == (2, 0)
        pool.clear()
        assert (pool.stats().idle, pool.stats().closed["cleared"]) == (0, 2)
        assert echoing.accepted == 2


def test_H60_nothing_remains_of_a_pool_that_is_gone(peer: MakePeer) -> None:
    echoing = peer(echo)
    shared = gtcp.get_pool(echoing.address)
    ports(shared, 1)
    shared.close()
    assert gtcp.get_pool(echoing.address) is not shared
    gtcp.get_pool(echoing.address).close()
    gone = weakref.ref(shared)
    del shared
    gc.collect()
    assert gone() is None


def test_H63_a_connection_shut_behind_its_lease_is_not_lent_again(peer: MakePeer) -> None:
    with gtcp.Pool(peer(echo).address) as pool:
        (port,) = ports(pool, 1)
        with pool.acquire() as lease:
            shut(lease)
        assert ports(pool, 1) != [port]
        assert pool.stats().closed["peer_closed"] == 1


def test_H63_the_descriptor_of_a_lease_cannot_be_taken_and_pooled(peer: MakePeer) -> None:
    with gtcp.Pool(peer(echo).address) as pool:
        lease = pool.acquire()
        with lease.detach() as sock:
            lease.close()
            assert (pool.stats().idle, pool.stats().in_use) == (0, 0)
            sock.sendall(b"mine")
            assert read(sock, 4) == b"mine"


def test_H65_a_lease_closed_by_another_thread_is_not_pooled(peer: MakePeer) -> None:
    with gtcp.Pool(peer(silent).address) as pool:
        lease = pool.acquire()
        receiver = Worker(lambda: lease.recv(1, timeout=LONG))
        receiver.asleep()
        lease.close()
        assert isinstance(receiver.error(), gtcp.ClosedError)
        assert (pool.stats().idle, pool.stats().in_use, pool.stats().closed["error"]) == (0, 0, 1)
