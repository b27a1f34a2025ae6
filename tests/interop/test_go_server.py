"""Our client against GoFrame's server."""

import os
import random
import select
from concurrent.futures import ThreadPoolExecutor

import pytest

import gtcp
from interop.goframe import StartGoServer
from support.timing import LONG, SHORT

pytestmark = pytest.mark.timeout(400)  # the first test builds the server

# GoFrame's Recv(-1) reads in steps of 128 bytes from a buffer of 4096: both edges.
CHUNK_SIZES = [1, 127, 128, 129, 4096, 4097, 20_000]
# (header size, largest payload); the last is an agreed limit, the others are all that the header can say.
FRAMES = [(1, 0xFF), (2, 0xFFFF), (3, 0xFFFFFF), (4, 4 << 20)]


@pytest.mark.parametrize("size", CHUNK_SIZES)
def test_send_recv_of_whatever_comes(go_server: StartGoServer, size: int) -> None:
    data = os.urandom(size)
    with gtcp.Conn(go_server("echo"), timeout=LONG) as conn:
        assert conn.send_recv(data, -1, timeout=LONG) == b"> " + data


@pytest.mark.parametrize("size", [1, 128, 65_536, 1 << 20])
def test_send_recv_of_n_bytes(go_server: StartGoServer, size: int) -> None:
    data = os.urandom(size)
    with gtcp.Conn(go_server("exact", n=size), timeout=LONG) as conn:
        assert conn.send_recv(data, size, timeout=LONG) == data


def test_recv_of_n_bytes_after_a_timeout(go_server: StartGoServer) -> None:
    with gtcp.Conn(go_server("exact", n=10), timeout=LONG) as conn:
        conn.send(b"01234567890123", timeout=LONG)
        assert conn.recv(4, timeout=LONG) == b"0123"
        with pytest.raises(gtcp.Timeout):
            conn.recv(16, timeout=SHORT)
        conn.send(b"456789", timeout=LONG)
        assert conn.recv(16, timeout=LONG) == b"4567890123456789"


def test_lines(go_server: StartGoServer) -> None:
    lines = [b"", b"plain", b"carriage return\r", b"\x00\xff", b"x" * 10_000]
    lines += [b"%d" % i for i in range(1000)]
    with gtcp.Conn(go_server("line"), timeout=LONG) as conn:
        for line in lines:
            conn.send(line + b"\n", timeout=LONG)
            assert conn.recv_line(timeout=LONG) == line
        conn.send(b"\n".join(lines) + b"\n", timeout=LONG)
        assert [conn.recv_line(timeout=LONG) for _ in lines] == lines


def test_till_a_delimiter(go_server: StartGoServer) -> None:
    with gtcp.Conn(go_server("till", till="--end--"), timeout=LONG) as conn:
        for data in [b"--end--", b"----end--", b"a\nb--end-\x00--end--"]:
            conn.send(data, timeout=LONG)
            assert conn.recv_till(b"--end--", timeout=LONG) == data


def test_till_is_exact_where_theirs_folds_case(go_server: StartGoServer) -> None:
    """GoFrame also ends a unit at "eND"; what it sends back is still one unit to us."""
    with gtcp.Conn(go_server("till", till="END"), timeout=LONG) as conn:
        conn.send(b"one eND two END", timeout=LONG)
        assert conn.recv_till(b"END", timeout=LONG) == b"one eND two END"


@pytest.mark.parametrize(("header", "largest"), FRAMES)
def test_package_of_every_size(go_server: StartGoServer, header: int, largest: int) -> None:
    option = gtcp.PkgOption(header_size=header, max_data_size=largest)
    with gtcp.Conn(go_server("package", header=header, max=largest), timeout=LONG) as conn:
        for size in (0, 1, largest - 1, largest, 0):
            data = os.urandom(size)
            assert conn.send_recv_pkg(data, option, timeout=LONG) == data


def test_package_with_defaults_of_both_sides(go_server: StartGoServer) -> None:
    data = os.urandom(0xFFFF)
    with gtcp.Conn(go_server("package"), timeout=LONG) as conn:
        assert conn.send_recv_pkg(data, timeout=LONG) == data


@pytest.mark.parametrize(("header", "largest"), FRAMES)
def test_1000_packages_in_a_row(go_server: StartGoServer, header: int, largest: int) -> None:
    option = gtcp.PkgOption(header_size=header, max_data_size=largest)
    payloads = [b"%d:" % i + os.urandom(i % 250) for i in range(1000)]
    with gtcp.Conn(go_server("package", header=header, max=largest), timeout=LONG) as conn:
        assert [conn.send_recv_pkg(payload, option, timeout=LONG) for payload in payloads] == payloads
        conn.send_pkgs(payloads, option, timeout=LONG)
        assert conn.recv_pkgs(len(payloads), option, timeout=LONG) == payloads
        assert conn.send_recv_pkgs(payloads, option, timeout=LONG) == payloads


def test_pipelined_packages_that_no_socket_buffer_holds(go_server: StartGoServer) -> None:
    """32 MiB each way: both sides would wait for each other if all was sent before anything is received."""
    option = gtcp.PkgOption(header_size=3)
    payloads = [random.randbytes(64 << 10) for _ in range(500)]
    with gtcp.Conn(go_server("package", header=3), timeout=LONG) as conn:
        assert conn.send_recv_pkgs(payloads, option, timeout=LONG) == payloads


