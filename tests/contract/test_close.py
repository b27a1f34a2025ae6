"""Closing: from any thread, at once, once and for all (H1, H2, H11, H13)."""

import contextlib
import gc
import os
import socket
import warnings

import pytest

import gtcp
from contract.makers import Maker
from contract.operations import EXCHANGES, OPERATIONS, RECEIVES, SENDS
from support.calls import Call
from support.peers import frame
from support.timing import LONG, SHORT, quick

MUCH = bytes(8 << 20)


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("name", RECEIVES)
def test_H1_close_wakes_a_receiver(make_conn: Maker, name: str, how: str) -> None:
    conn, far = make_conn()
    waiting = Call(RECEIVES[name].call, conn, None).sleeping()
    with quick():
        getattr(conn, how)()
        with pytest.raises(gtcp.ClosedError):
            waiting.result()
    with contextlib.suppress(ConnectionError):
        assert far.recv(1) == b""


@pytest.mark.parametrize("name", SENDS)
def test_H1_close_wakes_a_sender(make_conn: Maker, name: str) -> None:
    conn, _ = make_conn(receive_buffer=4096)
    waiting = Call(SENDS[name], conn, MUCH, None).sleeping()
    with quick():
        conn.close()
        with pytest.raises(gtcp.ClosedError):
            waiting.result()


@pytest.mark.parametrize("stuck_in", ["sending", "receiving"])
@pytest.mark.parametrize("name", EXCHANGES)
def test_H1_close_wakes_an_exchange(make_conn: Maker, name: str, stuck_in: str) -> None:
    conn, _ = make_conn(receive_buffer=4096)
    waiting = Call(EXCHANGES[name], conn, MUCH if stuck_in == "sending" else b"?", None).sleeping()
    with quick():
        conn.close()
        with pytest.raises(gtcp.ClosedError):
            waiting.result()


def test_H1_close_wakes_those_who_wait_for_their_turn(make_conn: Maker) -> None:
    conn, _ = make_conn(receive_buffer=4096)
    calls = [Call(conn.send, MUCH).sleeping(), Call(conn.send_recv_pkg, b"?").sleeping()]
    calls += [Call(call, b"?").sleeping() for call in (conn.send, conn.send_pkg, conn.send_recv, conn.send_recv_pkg)]
    with quick():
        conn.close()
        for call in calls:
            with pytest.raises(gtcp.ClosedError):
                call.result()


