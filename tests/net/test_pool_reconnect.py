"""Reconnecting on a send: only when a reused connection was dead before a byte left (C3, E1)."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import gtcp
from net.ends import Host, MakePool
from support.calls import Call
from support.peers import frame, read, read_frame, reset
from support.timing import LONG, SHORT, eventually, quick

# The call, what it sends, what answers it.
SENDS: dict[str, tuple[Callable[[gtcp.PoolConn], Any], bytes, bytes]] = {
    "send": (lambda lease: lease.send(b"hello"), b"hello", b""),
    "send_pkg": (lambda lease: lease.send_pkg(b"hello"), frame(b"hello"), b""),
    "send_recv": (lambda lease: lease.send_recv(b"hello", 5, timeout=LONG), b"hello", b"reply"),
    "send_recv_pkg": (lambda lease: lease.send_recv_pkg(b"hello", timeout=LONG), frame(b"hello"), frame(b"reply")),
    "send_pkgs": (lambda lease: lease.send_pkgs([b"he", b"llo"]), frame(b"he") + frame(b"llo"), b""),
    "send_recv_pkgs": (
        lambda lease: b"".join(lease.send_recv_pkgs([b"he", b"llo"], timeout=LONG)),
        frame(b"he") + frame(b"llo"),
        frame(b"rep") + frame(b"ly"),
    ),
}


def stale_lease(pool: gtcp.Pool, host: Host) -> gtcp.PoolConn:
    """A lease of a reused connection that the peer has reset after the look at checkout."""
    pool.acquire().close()
    lease = pool.acquire()
    reset(host.accept())
    return lease


@pytest.mark.parametrize("name", SENDS)
def test_a_send_moves_to_a_new_connection(host: Host, make_pool: MakePool, name: str) -> None:
    pool = make_pool(host.address)
    lease = stale_lease(pool, host)
    old = lease.local_addr()
    call, request, reply = SENDS[name]
    sending = Call(call, lease)
    far = host.accept()
    far.sendall(reply)
    assert sending.result() == (b"reply" if reply else None)
    assert lease.local_addr() != old
    assert read(far, len(request)) == request
    lease.discard()
    assert far.recv(1) == b""  # once and no more
    stats = pool.stats()
    assert stats.created - sum(stats.closed.values()) == stats.idle + stats.in_use == 0


def test_the_new_connection_goes_back_into_the_pool(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address)
    lease = stale_lease(pool, host)
    lease.send_pkg(b"request")
    far = host.accept()
    far.sendall(frame(b"reply"))
    assert lease.recv_pkg(timeout=LONG) == b"reply"
    lease.close()
    stats = pool.stats()
    assert (stats.idle, stats.in_use, stats.created) == (1, 0, 2)


def test_reconnecting_can_be_switched_off(host: Host, make_pool: MakePool) -> None:
    lease = stale_lease(make_pool(host.address, reconnect=False), host)
    with pytest.raises((gtcp.ResetError, gtcp.PipeError)) as error:
        lease.send(b"hello")
    assert error.value.sent == 0
    lease.close()
    assert host.nobody_came()


def test_E1_what_on_acquire_has_set_up_is_not_replaced(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address, on_acquire=lambda lease: lease.send_pkg(b"tenant A"), one_way=True)
    lease = stale_lease(pool, host)
    with pytest.raises((gtcp.ResetError, gtcp.PipeError)) as error:
        lease.send_pkg(b"hello")
    assert error.value.sent == 0
    lease.close()
    assert host.nobody_came()


def test_a_fresh_connection_is_not_replaced(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address)
    lease = pool.acquire()
    reset(host.accept())
    with pytest.raises((gtcp.ResetError, gtcp.PipeError)):
        lease.send(b"hello")
    lease.close()
    assert host.nobody_came()


def test_nothing_is_replaced_after_a_reply(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address)
    pool.acquire().close()
    lease = pool.acquire()
    far = host.accept()
    far.sendall(b"reply")
    assert lease.send_recv(b"request", 5, timeout=LONG) == b"reply"
    read(far, 7)
    reset(far)
    with pytest.raises((gtcp.ResetError, gtcp.PipeError)):
        lease.send(b"more")
    lease.close()
    assert host.nobody_came()


def test_C3_nothing_is_replaced_once_a_byte_was_taken(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address)
    pool.acquire().close()
    lease = pool.acquire()
    far = host.accept()
    sending = Call(lease.send, bytes(64 << 20), timeout=LONG).sleeping()
    reset(far)
    with pytest.raises((gtcp.ResetError, gtcp.PipeError)) as error:
        sending.result()
    assert error.value.sent
    lease.close()
    assert host.nobody_came()


def test_C3_nothing_is_replaced_for_a_receive(host: Host, make_pool: MakePool) -> None:
    lease = stale_lease(make_pool(host.address), host)
    with pytest.raises(gtcp.ResetError):
        lease.recv(timeout=LONG)
    with pytest.raises((gtcp.ResetError, gtcp.PipeError)):
        lease.send(b"hello")  # the lease has failed already
    lease.close()
    assert host.nobody_came()


def test_an_eof_instead_of_a_reply_is_the_callers(host: Host, make_pool: MakePool) -> None:
    pool = make_pool(host.address)
    pool.acquire().close()
    lease = pool.acquire()
    host.accept().shutdown(socket.SHUT_WR)
    with pytest.raises(gtcp.EOF):
        lease.send_recv_pkg(b"hello", timeout=LONG)
    lease.close()
    assert host.nobody_came()


class SlowPool(gtcp.Pool):
    """A pool whose later dials wait for the test."""

    def __init__(self, address: str) -> None:
        super().__init__(address, dial=self.slow_dial)
        self.dialling = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def slow_dial(self, address: gtcp.Address, timeout: float | None) -> gtcp.Conn:
        self.dialling.set()
        assert self.go_on.wait(LONG)
        return gtcp.Conn(address, timeout)


@contextmanager
def amid_a_reconnect(host: Host) -> Iterator[tuple[SlowPool, gtcp.PoolConn, Call]]:
    """A send of a stale lease, whose new connection comes when the pool's dial may `go_on`."""
    with SlowPool(host.address) as pool:
        lease = stale_lease(pool, host)
        pool.dialling.clear()
        pool.go_on.clear()
        sending = Call(lease.send, b"hello")
        assert pool.dialling.wait(LONG)
        yield pool, lease, sending


