"""Hazards of the original's general pool (container/gpool) that gtcp's pool does not inherit.

The numbers are those of the project's list of hazards; its severities A and B have a test each.
"""

import socket
import threading

import pytest

import gtcp
from conftest import MakePeer
from support.crew import Worker, results, together
from support.peers import echo
from support.timing import LONG, eventually


class Counting:
    """An echo script that knows how many of its connections are open."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.opened = 0
        self.closed = 0

    def __call__(self, sock: socket.socket) -> None:
        with self.lock:
            self.opened += 1
        echo(sock)
        with self.lock:
            self.closed += 1

    def all_closed(self) -> bool:
        return self.opened == self.closed


def used_lease(pool: gtcp.Pool) -> gtcp.PoolConn:
    lease = pool.acquire(LONG)
    assert lease.send_recv(b"x", 1, timeout=LONG) == b"x"
    return lease


def test_H68_a_closed_pool_lends_nothing(peer: MakePeer) -> None:
    echoing = peer(echo)
    pool = gtcp.Pool(echoing.address)
    used_lease(pool).close()
    pool.close()
    pool.close()
    with pytest.raises(gtcp.PoolClosed):
        pool.acquire()
    assert echoing.accepted == 1


def test_H68_close_has_closed_the_idle_connections_when_it_returns(peer: MakePeer) -> None:
    script = Counting()
    pool = gtcp.Pool(peer(script).address)
    leases = [used_lease(pool) for _ in range(5)]
    for lease in leases:
        lease.close()
    assert pool.stats().idle == 5
    pool.close()
    assert (pool.stats().idle, pool.stats().closed["cleared"]) == (0, 5)
    eventually(script.all_closed)
    assert script.closed == 5


def test_H68_what_comes_back_to_a_closed_pool_is_closed(peer: MakePeer) -> None:
    script = Counting()
    pool = gtcp.Pool(peer(script).address)
    lease = used_lease(pool)
    pool.close()
    # The borrower finishes undisturbed.
    assert lease.send_recv(b"y", 1) == b"y"
    lease.close()
    assert (pool.stats().idle, pool.stats().in_use) == (0, 0)
    eventually(script.all_closed)


def test_H69_no_connection_slips_into_a_pool_that_is_being_closed(peer: MakePeer) -> None:
    script = Counting()
    address = peer(script).address
    for _ in range(30):
        pool = gtcp.Pool(address)
        leases = [used_lease(pool) for _ in range(4)]
        results(together([pool.close, *(lease.close for lease in leases)]))
        stats = pool.stats()
        assert (stats.idle, stats.in_use, stats.created - sum(stats.closed.values())) == (0, 0, 0)
    eventually(script.all_closed)
    assert script.closed == 120


def test_H69_no_connection_is_dialled_into_a_pool_that_is_being_closed(peer: MakePeer) -> None:
    script = Counting()
    address = peer(script).address

    def borrow(pool: gtcp.Pool) -> None:
        try:
            pool.acquire(LONG).close()
        except gtcp.PoolClosed:
            refused.append(pool)

    refused: list[gtcp.Pool] = []
    for _ in range(30):
        pool = gtcp.Pool(address, max_size=2)
        borrowers = [lambda pool=pool: borrow(pool) for _ in range(4)]
        results(together([pool.close, *borrowers]))
        stats = pool.stats()
        assert (stats.idle, stats.in_use, stats.connecting, stats.waiting) == (0, 0, 0, 0)
        assert stats.created == sum(stats.closed.values())
    eventually(script.all_closed)


def test_H70_a_look_at_the_idle_ones_never_makes_the_pool_look_empty(peer: MakePeer) -> None:
    """The original's janitor takes connections out to look at them; who asks meanwhile dials."""
    echoing = peer(echo)
    with gtcp.Pool(echoing.address, ttl=LONG) as pool:
        used_lease(pool).close()
        done = threading.Event()

        def janitor() -> None:
            while not done.is_set():
                pool._reap()  # what the reaper calls

        looking = Worker(janitor)
        for _ in range(2000):
            pool.acquire().close()
        done.set()
        looking.result()
        assert echoing.accepted == 1
