"""Packages: a length of 1 to 4 bytes and so many bytes of data (B8, B11, B12, C8)."""

import random
import socket

import pytest

import gtcp
from contract.makers import Maker
from support.calls import Call
from support.peers import drips, echo, frame, read, read_frame, says
from support.timing import LONG, quick

HEADERS = [1, 2, 3, 4]
# What the header can say; for the widest one an agreed limit.
MOST = {1: 0xFF, 2: 0xFFFF, 3: 0xFFFFFF, 4: 4 << 20}


def option(header: int) -> gtcp.PkgOption:
    return gtcp.PkgOption(header, MOST[header])


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("size", ["0", "1", "max-1", "max"])
def test_B12_sizes_that_a_header_can_say(make_conn: Maker, header: int, size: str) -> None:
    payload = content(eval(size, {"max": MOST[header]}))
    conn, far = make_conn()
    sending = Call(conn.send_pkg, payload, option(header), timeout=LONG)
    assert read_frame(far, header) == payload
    sending.result()
    sending = Call(far.sendall, frame(payload, header))
    assert conn.recv_pkg(option(header), timeout=LONG) == payload
    sending.result()


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("how", ["send_pkg", "send_pkgs", "send_recv_pkg", "send_recv_pkgs"])
def test_B12_one_byte_too_many_moves_nothing(make_conn: Maker, header: int, how: str) -> None:
    conn, far = make_conn()
    much = bytes(MOST[header] + 1)
    argument = [b"good", much] if how.endswith("s") else much
    text = f"^package of {MOST[header] + 1} bytes exceeds max_data_size {MOST[header]}$"
    with pytest.raises(gtcp.LimitError, match=text):
        getattr(conn, how)(argument, option(header), timeout=LONG)
    conn.send_pkg(b"fine")
    assert read_frame(far) == b"fine"


def test_C8_the_limit_of_the_option_counts_when_it_is_lower(make_conn: Maker) -> None:
    conn, far = make_conn()
    conn.send_pkg(bytes(10), gtcp.PkgOption(1, 10))
    with pytest.raises(gtcp.LimitError, match="package of 11 bytes exceeds max_data_size 10"):
        conn.send_pkg(bytes(11), gtcp.PkgOption(1, 10))
    assert read_frame(far, 1) == bytes(10)


def test_the_default_is_two_bytes_big_endian(make_conn: Maker) -> None:
    conn, far = make_conn()
    conn.send_pkg(b"x" * 0x102)
    assert read(far, 2) == b"\x01\x02"
    assert read(far, 0x102) == b"x" * 0x102


def test_options_may_change_from_call_to_call(make_conn: Maker) -> None:
    conn, far = make_conn()
    for header in (1, 4, 2, 3, 1):
        conn.send_pkg(b"abc", option(header))
        assert read_frame(far, header) == b"abc"
        far.sendall(frame(b"xyz", header))
        assert conn.recv_pkg(option(header), timeout=LONG) == b"xyz"
        far.sendall(frame(b"two"))
        assert conn.recv_pkg(timeout=LONG) == b"two"


@pytest.mark.parametrize("header", HEADERS)
def test_B11_empty_packages_are_packages(make_conn: Maker, header: int) -> None:
    conn = make_conn.to(says(bytes(header) * 3 + frame(b"after", header)))
    assert [conn.recv_pkg(option(header), timeout=LONG) for _ in range(4)] == [b"", b"", b"", b"after"]


@pytest.mark.parametrize("header", HEADERS)
def test_B1_packages_in_segments_of_one_byte(make_conn: Maker, header: int) -> None:
    payloads = [b"", b"a", content(100)]
    conn = make_conn.to(drips(b"".join(frame(p, header) for p in payloads)))
    assert [conn.recv_pkg(option(header), timeout=LONG) for _ in payloads] == payloads


def test_B2_many_packages_in_one_segment(make_conn: Maker) -> None:
    payloads = [content(size) for size in range(500)]
    conn = make_conn.to(says(b"".join(frame(p) for p in payloads)))
    assert [conn.recv_pkg(timeout=LONG) for _ in payloads] == payloads


@pytest.mark.parametrize("header", HEADERS)
def test_send_recv_pkg(make_conn: Maker, header: int) -> None:
    sizes = [0, 1, 200, MOST[header]]

    def reply_when_all_is_there(sock: socket.socket) -> None:
        for _ in sizes:
            sock.sendall(frame(read_frame(sock, header), header))

    conn = make_conn.to(reply_when_all_is_there)
    for size in sizes:
        assert conn.send_recv_pkg(content(size), option(header), timeout=LONG) == content(size)


