"""GoFrame's client against our server."""

import os
import queue
from collections.abc import Callable
from typing import TypeAlias

import pytest

import gtcp
from interop.goframe import GoClient, GoError
from support.timing import LONG

pytestmark = pytest.mark.timeout(400)  # the first test builds the client

Serve: TypeAlias = Callable[[Callable[[gtcp.Conn], object]], str]

# (header size, largest payload); the last is an agreed limit, the others are all that the header can say.
FRAMES = [(1, 0xFF), (2, 0xFFFF), (3, 0xFFFFFF), (4, 4 << 20)]


def until_hung_up(exchange: Callable[[gtcp.Conn], object]) -> Callable[[gtcp.Conn], None]:
    """Return a handler that repeats the exchange until the client closes: EOF is the normal end of a handler."""

    def handle(conn: gtcp.Conn) -> None:
        while True:
            exchange(conn)

    return handle


def echo_prefixed(conn: gtcp.Conn) -> None:
    conn.send(b"> " + conn.recv(-1, timeout=LONG), timeout=LONG)


def echo_packages(option: gtcp.PkgOption | None = None) -> Callable[[gtcp.Conn], None]:
    def handle(conn: gtcp.Conn) -> None:
        for payload in conn.packages(option, timeout=LONG):
            conn.send_pkg(payload, option, timeout=LONG)

    return handle


@pytest.mark.parametrize("size", [1, 127, 128, 129, 4096, 4097, 20_000])
def test_send_recv_of_whatever_comes(serve: Serve, go_client: GoClient, size: int) -> None:
    data = os.urandom(size)
    go_client.call("dial", addr=serve(until_hung_up(echo_prefixed)))
    assert go_client.call("send_recv", data, n=-1).data == b"> " + data


@pytest.mark.parametrize("size", [1, 128, 65_536, 1 << 20])
def test_send_recv_of_n_bytes(serve: Serve, go_client: GoClient, size: int) -> None:
    data = os.urandom(size)
    echo = until_hung_up(lambda conn: conn.send(conn.recv(size, timeout=LONG), timeout=LONG))
    go_client.call("dial", addr=serve(echo))
    assert go_client.call("send_recv", data, n=size).data == data


def test_lines(serve: Serve, go_client: GoClient) -> None:
    lines = [b"", b"plain", b"carriage return\r", b"\x00\xff", b"x" * 10_000]
    echo = until_hung_up(lambda conn: conn.send(conn.recv_line(timeout=LONG) + b"\n", timeout=LONG))
    go_client.call("dial", addr=serve(echo))
    for line in lines:
        go_client.call("send", line + b"\n")
        assert go_client.call("recv_line").data == line
    go_client.call("send", b"\n".join(lines) + b"\n")
    assert [go_client.call("recv_line").data for _ in lines] == lines


def test_till_a_delimiter(serve: Serve, go_client: GoClient) -> None:
    echo = until_hung_up(lambda conn: conn.send(conn.recv_till(b"--end--", timeout=LONG), timeout=LONG))
    go_client.call("dial", addr=serve(echo))
    for data in [b"--end--", b"----end--", b"a\nb--end-\x00--end--"]:
        go_client.call("send", data)
        assert go_client.call("recv_till", b"--end--").data == data


def test_till_is_exact_where_theirs_folds_case(serve: Serve, go_client: GoClient) -> None:
    """GoFrame cuts our one unit in two, at "eND"."""
    echo = until_hung_up(lambda conn: conn.send(conn.recv_till(b"END", timeout=LONG), timeout=LONG))
    go_client.call("dial", addr=serve(echo))
    go_client.call("send", b"one eND two END")
    assert go_client.call("recv_till", b"END").data == b"one eND"
    assert go_client.call("recv_till", b"END").data == b" two END"


@pytest.mark.parametrize(("header", "largest"), FRAMES)
def test_package_of_every_size(serve: Serve, go_client: GoClient, header: int, largest: int) -> None:
    option = gtcp.PkgOption(header_size=header, max_data_size=largest)
    go_client.call("dial", addr=serve(echo_packages(option)))
    for size in (0, 1, largest - 1, largest, 0):
        data = os.urandom(size)
        assert go_client.call("send_recv_pkg", data, header=header, limit=largest).data == data


def test_package_with_defaults_of_both_sides(serve: Serve, go_client: GoClient) -> None:
    data = os.urandom(0xFFFF)
    go_client.call("dial", addr=serve(echo_packages()))
    assert go_client.call("send_recv_pkg", data).data == data


