"""Hazards of the original's connection (gtcp_conn.go) that gtcp does not inherit.

The numbers are those of the project's list of hazards; its severities A and B have a test each.
"""

import socket
import threading
import time
import tracemalloc

import pytest

import gtcp
from conftest import MakePeer
from support.crew import Worker
from support.peers import drips, echo, frame, read, read_frame, reset, says, silent, socket_pair
from support.timing import LONG, SHORT, eventually, quick, takes

MEGABYTE = 1 << 20


def test_H1_partial_write_is_resumed_not_repeated() -> None:
    """Many partial writes through a tiny buffer, with a retry policy at hand."""
    data = bytes(range(251)) * 2000
    with socket_pair() as (ours, theirs):
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        with gtcp.Conn.from_socket(ours) as conn:
            sender = Worker(lambda: conn.send(data, gtcp.Retry(count=1000, interval=0.0), timeout=LONG))
            assert read(theirs, len(data)) == data
            sender.result()
            conn.close_write()
            assert theirs.recv(1) == b""


def test_H1_after_a_timeout_the_caller_knows_where_to_go_on() -> None:
    data = bytes(range(251)) * 40_000
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        with pytest.raises(gtcp.Timeout) as stopped:
            conn.send(data, gtcp.Retry(count=1000, interval=0.0), timeout=SHORT / 2)
        sent = stopped.value.sent
        assert sent is not None
        assert 0 < sent < len(data)
        reader = Worker(lambda: read(theirs, len(data)))
        conn.send(data[sent:], timeout=LONG)
        assert reader.result() == data


@pytest.mark.parametrize("close", [reset, socket.socket.close])
def test_H2_a_closed_connection_is_an_error_at_once_not_retried(close: object) -> None:
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        close(theirs)  # type: ignore[operator]
        eventually(lambda: not conn.is_alive())
        with quick(), pytest.raises(gtcp.SocketError) as broken:
            # After a clean close the kernel takes what is written until the peer's reset comes.
            eventually(lambda: conn.send(b"x", gtcp.Retry(count=1000, interval=LONG)))
        assert isinstance(broken.value, gtcp.ResetError | gtcp.PipeError)


def test_H2_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="count"):
        gtcp.Retry(count=-1)


def test_H6_recv_without_length_is_bounded_by_the_deadline(peer: MakePeer) -> None:
    dripping = peer(drips(b"x" * 10_000, SHORT / 50))
    with gtcp.Conn(dripping.address) as conn:
        conn.set_buffer_wait_recv(LONG)
        with takes(SHORT):
            data = conn.recv(-1, timeout=SHORT)
        assert set(data) == set(b"x")


def test_H6_recv_without_length_is_bounded_in_size(peer: MakePeer) -> None:
    flood = 17 * MEGABYTE
    with gtcp.Conn(peer(says(bytes(flood))).address) as conn:
        conn.set_buffer_wait_recv(LONG)
        first = conn.recv(-1, timeout=LONG)
        assert len(first) == 16 * MEGABYTE
        assert len(conn.recv(flood - len(first), timeout=LONG)) == MEGABYTE


@pytest.mark.parametrize("size", [1, 128, 129, 100_000])
def test_H7_the_end_after_recv_without_length_is_eof_not_a_timeout(peer: MakePeer, size: int) -> None:
    with gtcp.Conn(peer(says(bytes(size))).address) as conn:
        conn.set_buffer_wait_recv(LONG)
        assert conn.recv(-1, timeout=LONG) == bytes(size)
        for _ in range(2):
            with quick(), pytest.raises(gtcp.EOF):
                conn.recv(-1)


def test_H10_a_length_reserves_no_memory() -> None:
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        theirs.sendall(b"0123456789")
        tracemalloc.start()
        try:
            with pytest.raises(gtcp.Timeout):
                conn.recv(1 << 40, timeout=SHORT / 2)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < MEGABYTE
        assert conn.recv(10) == b"0123456789"


def test_H11_a_close_inside_a_unit_is_not_its_end(peer: MakePeer) -> None:
    with gtcp.Conn(peer(says(b"abc")).address) as conn:
        with pytest.raises(gtcp.EOF) as cut:
            conn.recv(10)
        assert (cut.value.partial, cut.value.expected) == (b"abc", 10)
        assert str(cut.value) != "EOF"
        assert conn.recv(0) == b"abc"
        with pytest.raises(gtcp.EOF) as end:
            conn.recv(10)
        assert (end.value.partial, end.value.expected, str(end.value)) == (b"", None, "EOF")


def test_H11_a_timeout_hands_out_nothing_and_loses_nothing() -> None:
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        theirs.sendall(b"abc")
        with pytest.raises(gtcp.Timeout):
            conn.recv(6, timeout=SHORT / 2)
        theirs.sendall(b"def")
        assert conn.recv(6) == b"abcdef"


