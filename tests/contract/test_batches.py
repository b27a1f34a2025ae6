"""send_pkgs, recv_pkgs, send_recv_pkgs: many packages in one call."""

import random
import socket
from collections.abc import Iterator

import pytest

import gtcp
from contract.makers import Maker
from support.calls import Call
from support.peers import echo, frame, read, read_frame, says
from support.timing import LONG, SHORT, takes

# Around the sizes where packages stop being gathered, in an order that mixes them.
SIZES = [0, 1, 100, 16383, 16384, 16385, 65533, 65535, 3, 40_000, 0, 65534, 65535, 7]


def contents(sizes: list[int]) -> list[bytes]:
    return [random.Random(i).randbytes(size) for i, size in enumerate(sizes)]


@pytest.mark.parametrize("header", [2, 3, 4])
@pytest.mark.parametrize(
    "sizes", [[], [0], SIZES, [10] * 10_000, [16384] * 5], ids=["none", "one", "mixed", "many", "large"]
)
def test_send_pkgs(make_conn: Maker, header: int, sizes: list[int]) -> None:
    payloads = contents(sizes)
    conn, far = make_conn()
    sending = Call(conn.send_pkgs, payloads, gtcp.PkgOption(header), timeout=LONG)
    wire = b"".join(frame(p, header) for p in payloads)
    assert read(far, len(wire)) == wire
    assert sending.result() is None


def test_send_pkgs_takes_any_iterable(make_conn: Maker) -> None:
    def some() -> Iterator[bytes | bytearray]:
        yield b"a"
        yield bytearray(b"b")

    conn, far = make_conn()
    conn.send_pkgs(some())
    conn.send_pkgs({b"c": 1})
    assert [read_frame(far) for _ in range(3)] == [b"a", b"b", b"c"]


def test_an_iterable_that_fails_moves_nothing(make_conn: Maker) -> None:
    def failing() -> Iterator[bytes]:
        yield b"a"
        raise LookupError("mine")

    conn, far = make_conn()
    with pytest.raises(LookupError, match="mine"):
        conn.send_pkgs(failing())
    with pytest.raises(LookupError, match="mine"):
        conn.send_recv_pkgs(failing())
    conn.send_pkg(b"fine")
    assert read_frame(far) == b"fine"


@pytest.mark.parametrize("how", ["at once", "byte by byte"])
def test_recv_pkgs_n(make_conn: Maker, how: str) -> None:
    payloads = contents([0, 5, 100, 0, 1])
    conn, far = make_conn()
    receiving = Call(conn.recv_pkgs, len(payloads), timeout=LONG)
    wire = b"".join(frame(p) for p in payloads)
    for i in range(0, len(wire), 1 if how == "byte by byte" else len(wire)):
        far.sendall(wire[i : i + (1 if how == "byte by byte" else len(wire))])
    assert receiving.result() == payloads


def test_recv_pkgs_n_of_large_ones(make_conn: Maker) -> None:
    payloads = contents(SIZES)
    conn = make_conn.to(says(b"".join(frame(p) for p in payloads)))
    assert conn.recv_pkgs(len(payloads), timeout=LONG) == payloads


