"""The peer's end: clean, in the middle, by reset, of one direction only (B4, B5, B6, B7, C4, C10, C11)."""

import socket

import pytest

import gtcp
from contract.makers import Maker
from contract.operations import RECEIVES, SENDS, UNITS
from support.calls import Call
from support.peers import frame, read, reset, says
from support.timing import LONG, eventually, quick


@pytest.mark.parametrize("name", [name for name in RECEIVES if name not in {"lines", "packages"}])
def test_B4_a_clean_end(make_conn: Maker, name: str) -> None:
    receive = RECEIVES[name]
    conn = make_conn.to(says(receive.wire))
    assert receive.call(conn, LONG) == receive.result
    for _ in range(2):
        with quick(), pytest.raises(gtcp.EOF) as end:
            receive.call(conn, LONG)
        assert str(end.value) == "EOF"
        assert (end.value.partial, end.value.expected) == (b"", None)
        assert isinstance(end.value, EOFError)
        assert isinstance(end.value, ConnectionError)


def test_B4_an_empty_package_is_not_the_end(make_conn: Maker) -> None:
    conn = make_conn.to(says(b"\0\0\n"))
    assert conn.recv_pkg(timeout=LONG) == b""
    assert conn.recv_line(timeout=LONG) == b""
    with pytest.raises(gtcp.EOF):
        conn.recv(timeout=LONG)


@pytest.mark.parametrize("name", UNITS)
def test_B5_the_end_in_the_middle_of_a_unit(make_conn: Maker, name: str) -> None:
    receive = UNITS[name]
    wire = frame(b"hello") if name == "recv_pkgs" else receive.wire
    for at in range(1, len(wire)):
        conn = make_conn.to(says(wire[:at]))
        with pytest.raises(gtcp.EOF) as end:
            receive.call(conn, LONG)
        if not wire.startswith(b"\0"):
            partial, expected = wire[:at], 5 if name.startswith("recv_into") or name == "recv" else None
        elif at < 2:
            partial, expected = wire[:at], 2  # of the header
        else:
            partial, expected = wire[2:at], 5  # of the payload
        assert (end.value.partial, end.value.expected) == (partial, expected)
        assert str(end.value) == f"EOF after {len(partial)} of {'?' if expected is None else expected} bytes"
        assert conn.recv(0, timeout=LONG) == wire[:at]  # nothing is lost even now


@pytest.mark.parametrize("arrived", [0, 1, 16384, 99_999])
def test_B5_the_end_in_the_middle_of_a_large_package(make_conn: Maker, arrived: int) -> None:
    payload = bytes(i & 0xFF for i in range(100_000))
    conn = make_conn.to(says(frame(payload, 4)[: 4 + arrived]))
    for _ in range(2):
        with pytest.raises(gtcp.EOF) as end:
            conn.recv_pkg(gtcp.PkgOption(4), timeout=LONG)
        assert end.value.partial == payload[:arrived]
        assert end.value.expected == 100_000


def test_B5_data_before_the_end_comes_first(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.sendall(b"hello")
    far.close()
    assert conn.recv(timeout=LONG) == b"hello"
    with pytest.raises(gtcp.EOF):
        conn.recv(timeout=LONG)


@pytest.mark.parametrize("name", RECEIVES)
def test_B6_a_complete_unit_then_a_reset(make_conn: Maker, name: str) -> None:
    receive = RECEIVES[name]
    conn, far = make_conn()
    far.sendall(receive.wire)
    reset(far)
    assert receive.call(conn, LONG) == receive.result
    for _ in range(2):
        with quick(), pytest.raises(gtcp.ResetError) as end:
            receive.call(conn, LONG)
        assert isinstance(end.value, ConnectionResetError)


@pytest.mark.parametrize("name", UNITS)
def test_B7_a_reset_in_the_middle_of_a_unit(make_conn: Maker, name: str) -> None:
    receive = UNITS[name]
    conn, far = make_conn()
    far.sendall(receive.wire[:-1])
    waiting = Call(receive.call, conn, LONG).sleeping()
    reset(far)
    with quick(), pytest.raises(gtcp.ResetError):
        waiting.result()
    assert not conn.is_alive()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("name", SENDS)
def test_C4_sending_to_a_peer_that_is_gone(make_conn: Maker, name: str, how: str) -> None:
    conn, far = make_conn()
    if how == "reset":
        reset(far)
    else:
        far.close()

    def send_until_it_fails() -> None:
        for _ in range(1000):
            SENDS[name](conn, b"x" * 1000, LONG)

    # After a close the first one still goes out: only its answer tells that nobody listens.
    with pytest.raises((gtcp.PipeError, gtcp.ResetError)) as end:
        send_until_it_fails()
    assert isinstance(end.value, (BrokenPipeError, ConnectionResetError))
    assert end.value.sent == 0
    assert end.value.errno


def test_C4_the_peer_goes_while_a_send_waits(make_conn: Maker) -> None:
    conn, far = make_conn(receive_buffer=4096)
    sending = Call(conn.send, bytes(8 << 20), timeout=LONG).sleeping()
    reset(far)
    with quick(), pytest.raises((gtcp.ResetError, gtcp.PipeError)) as end:
        sending.result()
    assert end.value.sent
    assert 0 < end.value.sent < 8 << 20


def test_C10_the_peer_closes_its_direction_only(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.sendall(b"bye")
    far.shutdown(socket.SHUT_WR)
    assert conn.recv(3, timeout=LONG) == b"bye"
    with pytest.raises(gtcp.EOF):
        conn.recv(1, timeout=LONG)
    conn.send(b"hello")
    conn.send_pkg(b"you")
    assert read(far, 10) == b"hello" + frame(b"you")


def test_C10_we_close_our_direction_only(make_conn: Maker) -> None:
    conn, far = make_conn()
    conn.send(b"request")
    conn.close_write()
    assert read(far, 7) == b"request"
    assert far.recv(1) == b""
    far.sendall(b"reply")
    assert conn.recv(5, timeout=LONG) == b"reply"
    with pytest.raises(gtcp.PipeError):
        conn.send(b"more")


def test_C11_closing_with_unread_bytes_resets_unless_they_are_received_first(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.sendall(b"unread")
    conn.send(b"last words")
    conn.close_write()
    assert read(far, 10) == b"last words"
    assert far.recv(1) == b""
    far.shutdown(socket.SHUT_WR)
    assert conn.recv(6, timeout=LONG) == b"unread"
    with pytest.raises(gtcp.EOF):
        conn.recv(timeout=LONG)
    conn.close()
    assert far.recv(1) == b""  # no reset


def test_is_alive_tells_what_the_kernel_knows(make_conn: Maker) -> None:
    conn, far = make_conn()
    assert conn.is_alive()
    far.sendall(b"x")
    eventually(conn.is_alive)
    assert conn.recv(1, timeout=LONG) == b"x"
    far.close()
    eventually(lambda: not conn.is_alive())


def test_is_alive_takes_nothing(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.sendall(b"hello")
    for _ in range(3):
        assert conn.is_alive()
    assert conn.recv(5, timeout=LONG) == b"hello"


def test_is_alive_is_false_after_a_reset(make_conn: Maker) -> None:
    conn, far = make_conn()
    reset(far)
    eventually(lambda: not conn.is_alive())
