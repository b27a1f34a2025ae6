"""After the handshake: how connections end and break, both directions at once, pooled (C11, G5, G6, G9-G11, E24)."""

import gc
import os
import random
import socket
import ssl
import sys

import pytest

import gtcp
from net.ends import MakePool, Serve
from net.handlers import address_of, echo_packages
from support.calls import Call
from support.faces import everywhere
from support.malloc import allocated, malloc_tells
from support.peers import frame, read
from support.timing import LONG, SHORT, eventually, quick
from support.tls import Authority, Ends


def test_G5_an_end_without_goodbye_is_no_clean_end(ends: Ends) -> None:
    conn, far = ends.connect()
    far.sendall(b"hello")
    socket.socket.shutdown(far, socket.SHUT_WR)
    assert conn.recv(5, timeout=LONG) == b"hello"
    with quick(), pytest.raises(gtcp.TruncatedError) as caught:
        conn.recv(1, timeout=LONG)
    assert not isinstance(caught.value, EOFError)
    assert isinstance(caught.value, ssl.SSLEOFError)
    with quick(), pytest.raises(gtcp.BrokenError):
        conn.recv(1, timeout=LONG)


def test_G5_a_package_that_is_cut_off_says_what_had_come(ends: Ends) -> None:
    conn, far = ends.connect()
    far.sendall(frame(b"hello")[:4])
    socket.socket.shutdown(far, socket.SHUT_WR)
    with pytest.raises(gtcp.TruncatedError) as caught:
        conn.recv_pkg(timeout=LONG)
    assert (caught.value.partial, caught.value.expected) == (b"he", 5)


@pytest.mark.parametrize(
    "bytes_", [frame(b"injected"), b"\x17\x03\x03\x00\x20" + bytes(32)], ids=["plain", "a record of nobody's"]
)
def test_G6_injected_bytes_break_the_connection(ends: Ends, bytes_: bytes) -> None:
    conn, far = ends.connect()
    socket.socket.send(far, bytes_)
    with pytest.raises(gtcp.TLSError):
        conn.recv(1, timeout=LONG)
    with pytest.raises(gtcp.BrokenError):
        conn.recv(1, timeout=LONG)
    with pytest.raises(gtcp.Error):
        conn.send(b"more")
    assert not conn.is_alive()


@everywhere
@pytest.mark.parametrize("what", ["nothing", "injected", "truncated"])
def test_G6_a_pool_hands_out_no_broken_connection(
    serve: Serve, make_pool: MakePool, authority: Authority, what: str
) -> None:
    def handler(conn: gtcp.Conn) -> None:
        for package in conn.packages():
            conn.send_pkg(package)
            if what == "nothing":
                continue
            with socket.socket(fileno=conn.fileno()) as sock:
                if what == "injected":
                    sock.send(b"plain")
                else:
                    sock.shutdown(socket.SHUT_WR)
                sock.detach()

    pool = make_pool(address_of(serve(handler)), tls=authority.client())
    with pool.acquire(LONG) as lease:
        assert lease.send_recv_pkg(b"one", timeout=LONG) == b"one"
        if what != "nothing":
            eventually(lambda: not lease.is_alive())
    with pool.acquire(LONG) as lease:
        assert lease.send_recv_pkg(b"two", timeout=LONG) == b"two"
    assert pool.stats().created == (1 if what == "nothing" else 2)


def test_G9_64_mib_both_ways_at_once(serve: Serve, authority: Authority) -> None:
    block, blocks = random.Random(9).randbytes(1 << 20), 64

    def exchange(conn: gtcp.Conn) -> None:
        sending = Call(lambda: [conn.send(block, timeout=LONG) for _ in range(blocks)])
        for _ in range(blocks):
            assert conn.recv(len(block), timeout=LONG) == block
        sending.result(3 * LONG)

    server = serve(exchange)
    with gtcp.Conn(address_of(server), LONG, tls=authority.client()) as conn:
        exchange(conn)


def test_G10_a_peer_that_never_says_goodbye_does_not_hold_up_a_close(ends: Ends) -> None:
    conn, _ = ends.connect()
    with quick(0.1 + SHORT):
        conn.close()