def test_a_lease_closed_while_it_reconnects_stays_closed(host: Host) -> None:
    with amid_a_reconnect(host) as (pool, lease, sending):
        lease.close()
        pool.go_on.set()
        with pytest.raises(gtcp.ClosedError):
            sending.result()
        stats = pool.stats()
        assert (stats.idle, stats.in_use) == (1, 0)  # what has come is for the next one
        assert stats.created - sum(stats.closed.values()) == 1


def test_E17_a_lease_that_reconnects_while_the_pool_is_cut_gets_nothing_new(host: Host) -> None:
    with amid_a_reconnect(host) as (pool, lease, sending):
        assert pool.close(timeout=0) == 1
        pool.go_on.set()
        assert isinstance(sending.error(), gtcp.PoolClosed)
        assert host.accept().recv(1) == b""
        with pytest.raises(gtcp.Error):
            lease.send(b"hello")
        lease.close()
        stats = pool.stats()
        assert stats.created - sum(stats.closed.values()) == stats.idle + stats.in_use == 0


def test_E18_leases_do_not_reconnect_to_an_address_that_is_known_to_be_dead(make_pool: MakePool) -> None:
    host = Host()
    pool = make_pool(host.address, check=False)
    leases = [pool.acquire() for _ in range(10)]
    for lease in leases:
        lease.close()
    leases = [pool.acquire() for _ in range(10)]
    for _ in leases:
        reset(host.accept())
    host.close()
    for lease in leases:
        eventually(lambda: not lease.is_alive())  # noqa: B023
    with pytest.raises(gtcp.RefusedError):
        pool.acquire(LONG)
    for lease in leases:
        with pytest.raises((gtcp.RefusedError, gtcp.ResetError, gtcp.PipeError)):
            lease.send(b"hello")
        lease.close()
    assert pool.stats().failed <= 3  # the caller's, and what came after a pause


def test_E14_a_slow_dial_holds_up_nobody_else(host: Host) -> None:
    with SlowPool(host.address) as pool:
        first = pool.acquire()
        pool.dialling.clear()
        pool.go_on.clear()
        stuck = Call(pool.acquire)
        assert pool.dialling.wait(LONG)
        with quick():
            first.close()
            stuck.result().close()  # what comes back reaches also the one who dials
            pool.acquire().close()
            pool.stats()
        pool.go_on.set()


def test_when_nobody_listens_any_more_the_send_says_so(make_pool: MakePool) -> None:
    host = Host()
    pool = make_pool(host.address)
    lease = stale_lease(pool, host)
    host.close()
    with quick(), pytest.raises(gtcp.RefusedError):
        lease.send_pkg(b"hello")
    lease.close()
    stats = pool.stats()
    assert stats.created - sum(stats.closed.values()) == stats.idle + stats.in_use == 0


def test_a_lease_is_moved_once(host: Host, make_pool: MakePool) -> None:
    lease = stale_lease(make_pool(host.address), host)
    lease.send_pkg(b"hello")
    reset(host.accept())
    with pytest.raises((gtcp.ResetError, gtcp.PipeError)):
        lease.send_pkg(b"hello")
    lease.close()
    assert host.nobody_came()


def test_D1_the_deadline_holds_for_the_new_connection_too(host: Host, make_pool: MakePool) -> None:
    lease = stale_lease(make_pool(host.address), host)
    with pytest.raises(gtcp.Timeout):
        lease.send_recv_pkg(b"hello", timeout=SHORT)
    assert read_frame(host.accept()) == b"hello"
    lease.close()
