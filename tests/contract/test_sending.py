"""Sending: every byte once and in order, whole packages only, and what to do after a failure (C1, C3, C9, C12)."""

import os
import random
import socket
import threading

import pytest

import gtcp
from contract.makers import Maker
from support.calls import Call
from support.peers import frame, read, read_frame
from support.timing import LONG, SHORT, quick, takes


def shrink_send_buffer(conn: gtcp.Conn) -> None:
    """The kernel takes as little per call as it can be made to."""
    with socket.socket(fileno=os.dup(conn.fileno())) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)


@pytest.mark.parametrize("how", ["send", "send_pkg", "send_pkgs"])
def test_C1_a_kernel_that_takes_little_at_a_time(make_conn: Maker, how: str) -> None:
    conn, far = make_conn(receive_buffer=4096)
    shrink_send_buffer(conn)
    data = random.Random(1).randbytes(300_000)
    option = gtcp.PkgOption(4)
    calls = {
        "send": (lambda: conn.send(data, timeout=LONG), data),
        "send_pkg": (lambda: conn.send_pkg(data, option, timeout=LONG), frame(data, 4)),
        "send_pkgs": (lambda: conn.send_pkgs([data, b"x", data], option, timeout=LONG),
                      frame(data, 4) + frame(b"x", 4) + frame(data, 4)),
    }  # fmt: skip
    call, wire = calls[how]
    sending = Call(call)
    assert read(far, len(wire)) == wire
    sending.result()


def test_C1_small_packages_through_a_small_buffer(make_conn: Maker) -> None:
    conn, far = make_conn(receive_buffer=4096)
    shrink_send_buffer(conn)
    payloads = [random.Random(i).randbytes(i % 1500) for i in range(1000)]
    sending = Call(lambda: [conn.send_pkg(p, timeout=LONG) for p in payloads])
    assert [read_frame(far) for _ in payloads] == payloads
    sending.result()


def test_C3_a_send_that_timed_out_goes_on_at_the_first_unsent_byte(make_conn: Maker) -> None:
    conn, far = make_conn(receive_buffer=4096)
    data = random.Random(2).randbytes(16 << 20)
    with takes(SHORT), pytest.raises(gtcp.Timeout) as late:
        conn.send(data, timeout=SHORT)
    sent = late.value.sent
    assert sent is not None
    assert 0 < sent < len(data)
    rest = Call(conn.send, data[sent:], timeout=LONG)
    assert read(far, len(data)) == data
    rest.result()
    far.setblocking(False)
    with pytest.raises(BlockingIOError):
        far.recv(1)


@pytest.mark.parametrize("retry", [None, gtcp.Retry(3, 0.001)])
@pytest.mark.plain
def test_C3_a_retry_sends_no_byte_twice(make_conn: Maker, retry: gtcp.Retry | None) -> None:
    conn, far = make_conn(receive_buffer=4096)
    data = random.Random(3).randbytes(16 << 20)
    with pytest.raises(gtcp.Timeout) as late:
        conn.send(data, retry, timeout=SHORT)
    conn.close()
    received = bytearray()
    while chunk := far.recv(1 << 20):
        received += chunk
    assert received == data[: late.value.sent]


@pytest.mark.plain
def test_C3_what_a_failed_package_counts_as_sent_is_payload(make_conn: Maker) -> None:
    conn, far = make_conn(receive_buffer=4096)
    data = random.Random(4).randbytes(16 << 20)
    with pytest.raises(gtcp.Timeout) as late:
        conn.send_pkg(data, gtcp.PkgOption(4), timeout=SHORT)
    conn.close()
    sent = late.value.sent
    assert sent is not None
    assert read(far, 4) == len(data).to_bytes(4, "big")
    assert read(far, sent) == data[:sent]
    assert far.recv(1) == b""


def test_C9_packages_of_many_threads_never_interleave(make_conn: Maker) -> None:
    conn, far = make_conn(receive_buffer=4096)
    threads, each = 16, 40
    ready = threading.Barrier(threads)

    def send_all(number: int) -> None:
        rng = random.Random(number)
        ready.wait(LONG)
        for i in range(each):
            body = bytes([number]) * rng.choice([0, 1, 100, 2000, 30_000])
            conn.send_pkg(bytes([number, i]) + body, timeout=LONG)

    sending = [Call(send_all, number) for number in range(threads)]
    received: list[list[int]] = [[] for _ in range(threads)]
    for _ in range(threads * each):
        package = read_frame(far)
        assert set(package[2:]) <= {package[0]}
        received[package[0]].append(package[1])
    for call in sending:
        call.result()
    assert received == [list(range(each))] * threads


def test_C9_senders_take_turns_in_the_order_they_came(make_conn: Maker) -> None:
    conn, far = make_conn(receive_buffer=4096)
    large = bytes(8 << 20)
    calls = [Call(conn.send_pkg, large, gtcp.PkgOption(4), timeout=LONG).sleeping()]
    small = [bytes([number]) for number in range(5)]
    calls += [Call(conn.send_pkg, each, gtcp.PkgOption(4), timeout=LONG).sleeping() for each in small]
    assert read_frame(far, 4) == large
    assert [read_frame(far, 4) for _ in small] == small
    for call in calls:
        call.result()


def test_C9_exchanges_of_many_threads_get_their_own_replies(make_conn: Maker) -> None:
    threads, each = 8, 30

    def reply(sock: socket.socket) -> None:
        for _ in range(threads * each):
            sock.sendall(frame(b"re " + read_frame(sock)))

    conn = make_conn.to(reply)

    def ask(number: int) -> None:
        for i in range(each):
            question = f"{number} {i}".encode()
            if i % 2:
                assert conn.send_recv_pkg(question, timeout=LONG) == b"re " + question
            else:
                assert conn.send_recv_pkgs([question], timeout=LONG) == [b"re " + question]

    for call in [Call(ask, number) for number in range(threads)]:
        call.result()
    assert conn.buffered == 0


def test_C12_nothing_to_send_is_nothing_to_do(make_conn: Maker) -> None:
    conn, far = make_conn()
    conn.send(b"")
    conn.send_pkgs([])
    assert conn.send_recv_pkgs([], timeout=LONG) == []
    conn.send(b"x")
    assert far.recv(100) == b"x"


def test_C12_nothing_on_a_closed_connection_is_an_error(make_conn: Maker) -> None:
    conn, _ = make_conn()
    conn.close()
    for call in (lambda: conn.send(b""), lambda: conn.send_pkgs([]), lambda: conn.send_recv_pkgs([])):
        with pytest.raises(gtcp.ClosedError):
            call()


def test_sending_and_receiving_at_the_same_time(make_conn: Maker) -> None:
    conn, far = make_conn(receive_buffer=4096)
    data = random.Random(5).randbytes(4 << 20)
    sending = Call(conn.send, data, timeout=LONG).sleeping()
    far.sendall(b"hello")
    with quick():
        assert conn.recv(5, timeout=LONG) == b"hello"
    assert read(far, len(data)) == data
    sending.result()


def test_small_packages_are_not_held_back(make_conn: Maker) -> None:
    conn, _ = make_conn()
    with socket.socket(fileno=os.dup(conn.fileno())) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert not sock.get_inheritable()
