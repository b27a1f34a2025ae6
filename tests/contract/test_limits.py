"""Nothing is believed and nothing grows without end (B9, B13, B16, B19, B20)."""

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import gtcp
from contract.makers import Maker
from support.calls import Call
from support.malloc import allocated, malloc_tells
from support.peers import frame
from support.timing import LONG, SHORT, takes

MIB = 1 << 20
STATUS = Path("/proc/self/status")


def kib(name: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise AssertionError(name)


@contextmanager
def little_memory(most: int) -> Iterator[None]:
    """Fail when the block makes the process grow: memory that is only reserved shows in no RSS."""
    before = kib("VmData")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (kib("VmSize") * 1024 + 64 * MIB, hard))
    try:
        yield
        grown = kib("VmData") - before
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert grown * 1024 <= most, f"grown by {grown} KiB"


@pytest.mark.skipif(not STATUS.exists(), reason="the growth of a process is read from /proc")
@pytest.mark.parametrize("arrived", [0, 1, 100_000])
@pytest.mark.parametrize("call", ["recv_pkg", "recv_pkgs", "recv"])
def test_B9_memory_grows_with_what_arrived_not_with_what_was_declared(
    make_conn: Maker, call: str, arrived: int
) -> None:
    conn, far = make_conn()
    declared = 0x7FFFFFFF
    calls = {
        "recv_pkg": lambda: conn.recv_pkg(gtcp.PkgOption(4), timeout=SHORT / 2),
        "recv_pkgs": lambda: conn.recv_pkgs(1000, gtcp.PkgOption(4), timeout=SHORT / 2),
        "recv": lambda: conn.recv(declared, timeout=SHORT / 2),
    }
    far.sendall(declared.to_bytes(4, "big") + bytes(arrived))
    with little_memory(MIB), pytest.raises(gtcp.Timeout):
        calls[call]()
    assert conn.buffered == 4 + arrived


def test_B9_a_length_beyond_2_gib_is_refused(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.sendall(b"\xff\xff\xff\xff")
    with pytest.raises(gtcp.LimitError, match="package of 4294967295 bytes exceeds max_data_size 2147483647"):
        conn.recv_pkg(gtcp.PkgOption(4), timeout=LONG)


@pytest.mark.skipif(not STATUS.exists(), reason="the growth of a process is read from /proc")
@pytest.mark.plain
def test_B13_an_endless_line_costs_no_more_than_twice_its_limit(make_conn: Maker) -> None:
    limit = 4 * MIB
    conn, far = make_conn()
    sending = Call(far.sendall, bytes(32 * MIB)).sleeping()
    with little_memory(2 * limit + MIB), pytest.raises(gtcp.LimitError):
        conn.recv_line(max_size=limit, timeout=LONG)
    conn.close()
    with pytest.raises(ConnectionError):
        sending.result()


def flood(sock: socket.socket) -> None:
    block = b"x" * MIB
    while True:
        sock.sendall(block)


def test_B16_recv_all_ends_at_its_cap(make_conn: Maker) -> None:
    conn = make_conn.to(flood)
    conn.set_buffer_wait_recv(LONG)
    assert len(conn.recv(timeout=LONG)) == 16 * MIB


def test_B16_recv_all_is_capped_by_default_too(make_conn: Maker) -> None:
    conn = make_conn.to(flood)
    for _ in range(3):
        assert 0 < len(conn.recv(timeout=LONG)) <= 16 * MIB


def test_B16_the_deadline_wins_over_the_gap(make_conn: Maker) -> None:
    conn, far = make_conn()
    conn.set_buffer_wait_recv(LONG)
    far.sendall(b"some")
    with takes(SHORT):
        assert conn.recv(timeout=SHORT) == b"some"
    with takes(SHORT), pytest.raises(gtcp.Timeout):
        conn.recv(timeout=SHORT)


@pytest.mark.plain
def test_B19_an_urgent_byte_is_none_of_the_stream(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.sendall(frame(b"hello")[:4])
    far.send(b"!", socket.MSG_OOB)
    far.sendall(frame(b"hello")[4:])
    assert conn.recv_pkg(timeout=LONG) == b"hello"
    far.sendall(b"next")
    assert conn.recv(4, timeout=LONG) == b"next"


@pytest.mark.plain
def test_B19_urgent_bytes_do_not_keep_a_waiting_call_busy(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.send(b"!", socket.MSG_OOB)
    start = time.thread_time()
    with takes(SHORT), pytest.raises(gtcp.Timeout):
        conn.recv_pkg(timeout=SHORT)
    assert time.thread_time() - start < SHORT / 4


@pytest.mark.parametrize("n", [2**31, 2**32, 2**62, 2**63 - 1])
def test_B20_a_huge_length_is_only_a_wish(make_conn: Maker, n: int) -> None:
    conn, far = make_conn()
    far.sendall(b"hello")
    with pytest.raises(gtcp.Timeout):
        conn.recv(n, timeout=0.001)
    assert conn.recv(5, timeout=LONG) == b"hello"


@malloc_tells
@pytest.mark.plain
def test_an_idle_connection_holds_no_large_buffer(make_conn: Maker) -> None:
    line = b"x" * (40 * MIB) + b"\n"
    conn, far = make_conn()
    sending = Call(far.sendall, line).sleeping()
    before = allocated()
    assert before >= 40 * MIB, "the line is not seen"
    assert len(conn.recv_line(max_size=64 * MIB, timeout=LONG)) == 40 * MIB
    sending.result()
    with pytest.raises(gtcp.Timeout):
        conn.recv_line(timeout=0)
    assert allocated() - before < MIB