@pytest.mark.parametrize(("header", "largest"), FRAMES)
def test_1000_packages_in_a_row(serve: Serve, go_client: GoClient, header: int, largest: int) -> None:
    option = gtcp.PkgOption(header_size=header, max_data_size=largest)
    payloads = [b"%d:" % i + os.urandom(i % 250) for i in range(1000)]
    go_client.call("dial", addr=serve(echo_packages(option)))
    replies = go_client.call("send_recv_pkgs", items=payloads, header=header, limit=largest)
    assert replies.items == payloads
    go_client.call("send_pkgs", items=payloads, header=header, limit=largest)
    replies = go_client.call("recv_pkgs", n=len(payloads), header=header, limit=largest)
    assert replies.items == payloads


def test_batches_of_our_server(serve: Serve, go_client: GoClient) -> None:
    payloads = [b"%d:" % i + os.urandom(i % 250) for i in range(1000)]

    def swap(conn: gtcp.Conn) -> None:
        received = conn.recv_pkgs(len(payloads), timeout=LONG)
        conn.send_pkgs(reversed(received), timeout=LONG)

    go_client.call("dial", addr=serve(swap))
    go_client.call("send_pkgs", items=payloads)
    assert go_client.call("recv_pkgs", n=len(payloads)).items == payloads[::-1]


def test_end_of_the_connection(serve: Serve, go_client: GoClient) -> None:
    """A handler that returns ends the connection, and GoFrame sees a clean end behind the data."""
    go_client.call("dial", addr=serve(lambda conn: conn.send_pkg(b"the last", timeout=LONG)))
    assert go_client.call("recv_pkg").data == b"the last"
    with pytest.raises(GoError, match=r"^EOF$"):
        go_client.call("recv_pkg")


def test_package_above_our_limit(serve: Serve, go_client: GoClient) -> None:
    errors: queue.Queue[Exception] = queue.Queue()

    def handle(conn: gtcp.Conn) -> None:
        try:
            conn.recv_pkg(gtcp.PkgOption(max_data_size=100), timeout=LONG)
        except gtcp.Error as error:
            errors.put(error)

    go_client.call("dial", addr=serve(handle))
    go_client.call("send_pkg", bytes(101))
    error = errors.get(timeout=LONG)
    assert isinstance(error, ValueError)
    assert "101" in str(error)
    assert "100" in str(error)
    with pytest.raises(GoError, match=r"^EOF$"):
        go_client.call("recv_pkg")


def test_pool_conn_keeps_its_connection(serve: Serve, go_client: GoClient) -> None:
    address = serve(until_hung_up(echo_prefixed))
    locals_seen = set()
    for i in range(5):
        locals_seen.add(go_client.call("dial_pool", addr=address).local)
        assert go_client.call("send_recv", b"%d" % i, n=-1).data == b"> %d" % i
        go_client.call("close")
    assert len(locals_seen) == 1


def test_pool_conn_against_a_server_that_hangs_up(serve: Serve, go_client: GoClient) -> None:
    """The original's second example: a reply, EOF, a reply on a new connection, EOF."""
    hung_up: queue.Queue[None] = queue.Queue()

    def once(conn: gtcp.Conn) -> None:
        echo_prefixed(conn)
        conn.close()
        hung_up.put(None)

    address = serve(once)
    locals_seen = []
    for i in range(3):
        locals_seen.append(go_client.call("dial_pool", addr=address).local)
        assert go_client.call("send_recv", b"%d" % i, n=-1).data == b"> %d" % i
        go_client.call("close")
        hung_up.get(timeout=LONG)
        assert go_client.call("dial_pool", addr=address).local == locals_seen[-1]
        with pytest.raises(GoError, match=r"^EOF$"):
            go_client.call("send_recv", b"to nobody", n=-1)
        go_client.call("close")
    assert len(set(locals_seen)) == 3


def test_pool_conn_reconnects_after_our_abort(serve: Serve, go_client: GoClient) -> None:
    """A reset fails GoFrame's next send at once, so that its built-in reconnect comes into play."""
    may_abort: queue.Queue[None] = queue.Queue()
    aborted: queue.Queue[None] = queue.Queue()

    def once(conn: gtcp.Conn) -> None:
        conn.send_pkg(conn.recv_pkg(timeout=LONG), timeout=LONG)
        may_abort.get(timeout=LONG)
        conn.abort()
        aborted.put(None)

    address = serve(once)
    first = go_client.call("dial_pool", addr=address).local
    assert go_client.call("send_recv_pkg", b"first").data == b"first"
    go_client.call("close")
    may_abort.put(None)
    aborted.get(timeout=LONG)
    assert go_client.call("dial_pool", addr=address).local == first
    second = go_client.call("send_recv_pkg", b"second")
    assert second.data == b"second"
    assert second.local != first
    may_abort.put(None)
