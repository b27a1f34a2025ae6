"""recv_line, recv_till, lines: units that end with a delimiter (B13, B15)."""

import pytest

import gtcp
from contract.makers import Maker
from support.peers import drips, says
from support.timing import LONG


def test_a_line_loses_its_newline_and_keeps_its_return(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.sendall(b"one\ntwo\r\n\nrest")
    assert [conn.recv_line(timeout=LONG) for _ in range(3)] == [b"one", b"two\r", b""]
    assert conn.recv(4, timeout=LONG) == b"rest"


def test_recv_till_keeps_its_delimiter(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.sendall(b"one--two----rest")
    assert [conn.recv_till(b"--", timeout=LONG) for _ in range(3)] == [b"one--", b"two--", b"--"]
    assert conn.recv(4, timeout=LONG) == b"rest"


def test_B15_delimiters_that_arrive_byte_by_byte(make_conn: Maker) -> None:
    conn = make_conn.to(drips(b"aaab,enDEND;\r\r\nrest"))
    assert conn.recv_till(b"aab", timeout=LONG) == b"aaab"
    assert conn.recv_till(b"END", timeout=LONG) == b",enDEND"
    assert conn.recv_till(b"\r\n", timeout=LONG) == b";\r\r\n"
    assert conn.recv(4, timeout=LONG) == b"rest"


def test_B15_exact_bytes_not_text(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.sendall(b"\xfe\xff\x80\x81")
    assert conn.recv_till(b"\x80\x81", timeout=LONG) == b"\xfe\xff\x80\x81"


@pytest.mark.parametrize("size", [0, 1, 16384, 65536, 1 << 20])
def test_lines_up_to_the_default_limit(make_conn: Maker, size: int) -> None:
    conn = make_conn.to(says(b"x" * size + b"\nrest"))
    assert conn.recv_line(timeout=LONG) == b"x" * size
    assert conn.recv(4, timeout=LONG) == b"rest"


@pytest.mark.parametrize("receive", ["recv_line", "recv_till"])
def test_B13_no_delimiter_within_the_default_limit(make_conn: Maker, receive: str) -> None:
    conn = make_conn.to(says(b"x" * (8 << 20)))
    with pytest.raises(gtcp.LimitError, match=f"max_size {1 << 20} bytes"):
        conn.recv_line(timeout=LONG) if receive == "recv_line" else conn.recv_till(b"--", timeout=LONG)
    assert conn.buffered <= 2 << 20


@pytest.mark.parametrize("dripped", [False, True])
def test_B13_a_unit_above_its_limit_stays_whatever_the_cuts(make_conn: Maker, dripped: bool) -> None:
    wire = b"0123456789\n0123456;"
    conn = make_conn.to(drips(wire) if dripped else says(wire))
    with pytest.raises(gtcp.LimitError):
        conn.recv_line(max_size=9, timeout=LONG)
    assert conn.recv_line(max_size=10, timeout=LONG) == b"0123456789"
    with pytest.raises(gtcp.LimitError):
        conn.recv_till(b";", max_size=7, timeout=LONG)
    assert conn.recv_till(b";", max_size=8, timeout=LONG) == b"0123456;"


def test_lines_end_with_the_stream(make_conn: Maker) -> None:
    conn = make_conn.to(says(b"one\n\ntwo\n"))
    lines = conn.lines(timeout=LONG)
    assert list(lines) == [b"one", b"", b"two"]
    assert list(lines) == []


def test_B5_lines_complain_about_a_line_without_end(make_conn: Maker) -> None:
    conn = make_conn.to(says(b"one\ntw"))
    lines = conn.lines(timeout=LONG)
    assert next(lines) == b"one"
    with pytest.raises(gtcp.EOF) as end:
        next(lines)
    assert end.value.partial == b"tw"


def test_lines_have_a_limit(make_conn: Maker) -> None:
    conn = make_conn.to(says(b"one\n0123456789\n"))
    lines = conn.lines(timeout=LONG, max_size=5)
    assert next(lines) == b"one"
    with pytest.raises(gtcp.LimitError):
        next(lines)
    assert conn.recv_line(timeout=LONG) == b"0123456789"
