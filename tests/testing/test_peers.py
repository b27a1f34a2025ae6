"""gtcp.testing: peers that follow a script, addresses where nobody answers."""

import socket

import pytest

import gtcp
from gtcp.testing import Peer, deaf_address, echo, echo_lines, echo_packages, refusing_address, reset
from support.timing import LONG, SHORT, takes


def test_an_echo_of_bytes() -> None:
    with Peer(echo) as peer, gtcp.Conn(peer.address) as conn:
        assert conn.send_recv(b"hello", 5, timeout=LONG) == b"hello"
        assert peer.accepted == 1


@pytest.mark.parametrize("header", [1, 2, 3, 4])
def test_an_echo_of_packages(header: int) -> None:
    option = gtcp.PkgOption(header)
    with Peer(echo_packages(header, b"> ")) as peer, gtcp.Conn(peer.address) as conn:
        assert conn.send_recv_pkgs([b"", b"one", b"x" * 200], option, timeout=LONG) == [
            b"> ",
            b"> one",
            b"> " + b"x" * 200,
        ]


def test_an_echo_of_lines() -> None:
    with Peer(echo_lines) as peer, gtcp.Conn(peer.address) as conn:
        conn.send(b"one\ntwo\n")
        assert [conn.recv_line(timeout=LONG), conn.recv_line(timeout=LONG)] == [b"one", b"two"]


def test_what_a_script_raises_is_raised_by_close() -> None:
    def script(sock: socket.socket) -> None:
        assert sock.recv(10) == b"expected"

    peer = Peer(script)
    with gtcp.Conn(peer.address) as conn, pytest.raises(gtcp.EOF):
        conn.send_recv(b"other", 1, timeout=LONG)
    with pytest.raises(AssertionError):
        peer.close()


def test_close_ends_scripts_that_wait() -> None:
    with Peer(echo) as peer, gtcp.Conn(peer.address) as conn:
        assert conn.send_recv(b"hello", 5, timeout=LONG) == b"hello"
        peer.close()
        peer.close()
        with pytest.raises(gtcp.EOF):
            conn.recv(1, timeout=LONG)


def test_a_reset() -> None:
    def script(sock: socket.socket) -> None:
        assert sock.recv(5) == b"hello"
        reset(sock)

    with Peer(script) as peer, gtcp.Conn(peer.address) as conn, pytest.raises(gtcp.ResetError):
        conn.send_recv(b"hello", 5, timeout=LONG)


def test_ipv6() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with Peer(echo, host="::1") as peer, gtcp.Conn(peer.address) as conn:
        assert conn.send_recv(b"hello", 5, timeout=LONG) == b"hello"


def test_nobody_listens() -> None:
    with refusing_address() as address, pytest.raises(gtcp.RefusedError):
        gtcp.Conn(address, LONG)


def test_nobody_answers() -> None:
    with deaf_address() as address, takes(SHORT), pytest.raises(gtcp.Timeout):
        gtcp.Conn(address, SHORT)
