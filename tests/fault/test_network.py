"""Ports that run out, routes that are missing, hosts that vanish: in a network namespace of the child's own."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

import gtcp
from support import child, namespace
from support.peers import Peer, echo, listen, silent
from support.timing import LONG, SHORT, eventually, quick, takes


@pytest.fixture(autouse=True)
def own_network(leaves_no_trace: None) -> None:
    namespace.require()


@contextlib.contextmanager
def raises(kind: type[gtcp.Error], *numbers: int) -> Iterator[None]:
    """`pytest.raises` for children: the error, its errno, and nothing left open."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    try:
        yield
    except kind as error:
        assert not numbers or getattr(error, "errno", None) in numbers, repr(error)  # noqa: PT017
    else:
        raise AssertionError(f"no {kind.__name__}")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def dial_where_a_port_would_meet_itself() -> None:
    namespace.enter()
    namespace.setting("ip_local_port_range", "40000 40003")
    for _ in range(100):
        for port in (40000, 40002):
            with raises(gtcp.RefusedError):
                gtcp.Conn(("127.0.0.1", port), LONG)


def test_A4_a_dead_port_of_the_ephemeral_range() -> None:
    child.run(dial_where_a_port_would_meet_itself)


def dial_without_ports() -> None:
    namespace.enter()
    namespace.setting("ip_local_port_range", "40000 40001")
    with listen(port=50000), gtcp.Conn("127.0.0.1:50000") as one, gtcp.Conn("127.0.0.1:50000") as two:
        assert {one.local_addr().port, two.local_addr().port} == {40000, 40001}
        with quick(), raises(gtcp.SocketError, errno.EADDRNOTAVAIL):
            gtcp.Conn("127.0.0.1:50000", LONG)


def test_A9_every_local_port_is_taken() -> None:
    child.run(dial_without_ports)


def dial_without_routes() -> None:
    namespace.enter()
    for kind, host, number in (
        ("unreachable", "127.9.9.1", errno.EHOSTUNREACH),
        ("prohibit", "127.9.9.2", errno.EACCES),
        ("blackhole", "127.9.9.3", errno.EINVAL),
    ):
        namespace.ip("route", "add", kind, f"{host}/32", "table", "local")
        with quick(), raises(gtcp.SocketError, number):
            gtcp.Conn((host, 80), LONG)


def test_A9_no_route() -> None:
    child.run(dial_without_routes)


def lose_the_host(send: bool) -> None:
    namespace.enter()
    namespace.setting("tcp_retries2", "2")
    much = bytes(64 << 20)
    with Peer(silent if send else echo) as peer:
        conn = gtcp.Conn(peer.address, LONG)
        raw = socket.socket(fileno=os.dup(conn.fileno()))
        assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        raw.close()
        eventually(lambda: peer.accepted)  # else its descriptor comes while ours are counted
        namespace.ip("link", "set", "lo", "down")
        with takes(SHORT), raises(gtcp.Timeout):
            if send:
                conn.send(much, timeout=SHORT)
            else:
                conn.send_recv(b"hello", timeout=SHORT)
        # Without a timeout the kernel ends the wait: what was sent is never acknowledged.
        with quick(LONG), raises(gtcp.TimedOutError, errno.ETIMEDOUT):
            if send:
                conn.send(much)
            else:
                conn.recv(1)
        # From now on the connection is one that has ended.
        assert not conn.is_alive()
        with quick(), raises(gtcp.PipeError, errno.EPIPE):
            conn.send(b"more", timeout=LONG)
        namespace.ip("link", "set", "lo", "up")
        with quick():
            conn.close()


@pytest.mark.parametrize("send", [False, True])
def test_C13_the_peers_host_vanishes(send: bool) -> None:
    child.run(lose_the_host, send)


def dial_and_hang_up(count: int) -> None:
    """So many connections that every port is used more than once."""
    namespace.enter()
    namespace.setting("tcp_tw_reuse", "1")
    namespace.setting("ip_local_port_range", "40000 40999")
    deadline = time.monotonic() + LONG
    with Peer(echo) as peer:
        for i in range(count):
            with gtcp.Conn(peer.address, LONG) as conn:
                assert conn.send_recv(b"hello", 5, timeout=LONG) == b"hello"
                conn.abort()
            assert time.monotonic() < deadline, f"{i} dials in {LONG} s"
    assert threading.active_count() == 1


def test_I3_more_dials_than_ports() -> None:
    child.run(dial_and_hang_up, 3000, within=3 * LONG)