def test_packages_until_the_server_closes(go_server: StartGoServer) -> None:
    expected = [b"%d:" % i + b"x" * (i % 256) for i in range(20_000)]
    with gtcp.Conn(go_server("flood", n=len(expected)), timeout=LONG) as conn:
        assert list(conn.packages(timeout=LONG)) == expected
        with pytest.raises(gtcp.EOF, match=r"^EOF$") as ended:
            conn.recv_pkg(timeout=LONG)
        assert ended.value.partial == b""


@pytest.mark.parametrize("wanted", [-1, 0, 1, 1 << 20])
def test_end_of_the_connection(go_server: StartGoServer, wanted: int) -> None:
    """A close between two units is a clean end, however much the next receive asks for."""
    with gtcp.Conn(go_server("once"), timeout=LONG) as conn:
        assert conn.send_recv(b"data", 6, timeout=LONG) == b"> data"
        with pytest.raises(gtcp.EOF, match=r"^EOF$") as ended:
            conn.recv(wanted, timeout=LONG)
    assert (ended.value.partial, ended.value.expected) == (b"", None)


def test_package_above_the_servers_limit(go_server: StartGoServer) -> None:
    """GoFrame answers an oversized package by hanging up."""
    with gtcp.Conn(go_server("package", max=100), timeout=LONG) as conn:
        assert conn.send_recv_pkg(bytes(100), timeout=LONG) == bytes(100)
        conn.send_pkg(bytes(101), timeout=LONG)
        with pytest.raises(gtcp.EOF, match=r"^EOF$"):
            conn.recv_pkg(timeout=LONG)


def test_package_above_our_limit(go_server: StartGoServer) -> None:
    option = gtcp.PkgOption(max_data_size=100)
    with gtcp.Conn(go_server("package"), timeout=LONG) as conn:
        with pytest.raises(ValueError, match=r"101.*100"):
            conn.send_pkg(bytes(101), option, timeout=LONG)
        assert conn.send_recv_pkg(b"nothing was sent", option, timeout=LONG) == b"nothing was sent"
        conn.send_pkg(bytes(101), timeout=LONG)
        with pytest.raises(ValueError, match=r"101.*100") as refused:
            conn.recv_pkg(option, timeout=LONG)
        assert isinstance(refused.value, gtcp.Error)
        with pytest.raises(gtcp.Error):
            conn.recv_pkg(timeout=LONG)  # out of step for good


def test_pooled_connection_is_used_again(go_server: StartGoServer) -> None:
    address = go_server("echo")
    ports = set()
    for i in range(5):
        with gtcp.PoolConn(address, timeout=LONG) as conn:
            assert conn.send_recv(b"%d" % i, -1, timeout=LONG) == b"> %d" % i
            ports.add(conn.local_addr().port)
    assert len(ports) == 1
    gtcp.get_pool(address).close()


def exchange_until_hung_up(conn: gtcp.PoolConn, data: bytes) -> bytes:
    """Give the lease back after one exchange, and return when the server's close has arrived as well."""
    reply = conn.send_recv(data, -1, timeout=LONG)
    watched = os.dup(conn.fileno())
    try:
        conn.close()
        arrival = select.poll()
        arrival.register(watched, select.POLLIN)
        assert arrival.poll(LONG * 1000), "the server did not hang up"
    finally:
        os.close(watched)
    return reply


def test_pool_replaces_connections_that_the_server_closed(go_server: StartGoServer) -> None:
    ports = []
    with gtcp.Pool(go_server("once")) as pool:
        for i in range(5):
            conn = pool.acquire(LONG)
            ports.append(conn.local_addr().port)
            assert exchange_until_hung_up(conn, b"%d" % i) == b"> %d" % i
    assert len(set(ports)) == 5


def test_pool_without_the_look_at_checkout(go_server: StartGoServer) -> None:
    """The original's second example: a reply, EOF, a reply on a new connection, EOF."""
    ports = []
    with gtcp.Pool(go_server("once"), check=False) as pool:
        for i in range(3):
            conn = pool.acquire(LONG)
            ports.append(conn.local_addr().port)
            assert exchange_until_hung_up(conn, b"%d" % i) == b"> %d" % i
            with pool.acquire(LONG) as conn:
                assert conn.local_addr().port == ports[-1]
                with pytest.raises(gtcp.EOF, match=r"^EOF$"):
                    conn.send_recv(b"to nobody", -1, timeout=LONG)
    assert len(set(ports)) == 3


def test_pool_under_threads(go_server: StartGoServer) -> None:
    """32 threads on 8 connections: everybody gets the reply to their own request."""
    with gtcp.Pool(go_server("package"), max_size=8) as pool:

        def work(worker: int) -> set[int]:
            ports = set()
            for i in range(100):
                request = b"%d/%d" % (worker, i)
                with pool.acquire(LONG) as conn:
                    assert conn.send_recv_pkg(request, timeout=LONG) == request
                    ports.add(conn.local_addr().port)
            return ports

        with ThreadPoolExecutor(32) as threads:
            ports = set().union(*threads.map(work, range(32), timeout=LONG))
    assert 1 <= len(ports) <= 8
