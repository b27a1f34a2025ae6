"""send, recv, recv_into, send_recv: bytes as they come and go."""

import array
import ctypes
import random
from typing import Any

import pytest

import gtcp
from contract.makers import Maker
from support.calls import Call
from support.peers import echo, read, says
from support.timing import LONG, SHORT, quick


def test_recv_n_is_exact_and_leaves_the_rest(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.sendall(b"hello world")
    assert conn.recv(5, timeout=LONG) == b"hello"
    assert conn.recv(1, timeout=LONG) == b" "
    assert conn.recv(5, timeout=LONG) == b"world"
    assert conn.buffered == 0


@pytest.mark.parametrize("size", [1, 16383, 16384, 16385, 65536, 65537, 1 << 20, 5_000_000])
def test_recv_n_of_every_size(make_conn: Maker, size: int) -> None:
    data = random.Random(size).randbytes(size)
    conn = make_conn.to(says(data + b"tail"))
    assert conn.recv(size, timeout=LONG) == data
    assert conn.recv(4, timeout=LONG) == b"tail"


def test_recv_0_gives_what_one_read_gives(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.sendall(b"hello")
    assert conn.recv(0, timeout=LONG) == b"hello"
    waiting = Call(conn.recv, 0, timeout=LONG).sleeping()
    far.sendall(b"more")
    assert waiting.result() == b"more"


def test_recv_0_gives_what_is_buffered_first(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.sendall(b"line\nrest")
    assert conn.recv_line(timeout=LONG) == b"line"
    far.sendall(b"more")
    assert conn.recv(0, timeout=LONG) == b"rest"
    assert conn.recv(0, timeout=LONG) == b"more"


def test_recv_all_blocks_for_the_first_bytes_and_no_longer(make_conn: Maker) -> None:
    conn, far = make_conn()
    waiting = Call(conn.recv, timeout=LONG).sleeping()
    far.sendall(b"hello")
    with quick():
        assert waiting.result() == b"hello"


def test_recv_all_goes_on_while_reads_come_back_full(make_conn: Maker) -> None:
    conn, far = make_conn()
    data = bytes(range(256)) * 4096
    most = 0
    for _ in range(20):  # as the kernel hands it over in pieces of its own, which may be smaller
        sending = Call(far.sendall, data)
        received = b""
        while len(received) < len(data):
            received += (piece := conn.recv(timeout=LONG))
            most = max(most, len(piece))
        sending.result()
        assert received == data
        if most > 65536:  # more than the first read had room for
            return
    raise AssertionError(most)


def test_recv_all_waits_for_the_gap_that_was_set(make_conn: Maker) -> None:
    conn, far = make_conn()
    conn.set_buffer_wait_recv(LONG)
    waiting = Call(conn.recv, timeout=2 * LONG)
    for piece in (b"a", b"b", b"c"):
        far.sendall(piece)
        waiting.sleeping()
    far.close()
    assert waiting.result() == b"abc"


def test_recv_all_ends_after_the_gap(make_conn: Maker) -> None:
    conn, far = make_conn()
    conn.set_buffer_wait_recv(SHORT)
    far.sendall(b"hello")
    assert conn.recv(timeout=LONG) == b"hello"
    far.sendall(b"again")
    assert conn.send_recv(b"?", timeout=LONG) == b"again"


def test_recv_all_goes_on_from_what_is_there_until_the_gap(make_conn: Maker) -> None:
    conn, far = make_conn()
    conn.set_buffer_wait_recv(SHORT)
    far.sendall(b"line\nbegin")
    assert conn.recv_line(timeout=LONG) == b"line"
    far.sendall(b"ning")
    assert conn.recv(timeout=LONG) == b"beginning"


@pytest.mark.parametrize("n", [0, 3])
def test_recv_into(make_conn: Maker, n: int) -> None:
    conn, far = make_conn()
    far.sendall(b"abc")
    buffer = bytearray(b"....." if n else b"...")
    assert conn.recv_into(buffer, n, timeout=LONG) == 3
    assert buffer[:3] == b"abc"
    assert buffer[3:] == b".." * bool(n)


@pytest.mark.parametrize("make", [bytearray, lambda n: memoryview(bytearray(n)), lambda n: array.array("B", bytes(n))])
def test_recv_into_any_writable_buffer(make_conn: Maker, make: Any) -> None:
    conn, far = make_conn()
    far.sendall(b"abcdef")
    buffer = make(4)
    assert conn.recv_into(buffer, 4, timeout=LONG) == 4
    assert bytes(buffer) == b"abcd"
    assert conn.recv(2, timeout=LONG) == b"ef"


def test_recv_into_takes_what_is_buffered_and_the_rest_directly(make_conn: Maker) -> None:
    data = random.Random(1).randbytes(300_000)
    conn = make_conn.to(says(b"line\n" + data))
    assert conn.recv_line(timeout=LONG) == b"line"
    buffer = bytearray(len(data))
    assert conn.recv_into(buffer, len(data), timeout=LONG) == len(data)
    assert buffer == data


def test_C7_the_buffer_is_free_again_after_recv_into(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.sendall(b"abc")
    buffer = bytearray(3)
    conn.recv_into(buffer, 3, timeout=LONG)
    buffer += b"x"  # BufferError while it is exported
    with pytest.raises(gtcp.Timeout):
        conn.recv_into(buffer, 4, timeout=0)
    buffer += b"x"
    assert buffer == b"abcxx"


def test_C7_nobody_resizes_the_buffer_of_a_call_in_progress(make_conn: Maker) -> None:
    conn, far = make_conn()
    buffer = bytearray(3)
    waiting = Call(conn.recv_into, buffer, 3, timeout=LONG).sleeping()
    with pytest.raises(BufferError):
        buffer += b"x"
    far.sendall(b"abc")
    assert waiting.result() == 3


NUMBERS = array.array("I", range(1000))
SENDABLE: dict[str, tuple[Any, bytes]] = {
    "bytes": (b"hello", b"hello"),
    "bytearray": (bytearray(b"hello"), b"hello"),
    "memoryview": (memoryview(b"hello"), b"hello"),
    "slice": (memoryview(b"hello")[1:4], b"ell"),
    "every other byte": (memoryview(b"hello")[::2], b"hlo"),
    "backwards": (memoryview(b"hello")[::-1], b"olleh"),
    "array": (NUMBERS, NUMBERS.tobytes()),  # its len() counts numbers, not bytes
    "wide memoryview": (memoryview(NUMBERS)[10:20], NUMBERS[10:20].tobytes()),
    "ctypes": ((ctypes.c_uint16 * 3)(1, 2, 3), bytes((ctypes.c_uint16 * 3)(1, 2, 3))),
    "subclass": (type("Sub", (bytes,), {})(b"hello"), b"hello"),
    "empty memoryview": (memoryview(b""), b""),
}


@pytest.mark.parametrize("data", SENDABLE)
@pytest.mark.parametrize("how", ["send", "send_pkg", "send_pkgs"])
def test_C7_everything_that_has_bytes_can_be_sent(make_conn: Maker, how: str, data: str) -> None:
    conn, far = make_conn()
    value, expected = SENDABLE[data]
    getattr(conn, how)([value] if how == "send_pkgs" else value)
    header = b"" if how == "send" else len(expected).to_bytes(2, "big")
    assert read(far, len(header) + len(expected)) == header + expected


def test_C7_nobody_resizes_what_is_being_sent(make_conn: Maker) -> None:
    conn, far = make_conn(receive_buffer=4096)
    data = bytearray(random.Random(2).randbytes(8 << 20))
    expected = bytes(data)
    sending = Call(conn.send, data, timeout=LONG).sleeping()
    with pytest.raises(BufferError):
        data.clear()
    assert read(far, len(expected)) == expected
    sending.result()
    data.clear()
    assert not data


@pytest.mark.parametrize("length", [-1, 0, 5])
def test_send_recv(make_conn: Maker, length: int) -> None:
    conn = make_conn.to(echo)
    for message in (b"hello", b"again"):
        assert conn.send_recv(message, length, timeout=LONG) == message


def test_send_recv_takes_all_by_default(make_conn: Maker) -> None:
    conn = make_conn.to(echo)
    assert conn.send_recv(b"hello", timeout=LONG) == b"hello"


def test_a_large_exchange_both_ways(make_conn: Maker) -> None:
    data = random.Random(3).randbytes(2 << 20)

    def sink_then_reply(sock: Any) -> None:
        assert read(sock, len(data)) == data
        sock.sendall(data)

    conn = make_conn.to(sink_then_reply)
    assert conn.send_recv(data, len(data), timeout=LONG) == data


def test_the_forms_with_a_timeout_in_front(make_conn: Maker) -> None:
    conn = make_conn.to(echo)
    option = gtcp.PkgOption(1)
    conn.send_with_timeout(b"hello", LONG)
    assert conn.recv_with_timeout(5, LONG) == b"hello"
    assert conn.send_recv_with_timeout(b"hello", -1, LONG) == b"hello"
    conn.send_pkg_with_timeout(b"hello", LONG)
    assert conn.recv_pkg_with_timeout(LONG) == b"hello"
    conn.send_pkg_with_timeout(b"hello", LONG, option)
    assert conn.recv_pkg_with_timeout(LONG, option) == b"hello"
    assert conn.send_recv_pkg_with_timeout(b"hello", LONG) == b"hello"
    assert conn.send_recv_pkg_with_timeout(b"hello", LONG, option) == b"hello"
    assert conn.buffered == 0


def test_a_retry_is_taken_by_every_method_that_has_one(make_conn: Maker) -> None:
    conn = make_conn.to(echo)
    retry = gtcp.Retry(2, 0.001)
    conn.send(b"a\nb;", retry, timeout=LONG)
    assert conn.recv_line(retry, timeout=LONG) == b"a"
    assert conn.recv_till(b";", retry, timeout=LONG) == b"b;"
    assert conn.send_recv(b"abc", 1, retry, timeout=LONG) == b"a"
    assert conn.recv(1, retry, timeout=LONG) == b"b"
    assert conn.recv(retry=retry, timeout=LONG) == b"c"


def test_a_retry_does_not_repeat_what_does_not_pass(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.close()
    with quick(), pytest.raises(gtcp.EOF):
        conn.recv(1, gtcp.Retry(5, LONG), timeout=LONG)
    with quick(), pytest.raises(gtcp.EOF):
        conn.recv_pkg(gtcp.PkgOption(retry=gtcp.Retry(5, LONG)), timeout=LONG)