def test_G10_nor_one_that_does_not_read(ends: Ends) -> None:
    conn, _ = ends.connect(receive_buffer=4096)
    with pytest.raises(gtcp.Timeout):
        conn.send(bytes(16 << 20), timeout=SHORT)
    with quick(0.1 + SHORT):
        conn.close()


def test_G11_a_closed_connection_leaves_no_memory(serve: Serve, authority: Authority) -> None:
    server, ours = serve(echo_packages), authority.client()

    def dial(times: int) -> None:
        for _ in range(times):
            with gtcp.Conn(address_of(server), LONG, tls=ours) as conn:
                assert conn.send_recv_pkg(b"x", timeout=LONG) == b"x"

    dial(20)
    gc.collect()
    before = sys.getallocatedblocks()
    dial(100)
    gc.collect()
    eventually(lambda: sys.getallocatedblocks() - before < 100)  # less than a block for each


@malloc_tells
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("resumes", [True, False], ids=["resumes", "forgets"])
def test_G11_nor_does_it_leave_any_of_openssl(
    serve: Serve, authority: Authority, version: ssl.TLSVersion, resumes: bool
) -> None:
    theirs, ours = authority.server(), authority.client()
    ours.maximum_version = version
    if not resumes:
        theirs.options |= ssl.OP_NO_TICKET
        theirs.num_tickets = 0
    server = serve(echo_packages, tls=theirs)

    def dial(times: int) -> None:
        for _ in range(times):
            with gtcp.Conn(address_of(server), LONG, tls=ours) as conn:
                assert conn.send_recv_pkg(b"x", timeout=LONG) == b"x"
        gc.collect()

    dial(100)
    before = allocated()
    dial(300)
    eventually(lambda: allocated() - before < 300 * 1024, what="less than a KiB for each dial")


@everywhere
def test_E24_a_hundred_leases_make_one_connection(serve: Serve, make_pool: MakePool, authority: Authority) -> None:
    pool = make_pool(address_of(serve(echo_packages)), tls=authority.client())
    for i in range(100):
        with pool.acquire(LONG) as lease:
            assert lease.send_recv_pkg(b"%d" % i, timeout=LONG) == b"%d" % i
    assert (pool.stats().created, pool.stats().idle) == (1, 1)


def test_C11_unread_tickets_make_no_reset_of_a_close(ends: Ends) -> None:
    """The kernel resets a connection that is closed with unread bytes, and what is under way is lost."""
    data = random.Random(1).randbytes(16 << 20)
    conn, far = ends.connect(receive_buffer=4096)
    with pytest.raises(gtcp.Timeout) as late:
        conn.send(data, timeout=SHORT)
    conn.close()
    assert late.value.sent is not None
    whole = late.value.sent - (64 << 10)  # all but the last records, which may not have left
    assert whole > 0
    assert read(far, whole) == data[:whole]


def test_gathered_sends_leave_while_a_receive_waits(ends: Ends) -> None:
    """Also when the kernel has no room for the records that hold all of them."""
    conn, far = ends.connect(receive_buffer=4096)
    with socket.socket(fileno=os.dup(conn.fileno())) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    data = [bytes([i]) * 1000 for i in range(30)]
    with conn.gathered():
        for each in data:
            conn.send(each)
        receiving = Call(conn.recv, 5, timeout=LONG).sleeping()
        assert read(far, 30_000) == b"".join(data)
        far.sendall(b"reply")
        assert receiving.result() == b"reply"


def test_gathered_sends_that_did_not_leave_in_time_leave_with_the_next_flush(ends: Ends) -> None:
    conn, far = ends.connect(receive_buffer=4096)
    with socket.socket(fileno=os.dup(conn.fileno())) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    with conn.gathered():
        conn.send(bytes(30_000))
        with pytest.raises(gtcp.Timeout):
            conn.flush(timeout=SHORT / 10)
        flushing = Call(conn.flush, timeout=LONG)
        assert read(far, 30_000) == bytes(30_000)
        flushing.result()
