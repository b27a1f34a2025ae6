"""Time: deadlines are total, never early, and a receive that timed out can be repeated (B17, D1, D2, D4, D5)."""

import contextlib
import math
import mmap
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

import gtcp
from contract.makers import Maker
from contract.operations import EXCHANGES, RECEIVES, SENDS, UNITS
from support.calls import Call
from support.peers import drips, frame, read
from support.timing import LATE, LONG, SHORT, quick, takes

BRIEF = SHORT / 2  # for what is done with every call there is
MUCH = bytes(8 << 20)  # more than the buffers between two sockets hold


@pytest.mark.parametrize("name", UNITS)
def test_B17_a_timeout_in_the_middle_loses_nothing(make_conn: Maker, name: str) -> None:
    receive = UNITS[name]
    for at in range(len(receive.wire)):
        conn, far = make_conn()
        far.sendall(receive.wire[:at])
        with pytest.raises(gtcp.Timeout):
            receive.call(conn, 0.001)
        far.sendall(receive.wire[at:] + b"rest")
        assert receive.call(conn, LONG) == receive.result, at
        assert conn.recv(4, timeout=LONG) == b"rest"


def test_B17_timeout_in_header_keeps_bytes(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.sendall(b"\0\0\0")
    with takes(SHORT), pytest.raises(gtcp.Timeout) as late:
        conn.recv_pkg(gtcp.PkgOption(4), timeout=SHORT)
    assert isinstance(late.value, TimeoutError)
    assert conn.buffered == 3
    far.sendall(b"\5hello")
    assert conn.recv_pkg(gtcp.PkgOption(4), timeout=LONG) == b"hello"


@pytest.mark.parametrize("size", [100, 16384, 70_000, 1_000_000])
def test_B17_timeouts_again_and_again_in_a_body(make_conn: Maker, size: int) -> None:
    payload = bytes(i * 7 & 0xFF for i in range(size))
    conn, far = make_conn()
    wire = frame(payload, 4)
    for i in range(5):
        sending = Call(far.sendall, wire[len(wire) * i // 5 : len(wire) * (i + 1) // 5])
        if i < 4:
            with pytest.raises(gtcp.Timeout):
                conn.recv_pkg(gtcp.PkgOption(4), timeout=0.01)
        else:
            assert conn.recv_pkg(gtcp.PkgOption(4), timeout=LONG) == payload
        sending.result()
    assert conn.buffered == 0


def test_B17_after_a_timeout_the_bytes_can_be_received_differently(make_conn: Maker) -> None:
    conn, far = make_conn()
    payload = b"x" * 100_000
    far.sendall(frame(payload, 4)[:50_000])
    with pytest.raises(gtcp.Timeout):
        conn.recv_pkg(gtcp.PkgOption(4), timeout=SHORT)
    assert conn.recv(4, timeout=LONG) == len(payload).to_bytes(4, "big")
    buffer = bytearray(10)
    assert conn.recv_into(buffer, 10, timeout=LONG) == 10
    assert len(conn.recv(0, timeout=LONG)) == 50_000 - 14
    with pytest.raises(gtcp.Timeout):
        conn.recv(0, timeout=0)


def test_B17_a_large_recv_into_that_timed_out_can_become_a_recv(make_conn: Maker) -> None:
    conn, far = make_conn()
    data = bytes(i & 0xFF for i in range(100_000))
    far.sendall(data)
    buffer = bytearray(200_000)
    with pytest.raises(gtcp.Timeout):
        conn.recv_into(buffer, 200_000, timeout=SHORT)
    assert conn.buffered == 100_000
    assert conn.recv(100_000, timeout=LONG) == data


@pytest.mark.parametrize("name", RECEIVES)
def test_D1_a_silent_peer(make_conn: Maker, name: str) -> None:
    conn, _ = make_conn()
    with takes(BRIEF), pytest.raises(gtcp.Timeout, match="timed out while receiving"):
        RECEIVES[name].call(conn, BRIEF)


# Units that a dripping peer does not finish in time.
LONG_UNITS = {
    "recv": lambda conn: conn.recv(1000, timeout=BRIEF),
    "recv large": lambda conn: conn.recv(1 << 20, timeout=BRIEF),
    "recv_into": lambda conn: conn.recv_into(bytearray(1000), 1000, timeout=BRIEF),
    "recv_line": lambda conn: conn.recv_line(timeout=BRIEF),
    "recv_till": lambda conn: conn.recv_till(b"--", timeout=BRIEF),
    "recv_pkg": lambda conn: conn.recv_pkg(timeout=BRIEF),
    "recv_pkg large": lambda conn: conn.recv_pkg(gtcp.PkgOption(3), timeout=BRIEF),
    "recv_pkgs": lambda conn: conn.recv_pkgs(100, gtcp.PkgOption(1), timeout=BRIEF),
    "packages": lambda conn: next(conn.packages(timeout=BRIEF)),
    "lines": lambda conn: next(conn.lines(timeout=BRIEF)),
    "send_recv": lambda conn: conn.send_recv(b"?", 1000, timeout=BRIEF),
    "send_recv_pkg": lambda conn: conn.send_recv_pkg(b"?", timeout=BRIEF),
    "send_recv_pkgs": lambda conn: conn.send_recv_pkgs([b"?"], timeout=BRIEF),
}


@pytest.mark.parametrize("name", LONG_UNITS)
def test_D1_a_byte_now_and_then_does_not_extend_the_deadline(make_conn: Maker, name: str) -> None:
    conn = make_conn.to(drips(b"\1" * 1000, SHORT / 20))
    conn.recv(1, timeout=LONG)  # it has begun
    assert select.select([conn.fileno()], [], [], LONG)[0]  # and goes on, also where its thread is held up
    with takes(BRIEF), pytest.raises(gtcp.Timeout):
        LONG_UNITS[name](conn)
    assert conn.buffered > 0


def test_D1_recv_all_gives_what_came_by_the_deadline(make_conn: Maker) -> None:
    conn = make_conn.to(drips(b"\1" * 1000, SHORT / 20))
    conn.set_buffer_wait_recv(LONG)
    with takes(SHORT):
        data = conn.recv(timeout=SHORT)
    assert 2 <= len(data) <= 25


HUGE = 1 << 40
# What a peer that never pauses could go on filling for ever.
ENDLESS: dict[str, Callable[[gtcp.Conn, float], object]] = {
    "recv": lambda conn, t: conn.recv(HUGE, timeout=t),
    "recv_into": lambda conn, t: conn.recv_into(ROOM, len(ROOM), timeout=t),
    "recv_line": lambda conn, t: conn.recv_line(max_size=HUGE, timeout=t),
    "recv_pkg": lambda conn, t: conn.recv_pkg(gtcp.PkgOption(4), timeout=t),
    "recv_pkgs": lambda conn, t: conn.recv_pkgs(HUGE, gtcp.PkgOption(1), timeout=t),
}
ROOM = mmap.mmap(-1, 1 << 30)
FLOOD = """
import socket
with socket.socket(fileno=0) as sock:
    try:
        while True:
            sock.sendall(b"\\x7f" * (1 << 20))
    except OSError:
        pass
"""


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.plain
def test_D1_a_flood_does_not_extend_the_deadline(make_conn: Maker, name: str) -> None:
    conn, far = make_conn()
    far.setblocking(True)
    # From a process of its own: a thread of this one would pause for the interpreter's lock.
    with subprocess.Popen([sys.executable, "-S", "-c", FLOOD], stdin=far.fileno()), contextlib.closing(conn):
        far.close()
        assert conn.recv(1, timeout=LONG) == b"\x7f"
        # What was not all there goes back where it came from, which takes as long as it is much.
        with takes(SHORT / 10, late=2 * LATE), pytest.raises(gtcp.Timeout):
            ENDLESS[name](conn, SHORT / 10)


@pytest.mark.parametrize("name", SENDS)
def test_C2_a_peer_that_never_reads(make_conn: Maker, name: str) -> None:
    conn, _ = make_conn(receive_buffer=4096)
    with takes(SHORT), pytest.raises(gtcp.Timeout, match="timed out while sending") as late:
        SENDS[name](conn, MUCH, SHORT)
    assert late.value.sent is not None
    if name == "send":
        assert 0 < late.value.sent < len(MUCH)
        return
    # Half a package is out: nobody may go on behind it.
    for after in (conn.send, conn.send_pkg):
        with quick(), pytest.raises(gtcp.BrokenError):
            after(b"x")


@pytest.mark.parametrize("name", EXCHANGES)
def test_C2_an_exchange_with_a_peer_that_never_reads(make_conn: Maker, name: str) -> None:
    conn, _ = make_conn(receive_buffer=4096)
    with takes(SHORT), pytest.raises(gtcp.Timeout):
        EXCHANGES[name](conn, MUCH, SHORT)


@pytest.mark.parametrize("name", SENDS)
def test_D1_a_peer_that_reads_now_and_then_does_not_extend_the_deadline(make_conn: Maker, name: str) -> None:
    conn, far = make_conn(receive_buffer=4096)
    stop = threading.Event()

    def sip() -> None:
        while not stop.wait(SHORT / 20):
            far.recv(100)

    sipping = Call(sip)
    with takes(SHORT), pytest.raises(gtcp.Timeout):
        SENDS[name](conn, MUCH, SHORT)
    stop.set()
    sipping.result()


@pytest.mark.parametrize("name", EXCHANGES)
def test_D1_one_timeout_for_sending_and_receiving(make_conn: Maker, name: str) -> None:
    conn, far = make_conn()
    with takes(6 * SHORT):
        exchanging = Call(lambda: EXCHANGES[name](conn, MUCH, 6 * SHORT))
        threading.Event().wait(SHORT)
        read(far, len(MUCH))  # a sixth of the time or more went into the request; no reply comes
        with pytest.raises(gtcp.Timeout, match=r"receiving|replies"):
            exchanging.result()


def test_D1_waiting_for_another_sender_counts(make_conn: Maker) -> None:
    conn, _ = make_conn(receive_buffer=4096)
    first = Call(conn.send, MUCH, timeout=LONG).sleeping()
    for call in (conn.send, conn.send_pkg, conn.send_recv):
        with takes(SHORT), pytest.raises(gtcp.Timeout):
            call(b"x", timeout=SHORT)
    conn.abort()
    with pytest.raises(gtcp.ClosedError):
        first.result()


def test_D1_waiting_for_another_exchange_counts(make_conn: Maker) -> None:
    conn, far = make_conn()
    first = Call(conn.send_recv_pkg, b"1", timeout=LONG).sleeping()
    for call in (lambda t: conn.send_recv_pkg(b"2", timeout=t), lambda t: conn.send_recv_pkgs([b"2"], timeout=t)):
        with takes(SHORT), pytest.raises(gtcp.Timeout):
            call(SHORT)
    far.sendall(frame(b"one"))
    assert first.result() == b"one"


def test_D2_never_early(make_conn: Maker) -> None:
    conn, _ = make_conn()
    waits = [0.0, 1e-9, 1e-6, 0.0004, 0.001, 0.0015, 0.0049, 0.01, 0.021, 0.045] * 3
    for wait in waits:
        start = time.monotonic()
        with pytest.raises(gtcp.Timeout):
            conn.recv_pkg(timeout=wait)
        assert time.monotonic() - start >= wait


@pytest.mark.parametrize("name", RECEIVES)
def test_D4_zero_tries_once(make_conn: Maker, name: str) -> None:
    receive = RECEIVES[name]
    conn, far = make_conn()
    with quick(), pytest.raises(gtcp.Timeout):
        receive.call(conn, 0)
    far.sendall(receive.wire)
    assert receive.call(conn, 0) == receive.result


def test_D4_zero_sends_what_fits(make_conn: Maker) -> None:
    conn, far = make_conn()
    conn.send(b"hello", timeout=0)
    assert read(far, 5) == b"hello"
    with quick(), pytest.raises(gtcp.Timeout):
        conn.send(MUCH, timeout=0)


@pytest.mark.parametrize("timeout", [None, math.inf, 1e300, 2**31 / 1000 + 1, 10**400, LONG, Decimal(10)])
def test_D4_long_timeouts_wait(make_conn: Maker, timeout: Any) -> None:
    conn, far = make_conn()
    waiting = Call(conn.recv_pkg, timeout=timeout).sleeping()
    far.sendall(frame(b"hello"))
    assert waiting.result() == b"hello"


def test_D5_the_earlier_of_timeout_and_deadline_applies(make_conn: Maker) -> None:
    conn, _ = make_conn()
    conn.set_deadline(time.monotonic() + LONG)
    with takes(SHORT), pytest.raises(gtcp.Timeout):
        conn.recv(1, timeout=SHORT)
    with takes(SHORT):
        conn.set_deadline(time.monotonic() + SHORT)
        with pytest.raises(gtcp.Timeout):
            conn.recv(1, timeout=LONG)


@pytest.mark.parametrize("name", [*RECEIVES, *EXCHANGES])
def test_D5_a_timeout_of_one_call_leaves_the_deadline_alone(make_conn: Maker, name: str) -> None:
    conn, far = make_conn()
    conn.set_deadline(time.monotonic() + SHORT / 4)
    if name in RECEIVES:
        far.sendall(RECEIVES[name].wire)
        RECEIVES[name].call(conn, LONG)
    else:
        far.sendall(b"\0\0\0\1x")
        EXCHANGES[name](conn, b"?", LONG)
    with quick(SHORT / 4 + LATE), pytest.raises(gtcp.Timeout):
        conn.recv(1)


def test_D5_a_deadline_that_has_passed_stays_until_it_is_changed(make_conn: Maker) -> None:
    conn, far = make_conn()
    conn.set_deadline(time.monotonic() - 1)
    for _ in range(2):
        with quick(), pytest.raises(gtcp.Timeout):
            conn.recv(1, timeout=LONG)
        with quick(), pytest.raises(gtcp.Timeout):
            conn.send_recv(b"", 1, timeout=LONG)
    conn.set_deadline(None)
    far.sendall(b"x")
    assert conn.recv(1, timeout=LONG) == b"x"


def test_D5_deadlines_for_one_direction(make_conn: Maker) -> None:
    conn, far = make_conn(receive_buffer=4096)
    conn.set_deadline_recv(time.monotonic())
    with quick(), pytest.raises(gtcp.Timeout):
        conn.recv(1)
    conn.send(b"hello")
    assert read(far, 5) == b"hello"

    conn.set_deadline_recv(None)
    conn.set_deadline_send(time.monotonic())
    far.sendall(b"x")
    assert conn.recv(1, timeout=LONG) == b"x"
    with quick(), pytest.raises(gtcp.Timeout):
        conn.send(MUCH)

    conn.set_deadline(None)
    with takes(SHORT), pytest.raises(gtcp.Timeout):
        conn.send(MUCH, timeout=SHORT)


def test_D5_iterators_obey_the_deadline(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.sendall(frame(b"one"))
    conn.set_deadline(time.monotonic() + SHORT)
    packages = conn.packages(timeout=LONG)
    assert next(packages) == b"one"
    with quick(SHORT * 2), pytest.raises(gtcp.Timeout):
        next(packages)


@pytest.mark.parametrize(
    "call",
    [
        lambda conn: conn.recv_with_timeout(5, BRIEF),
        lambda conn: conn.recv_pkg_with_timeout(BRIEF),
        lambda conn: conn.send_recv_with_timeout(b"?", 5, BRIEF),
        lambda conn: conn.send_recv_pkg_with_timeout(b"?", BRIEF),
        lambda conn: conn.send_with_timeout(MUCH, BRIEF),
        lambda conn: conn.send_pkg_with_timeout(MUCH, BRIEF, gtcp.PkgOption(4)),
        lambda conn: conn.send_recv_with_timeout(MUCH, 5, BRIEF),
        lambda conn: conn.send_recv_pkg_with_timeout(MUCH, BRIEF, gtcp.PkgOption(4)),
    ],
    ids=["recv", "recv_pkg", "send_recv", "send_recv_pkg", "send", "send_pkg", "send_recv much", "send_recv_pkg much"],
)
def test_D1_the_forms_with_a_timeout_in_front(make_conn: Maker, call: Any) -> None:
    conn, _ = make_conn(receive_buffer=4096)
    with takes(BRIEF), pytest.raises(gtcp.Timeout):
        call(conn)


def test_what_arrives_at_the_last_moment_counts(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.sendall(b"hello")
    assert conn.recv(5, timeout=1e-9) == b"hello"


def test_a_timeout_wastes_no_cpu(make_conn: Maker) -> None:
    conn, _ = make_conn()
    start = time.thread_time()
    with pytest.raises(gtcp.Timeout):
        conn.recv(1, timeout=2 * SHORT)
    assert time.thread_time() - start < SHORT / 2