def test_send_recv_pkg_by_default(make_conn: Maker) -> None:
    conn = make_conn.to(echo)
    assert conn.send_recv_pkg(b"hello", timeout=LONG) == b"hello"


@pytest.mark.parametrize("then", ["silence", "body"])
@pytest.mark.parametrize("receive", ["recv_pkg", "recv_pkgs", "packages", "send_recv_pkg", "send_recv_pkgs"])
def test_B8_a_package_above_the_limit_breaks_the_connection(make_conn: Maker, receive: str, then: str) -> None:
    conn, far = make_conn()
    small = gtcp.PkgOption(2, 100)
    far.sendall(b"\0\x65" if then == "silence" else frame(bytes(101)))
    calls = {
        "recv_pkg": lambda: conn.recv_pkg(small, timeout=LONG),
        "recv_pkgs": lambda: conn.recv_pkgs(1, small, timeout=LONG),
        "packages": lambda: next(conn.packages(small, timeout=LONG)),
        "send_recv_pkg": lambda: conn.send_recv_pkg(b"?", small, timeout=LONG),
        "send_recv_pkgs": lambda: conn.send_recv_pkgs([b"?"], small, timeout=LONG),
    }
    with quick(), pytest.raises(gtcp.LimitError, match=r"^package of 101 bytes exceeds max_data_size 100$"):
        calls[receive]()
    for after in (conn.recv_pkg, conn.recv, conn.recv_line, lambda: conn.send(b"x"), lambda: conn.send_recv_pkg(b"x")):
        with quick(), pytest.raises(gtcp.BrokenError):
            after()
    assert not conn.is_alive()


@pytest.mark.parametrize("cut", [True, False], ids=["later", "at once"])
def test_B8_among_others_in_a_batch(make_conn: Maker, cut: bool) -> None:
    conn, far = make_conn()
    small = gtcp.PkgOption(2, 100)
    far.sendall(frame(b"good") + (b"" if cut else frame(bytes(101))))
    receiving = Call(conn.recv_pkgs, 3, small, timeout=LONG)
    if cut:
        receiving.sleeping()
        far.sendall(frame(bytes(101)))
    with pytest.raises(gtcp.LimitError):
        receiving.result()
    with pytest.raises(gtcp.BrokenError):
        conn.recv_pkg(small, timeout=LONG)


def test_B8_the_good_ones_before_it_come_first(make_conn: Maker) -> None:
    conn, far = make_conn()
    small = gtcp.PkgOption(2, 100)
    far.sendall(frame(b"a") + frame(b"b") + frame(bytes(101)))
    assert conn.recv_pkg(small, timeout=LONG) == b"a"
    assert conn.recv_pkgs(-1, small, timeout=LONG) == [b"b"]
    with pytest.raises(gtcp.LimitError):
        conn.recv_pkgs(-1, small, timeout=LONG)
    with pytest.raises(gtcp.BrokenError):
        conn.recv_pkgs(-1, small, timeout=LONG)


def test_B8_a_higher_limit_in_time_breaks_nothing(make_conn: Maker) -> None:
    conn, far = make_conn()
    far.sendall(frame(b"a") + frame(b"b") + frame(bytes(101)))
    assert conn.recv_pkg(timeout=LONG) == b"a"
    assert conn.recv_pkgs(-1, gtcp.PkgOption(2, 100), timeout=LONG) == [b"b"]
    assert conn.recv_pkg(timeout=LONG) == bytes(101)
    with pytest.raises(gtcp.Timeout):
        conn.recv_pkg(timeout=0)
    far.sendall(frame(b"c"))
    assert conn.recv_pkg(timeout=LONG) == b"c"


def test_packages_end_with_the_stream(make_conn: Maker) -> None:
    conn = make_conn.to(says(frame(b"one") + frame(b"") + frame(b"two")))
    packages = conn.packages(timeout=LONG)
    assert iter(packages) is packages
    assert list(packages) == [b"one", b"", b"two"]
    assert list(packages) == []


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_B5_packages_complain_about_a_package_cut_off(make_conn: Maker, cut: int) -> None:
    conn = make_conn.to(says(frame(b"one") + frame(b"two")[:cut]))
    packages = conn.packages(timeout=LONG)
    assert next(packages) == b"one"
    with pytest.raises(gtcp.EOF) as end:
        next(packages)
    assert end.value.expected


def test_an_iterator_goes_on_after_a_timeout(make_conn: Maker) -> None:
    conn, far = make_conn()
    packages = conn.packages(gtcp.PkgOption(1), timeout=0.001)
    far.sendall(b"\5hel")
    with pytest.raises(gtcp.Timeout):
        next(packages)
    far.sendall(b"lo")
    assert next(packages) == b"hello"