def test_recv_pkgs_all_gives_what_has_arrived(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.sendall(b"".join(frame(p) for p in (b"a", b"", b"c")) + b"\0\5hal")
    assert conn.recv_pkgs(timeout=LONG) == [b"a", b"", b"c"]
    waiting = Call(conn.recv_pkgs, timeout=LONG).sleeping()
    far.sendall(b"fd")
    assert waiting.result() == [b"halfd"]


def test_recv_pkgs_0_waits_for_nothing(make_conn: Maker) -> None:
    conn, _ = make_conn()
    assert conn.recv_pkgs(0, timeout=LONG) == []


@pytest.mark.parametrize("size", [3, 40_000])
def test_B17_after_a_timeout_all_packages_are_still_there(make_conn: Maker, size: int) -> None:
    payloads = contents([size] * 3)
    conn, far = make_conn()
    sending = Call(far.sendall, b"".join(frame(p) for p in payloads)[:-1])
    with takes(SHORT), pytest.raises(gtcp.Timeout):
        conn.recv_pkgs(3, timeout=SHORT)
    sending.result()
    far.sendall(frame(payloads[-1])[-1:])
    assert conn.recv_pkgs(3, timeout=LONG) == payloads


def test_B5_packages_before_the_end_are_still_there(make_conn: Maker) -> None:
    conn = make_conn.to(says(frame(b"a") + frame(b"b") + b"\0"))
    with pytest.raises(gtcp.EOF) as end:
        conn.recv_pkgs(3, timeout=LONG)
    assert (end.value.partial, end.value.expected) == (b"\0", 2)
    assert conn.recv_pkg(timeout=LONG) == b"a"
    assert conn.recv_pkgs(timeout=LONG) == [b"b"]
    with pytest.raises(gtcp.EOF):
        conn.recv_pkgs(timeout=LONG)


@pytest.mark.parametrize("window", [1, 2, 3, 64, 10**9])
def test_send_recv_pkgs_answers_in_order(make_conn: Maker, window: int) -> None:
    payloads = contents([0, 1, 2, 300, 40_000] * 20)
    conn = make_conn.to(echo)
    assert conn.send_recv_pkgs(payloads, window=window, timeout=LONG) == payloads
    assert conn.send_recv_pkgs([], window=window, timeout=LONG) == []
    assert conn.buffered == 0


def test_send_recv_pkgs_never_has_more_under_way_than_the_window(make_conn: Maker) -> None:
    conn, far = make_conn()
    exchanging = Call(conn.send_recv_pkgs, [b"x"] * 10, window=3, timeout=LONG)
    far.settimeout(SHORT)
    for _ in range(10 // 3):
        assert read(far, 9) == frame(b"x") * 3
        with pytest.raises(TimeoutError):
            far.recv(1)
        far.sendall(frame(b"y") * 3)
    read(far, 3)
    far.sendall(frame(b"y"))
    assert exchanging.result() == [b"y"] * 10


def test_full_buffers_on_both_sides_block_nobody(make_conn: Maker) -> None:
    # The peer replies to each package before it reads the next one, so both sides fill up.
    payload = random.Random(5).randbytes(60_000)

    def replying(sock: socket.socket) -> None:
        while True:
            try:
                sock.sendall(frame(read_frame(sock)))
            except EOFError:
                return

    conn = make_conn.to(replying, receive_buffer=4096)
    assert conn.send_recv_pkgs([payload] * 200, window=200, timeout=LONG) == [payload] * 200


def test_replies_that_came_are_in_the_error(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.sendall(frame(b"1") + frame(b"2"))
    with takes(SHORT), pytest.raises(gtcp.Timeout) as late:
        conn.send_recv_pkgs([b"a", b"b", b"c"], timeout=SHORT)
    assert late.value.replies == [b"1", b"2"]
    assert late.value.sent == 3


def test_B5_the_end_in_the_middle_of_the_replies(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.sendall(frame(b"1") + b"\0\5ab")
    far.shutdown(socket.SHUT_WR)
    with pytest.raises(gtcp.EOF) as end:
        conn.send_recv_pkgs([b"a", b"b"], timeout=LONG)
    assert (end.value.partial, end.value.expected) == (b"ab", 5)
    assert end.value.replies == [b"1"]


@pytest.mark.plain
def test_C3_packages_that_left_whole_are_counted(make_conn: Maker) -> None:
    conn, far = make_conn(receive_buffer=4096)
    payload = bytes(20_000)
    with takes(SHORT), pytest.raises(gtcp.Timeout) as late:
        conn.send_pkgs([payload] * 1000, timeout=SHORT)
    sent = late.value.sent
    assert sent is not None
    assert 0 < sent < 1000
    conn.close()
    for _ in range(sent):
        assert read_frame(far) == payload
    with pytest.raises(EOFError):
        read_frame(far)
