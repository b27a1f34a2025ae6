"""Pools whose server restarts, vanishes or is somebody else."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest

import gtcp
from gtcp.testing import FaultProxy, Peer, Script, echo_packages
from support.peers import frame, read_frame, silent
from support.timing import LONG, SHORT, quick, takes


def test_E10_a_connection_that_the_pool_did_not_lend() -> None:
    with Peer(echo_packages()) as peer, gtcp.Pool(peer.address) as one, gtcp.Pool(peer.address) as other:
        stranger = gtcp.PoolConn.__new__(gtcp.PoolConn)
        stranger.close()
        stranger.discard()
        with pytest.raises(gtcp.ClosedError):
            stranger.send(b"x")
        with gtcp.dial(peer.address) as sock, pytest.raises(TypeError):
            gtcp.PoolConn.from_socket(sock)
        lease = one.acquire()
        other.close()
        lease.close()
        assert (one.stats().idle, one.stats().in_use) == (1, 0)
        assert (other.stats().idle, other.stats().in_use) == (0, 0)


def one_now_the_other_later(release: threading.Event) -> Script:
    def script(sock: socket.socket) -> None:
        requests = [read_frame(sock) for _ in range(2)]
        sock.sendall(frame(requests[0]))
        assert release.wait(LONG)
        sock.sendall(frame(requests[1]))
        silent(sock)

    return script


SENDS = {
    "send_pkg": lambda lease: [lease.send_pkg(b"one"), lease.send_pkg(b"two")],
    "send_pkgs": lambda lease: lease.send_pkgs([b"one", b"two"]),
    "send_recv_pkg": lambda lease: [lease.send_pkg(b"one"), lease.send_recv_pkg(b"two")],
}


@pytest.mark.parametrize("send", SENDS)
def test_E4_E7_fewer_replies_than_requests(send: str) -> None:
    release = threading.Event()
    with Peer(one_now_the_other_later(release)) as peer, gtcp.Pool(peer.address) as pool:
        with pool.acquire(LONG) as lease:
            SENDS[send](lease)
            if send != "send_recv_pkg":
                assert lease.recv_pkg(timeout=LONG) == b"one"
        assert (pool.stats().idle, pool.stats().closed["owed"]) == (0, 1)
        release.set()


def test_E18_a_server_that_restarts_again_and_again() -> None:
    served = refused = 0
    with Peer(echo_packages()) as peer, FaultProxy(peer.address) as proxy, gtcp.Pool(proxy.address, max_size=4) as pool:
        for _ in range(10):
            leases = [pool.acquire(LONG) for _ in range(3)]
            for lease in leases:
                assert lease.send_recv_pkg(b"up", timeout=LONG) == b"up"
                lease.close()
                served += 1
            proxy.refuse()
            with quick(), pytest.raises((gtcp.RefusedError, gtcp.ResetError)), pool.acquire(LONG) as lease:
                lease.send_recv_pkg(b"down", timeout=LONG)
            refused += 1
            proxy.listen()
            # The first request after the return: neither a stale connection nor a long memory of the failure.
            with quick(2 * SHORT), pool.acquire(LONG) as lease:
                assert lease.send_recv_pkg(b"again", timeout=LONG) == b"again"
        books = pool.stats()
        assert books.in_use == books.connecting == 0
        assert books.idle == books.created - sum(books.closed.values())
        assert proxy.accepted <= 4 * 10 + 3


def test_E25_a_connection_whose_peer_vanished() -> None:
    with Peer(echo_packages()) as peer, FaultProxy(peer.address) as proxy, gtcp.Pool(proxy.address) as pool:
        with pool.acquire(LONG) as lease:
            assert lease.send_recv_pkg(b"one", timeout=LONG) == b"one"
            port = lease.local_addr().port
        proxy.freeze()
        with takes(SHORT), pytest.raises(gtcp.Timeout), pool.acquire(LONG) as lease:
            lease.send_recv_pkg(b"lost", timeout=SHORT)
        assert pool.stats().idle == 0
        proxy.thaw()
        with pool.acquire(LONG) as lease:
            assert lease.send_recv_pkg(b"two", timeout=LONG) == b"two"
            assert lease.local_addr().port != port


def test_E23_other_options_are_another_pool_or_an_error() -> None:
    context = ssl.create_default_context()
    with Peer(echo_packages()) as peer:
        plain = gtcp.get_pool(peer.address)
        secret = gtcp.get_pool(peer.address, tls=context)
        named = gtcp.get_pool(peer.address, tls=context, server_hostname="example.org")
        assert len({plain, secret, named}) == 3
        assert gtcp.get_pool(peer.address, tls=context) is secret
        assert gtcp.get_pool(peer.address) is plain
        with gtcp.PoolConn(peer.address) as lease:
            assert lease.send_recv_pkg(b"plain", timeout=LONG) == b"plain"
        # The idle plain connection is no answer to who asks for TLS: a handshake begins on a new one.
        with pytest.raises((gtcp.Error, ssl.SSLError)):
            gtcp.PoolConn(peer.address, SHORT, tls=context)
        assert plain.stats().idle == 1
        with pytest.raises(ValueError, match="max_size"):
            gtcp.get_pool(peer.address, max_size=3)
        for pool in (plain, secret, named):
            pool.close()
