"""What is done to TLS connections, and what must come out (G1 to G6, G9, E24)."""

import random
import socket
import ssl

import pytest
import trustme

import gtcp
from net.ends import Host, MakePool, Serve
from net.handlers import address_of, echo_packages
from support.calls import Call
from support.peers import frame, listen, read
from support.secure import SecureEnd, client_context, server_context, wrap
from support.timing import LONG, SHORT, quick, takes


def pair(host: Host) -> tuple[gtcp.Conn, SecureEnd]:
    """A client of ours and the other end, in the test's hands."""
    accepting = Call(lambda: wrap(host.accept()))
    return gtcp.Conn(host.address, LONG, tls=client_context()), accepting.result()


def all_of(conn: gtcp.Conn) -> None:
    """Receive to the end: a server answers nonsense by an alert."""
    while True:
        conn.recv(0, timeout=LONG)


@pytest.mark.parametrize("wrong", ["name", "issuer"])
def test_G1_a_certificate_that_is_not_valid_is_refused(serve: Serve, wrong: str) -> None:
    theirs = server_context("example.org") if wrong == "name" else server_context(issuer=trustme.CA())
    server = serve(echo_packages, tls=theirs)
    with pytest.raises(gtcp.CertificateError) as caught:
        gtcp.Conn(address_of(server), LONG, tls=client_context())
    assert isinstance(caught.value, ssl.SSLCertVerificationError)


def test_G2_a_plain_client_reaches_no_handler(serve: Serve) -> None:
    called: list[gtcp.Conn] = []
    server = serve(called.append, tls=server_context())
    with gtcp.Conn(address_of(server), LONG) as conn:
        conn.send(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises((gtcp.EOF, gtcp.ResetError)):
            all_of(conn)
    assert called == []


def test_G3_fifty_silent_clients_keep_nobody_waiting(serve: Serve) -> None:
    server = serve(echo_packages, tls=server_context(), handshake_timeout=LONG)
    address = server.get_listened_address()
    assert address is not None
    silent = [socket.create_connection((address.host, address.port), LONG) for _ in range(50)]
    with gtcp.Conn(address, LONG, tls=client_context()) as honest:
        assert honest.send_recv_pkg(b"hello", timeout=LONG) == b"hello"
    for sock in silent:
        sock.close()


def test_G3_a_server_that_is_silent_costs_the_client_its_timeout() -> None:
    ours = client_context()
    with listen() as deaf, takes(SHORT), pytest.raises(gtcp.Timeout):
        gtcp.Conn("{}:{}".format(*deaf.getsockname()), SHORT, tls=ours)


def test_G4_plain_bytes_before_the_handshake_reach_no_handler(serve: Serve) -> None:
    called: list[gtcp.Conn] = []
    server = serve(called.append, tls=server_context())
    with gtcp.Conn(address_of(server), LONG) as conn:
        conn.send(frame(b"DELETE"))
        conn.close_write()
        with pytest.raises((gtcp.EOF, gtcp.ResetError)):
            all_of(conn)
    assert called == []


def test_G5_an_end_without_goodbye_is_no_clean_end(host: Host) -> None:
    conn, far = pair(host)
    with conn, far:
        far.sendall(b"hello")
        socket.socket.shutdown(far, socket.SHUT_WR)
        assert conn.recv(5, timeout=LONG) == b"hello"
        with quick(), pytest.raises(gtcp.TruncatedError) as caught:
            conn.recv(1, timeout=LONG)
        assert not isinstance(caught.value, EOFError)
        assert isinstance(caught.value, ssl.SSLEOFError)
        with quick(), pytest.raises(gtcp.BrokenError):
            conn.recv(1, timeout=LONG)


def test_G6_injected_plain_bytes_break_the_connection(host: Host) -> None:
    conn, far = pair(host)
    with conn, far:
        socket.socket.send(far, frame(b"injected"))
        with pytest.raises(gtcp.TLSError):
            conn.recv(1, timeout=LONG)
        with pytest.raises(gtcp.BrokenError):
            conn.recv(1, timeout=LONG)
        with pytest.raises(gtcp.Error):
            conn.send(b"more")


def test_G9_much_both_ways_at_once(serve: Serve) -> None:
    size = 64 << 20

    def swap(conn: gtcp.Conn) -> None:
        sending = Call(conn.send, bytes(size), timeout=3 * LONG)
        assert sum(len(conn.recv(1 << 20, timeout=LONG)) for _ in range(64)) == size
        sending.result(3 * LONG)

    server = serve(swap, tls=server_context())
    with gtcp.Conn(address_of(server), LONG, tls=client_context()) as conn:
        sending = Call(conn.send, bytes(size), timeout=3 * LONG)
        assert sum(len(conn.recv(1 << 20, timeout=LONG)) for _ in range(64)) == size
        sending.result(3 * LONG)


def test_E24_tickets_are_no_data(serve: Serve, make_pool: MakePool) -> None:
    server = serve(echo_packages, tls=server_context())
    pool = make_pool(address_of(server), tls=client_context())
    for i in range(100):
        with pool.acquire(LONG) as lease:
            assert lease.send_recv_pkg(b"%d" % i, timeout=LONG) == b"%d" % i
    assert pool.stats().created == 1


def test_C11_unread_tickets_make_no_reset_of_a_close() -> None:
    """The kernel resets a connection that is closed with unread bytes, and what is under way is lost."""
    data = random.Random(1).randbytes(16 << 20)
    with listen(receive_buffer=4096) as listener:
        accepting = Call(lambda: wrap(listener.accept()[0]))
        conn = gtcp.Conn("{}:{}".format(*listener.getsockname()), LONG, tls=client_context())
        with accepting.result() as far:
            with pytest.raises(gtcp.Timeout) as late:
                conn.send(data, timeout=SHORT)
            conn.close()
            assert late.value.sent is not None
            whole = late.value.sent - (64 << 10)  # all but the last records, which may not have left
            assert whole > 0
            assert read(far, whole) == data[:whole]