def test_H1_close_wakes_a_receiver_in_the_middle_of_a_unit(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.sendall(frame(bytes(100_000), 4)[:50_000])
    waiting = Call(conn.recv_pkg, gtcp.PkgOption(4)).sleeping()
    with quick():
        conn.close()
        with pytest.raises(gtcp.ClosedError):
            waiting.result()


def test_H2_the_number_of_a_connection_in_use_is_not_given_away(make_conn: Maker) -> None:
    conn, _ = make_conn()
    number = conn.fileno()
    waiting = Call(conn.recv_pkg).sleeping()
    # Nothing that is opened after the close is ever read by the old call.
    conn.close()
    strangers = [socket.socketpair() for _ in range(5)]
    for ours, theirs in strangers:
        theirs.sendall(frame(b"secret"))
        assert ours.recv(1, socket.MSG_PEEK) == b"\0"
    with pytest.raises(gtcp.ClosedError):
        waiting.result()
    for ours, theirs in strangers:
        assert ours.recv(100) == frame(b"secret")
        ours.close()
        theirs.close()
    assert number >= 0
    assert conn.fileno() == -1


@pytest.mark.parametrize("name", OPERATIONS)
def test_use_after_close(make_conn: Maker, name: str) -> None:
    conn, _ = make_conn()
    conn.close()
    with quick(), pytest.raises(gtcp.ClosedError) as error:
        OPERATIONS[name](conn)
    assert isinstance(error.value, OSError)


def test_close_is_idempotent(make_conn: Maker) -> None:
    conn, far = make_conn()
    assert not conn.closed
    for _ in range(3):
        conn.close()
        assert conn.closed
    conn.abort()
    assert conn.closed
    assert conn.fileno() == -1
    assert not conn.is_alive()
    del far


def test_many_threads_close_at_once(make_conn: Maker) -> None:
    for _ in range(20):
        conn, _ = make_conn()
        waiting = Call(conn.recv, 1)
        for call in [Call(conn.close) for _ in range(8)]:
            call.result()
        with pytest.raises(gtcp.ClosedError):
            waiting.result()


def test_abort_resets(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.sendall(b"unread")
    conn.abort()
    with pytest.raises(ConnectionResetError):
        far.recv(1)
    assert conn.closed


def test_with_closes(make_conn: Maker) -> None:
    conn, _ = make_conn()
    with conn as same:
        assert same is conn
    assert conn.closed


def test_with_closes_after_an_exception(make_conn: Maker) -> None:
    conn, far = make_conn()
    with pytest.raises(LookupError), conn:
        raise LookupError
    assert conn.closed
    assert far.recv(1) == b""


def test_close_write_after_close(make_conn: Maker) -> None:
    conn, _ = make_conn()
    conn.close()
    with pytest.raises(gtcp.ClosedError):
        conn.close_write()


@pytest.mark.plain
def test_H11_the_descriptor_was_closed_behind_our_back(make_conn: Maker) -> None:
    conn, far = make_conn()
    os.close(conn.fileno())
    for call in (lambda: conn.recv(1, timeout=LONG), lambda: conn.send(b"x"), lambda: conn.send_recv_pkg(b"x")):
        with quick(), pytest.raises(gtcp.SocketError, match="Bad file descriptor"):
            call()
    assert not conn.is_alive()
    conn.close()
    assert conn.closed
    assert far.recv(1) == b""


@pytest.mark.plain
def test_H13_detach_gives_the_socket_away(make_conn: Maker) -> None:
    conn, far = make_conn()
    with pytest.raises(gtcp.Timeout):
        conn.recv(1, timeout=SHORT)  # leaves a receive timeout in the kernel
    number = conn.fileno()
    with conn.detach() as sock:
        assert sock.fileno() == number
        assert conn.closed
        assert sock.gettimeout() == make_conn.detached_timeout
        sock.setblocking(True)
        waiting = Call(sock.recv, 5).sleeping()
        assert waiting.running
        far.sendall(b"hello")
        assert waiting.result() == b"hello"
        with pytest.raises(gtcp.ClosedError):
            conn.send(b"x")


@pytest.mark.plain
def test_H13_detach_refuses_to_lose_bytes(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.sendall(b"one\ntwo\n")
    assert conn.recv_line(timeout=LONG) == b"one"
    with pytest.raises(gtcp.BrokenError, match="4 received bytes would be lost"):
        conn.detach()
    assert conn.recv_line(timeout=LONG) == b"two"
    conn.detach().close()


def test_H13_detach_refuses_while_a_call_is_in_progress(make_conn: Maker) -> None:
    conn, far = make_conn()
    waiting = Call(conn.recv, 5, timeout=LONG).sleeping()
    with pytest.raises(gtcp.ConcurrencyError):
        conn.detach()
    far.sendall(b"hello")
    assert waiting.result() == b"hello"


def test_H13_detach_after_close(make_conn: Maker) -> None:
    conn, _ = make_conn()
    conn.close()
    with pytest.raises(gtcp.ClosedError):
        conn.detach()


@pytest.mark.plain
def test_a_forgotten_connection_warns_and_closes(make_conn: Maker) -> None:
    # The fixture would keep the connection alive: this one is moved into an object of its own.
    conn, far = make_conn()
    forgotten = gtcp.Conn.from_socket(conn.detach())
    text = repr(forgotten)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del forgotten
        gc.collect()
    assert [(each.category, str(each.message)) for each in caught] == [(ResourceWarning, f"unclosed {text}")]
    assert far.recv(1) == b""


@pytest.mark.plain
def test_a_closed_connection_does_not_warn(make_conn: Maker) -> None:
    conn, _ = make_conn()
    moved = gtcp.Conn.from_socket(conn.detach())
    moved.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del moved
        gc.collect()
    assert caught == []