def test_H12_all_ways_to_read_share_one_buffer(peer: MakePeer) -> None:
    everything = b"line\n" + frame(b"pkg") + b"abcdefg" + b"till;" + b"rest"
    with gtcp.Conn(peer(says(everything)).address) as conn:
        assert conn.recv_line() == b"line"
        assert conn.recv_pkg() == b"pkg"
        target = bytearray(3)
        assert conn.recv_into(target) == 3
        assert target == b"abc"
        assert conn.recv(4) == b"defg"
        assert conn.recv_till(b";") == b"till;"
        assert conn.recv(4) == b"rest"


def test_H12_detach_does_not_lose_buffered_bytes(peer: MakePeer) -> None:
    with gtcp.Conn(peer(says(b"line\nmore")).address) as conn:
        assert conn.recv_line() == b"line"
        with pytest.raises(gtcp.BrokenError, match="4 received bytes"):
            conn.detach()
        assert conn.recv(4) == b"more"
        with conn.detach() as sock:
            assert sock.recv(1) == b""


@pytest.mark.parametrize("receive", [gtcp.Conn.recv_line, lambda conn: conn.recv_till(b"END")])
def test_H14_a_delimiter_that_never_comes_has_a_limit(peer: MakePeer, receive: object) -> None:
    with gtcp.Conn(peer(says(b"x" * 4 * MEGABYTE)).address) as conn:
        conn.set_deadline(time.monotonic() + LONG)
        for _ in range(4):
            with pytest.raises(gtcp.LimitError, match=str(MEGABYTE)):
                receive(conn)  # type: ignore[operator]
        assert conn.buffered <= 2 * MEGABYTE
        assert conn.recv(4 * MEGABYTE) == b"x" * 4 * MEGABYTE


@pytest.mark.parametrize(
    ("til", "stream"),
    [(b"END", b"enD End end END"), (b"enD", b"END enD"), (b"\x80\x81", b"\xfe\xff\x80\xff\x80\x81")],
)
def test_H15_a_delimiter_is_compared_byte_by_byte(peer: MakePeer, til: bytes, stream: bytes) -> None:
    with gtcp.Conn(peer(says(stream + b"tail")).address) as conn:
        assert conn.recv_till(til) == stream
        assert conn.recv(4) == b"tail"


def test_H16_an_empty_delimiter_is_refused(peer: MakePeer) -> None:
    with gtcp.Conn(peer(says(b"data")).address) as conn:
        with quick(), pytest.raises(ValueError, match="empty"):
            conn.recv_till(b"")
        assert conn.recv(4) == b"data"


def test_H18_a_timeout_inside_a_line_keeps_its_beginning() -> None:
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        theirs.sendall(b"begin")
        with pytest.raises(gtcp.Timeout):
            conn.recv_line(timeout=SHORT / 2)
        theirs.sendall(b"ning\nnext\n")
        assert conn.recv_line() == b"beginning"
        assert conn.recv_line() == b"next"


HUGE = bytes(16 * MEGABYTE)
WIDE = gtcp.PkgOption(header_size=4)


@pytest.mark.parametrize(
    "call",
    [
        lambda conn: conn.send_with_timeout(HUGE, SHORT),
        lambda conn: conn.send_recv_with_timeout(HUGE, -1, SHORT),
        lambda conn: conn.send_pkg_with_timeout(HUGE, SHORT, WIDE),
        lambda conn: conn.send_recv_pkg_with_timeout(HUGE, SHORT, WIDE),
        lambda conn: conn.send_recv_pkgs([HUGE], WIDE, timeout=SHORT),
    ],
    ids=["send", "send_recv", "send_pkg", "send_recv_pkg", "send_recv_pkgs"],
)
def test_H20_the_timeout_of_an_exchange_covers_its_send(call: object) -> None:
    with (
        socket_pair() as (ours, _),
        gtcp.Conn.from_socket(ours) as conn,
        takes(SHORT),
        pytest.raises(gtcp.Timeout, match=r"sending|replies"),
    ):
        call(conn)  # type: ignore[operator]


def test_H22_two_threads_do_not_swap_replies(peer: MakePeer) -> None:
    def ask(conn: gtcp.Conn, name: bytes) -> set[bytes]:
        return {conn.send_recv_pkg(name, timeout=LONG) for _ in range(200)}

    with gtcp.Conn(peer(echo).address) as conn:
        first = Worker(lambda: ask(conn, b"first"))
        second = Worker(lambda: ask(conn, b"second"))
        assert (first.result(), second.result()) == ({b"first"}, {b"second"})


def test_H22_a_second_receiver_is_told_instead_of_given_a_share(peer: MakePeer) -> None:
    asked = threading.Event()

    def answer(sock: socket.socket) -> None:
        read_frame(sock)
        asked.wait(LONG)
        sock.sendall(frame(b"reply"))
        silent(sock)

    with gtcp.Conn(peer(answer).address) as conn:
        exchange = Worker(lambda: conn.send_recv_pkg(b"request", timeout=LONG))
        exchange.asleep()
        with pytest.raises(gtcp.ConcurrencyError):
            conn.recv(0)
        asked.set()
        assert exchange.result() == b"reply"
