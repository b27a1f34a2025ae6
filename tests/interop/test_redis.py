"""One connection of ours to a real Redis: inline commands, the RESP protocol, pipelines."""

import os
import threading
from collections.abc import Iterator

import pytest

import gtcp
from interop.redis_server import RedisServer
from interop.resp import Refusal, command, exchange, read_reply
from support.timing import LONG, SHORT

PIPELINE = 10_000


@pytest.fixture
def conn(redis: RedisServer) -> Iterator[gtcp.Conn]:
    with gtcp.Conn(redis.address, timeout=LONG) as conn:
        yield conn


@pytest.mark.parametrize(
    ("request_line", "reply_lines"),
    [
        (b"PING", [b"+PONG\r"]),
        (b"ECHO hello", [b"$5\r", b"hello\r"]),
        (b'SET key "\\x00 \\xff"', [b"+OK\r"]),
        (b"STRLEN nothing", [b":0\r"]),
        (b"GET nothing", [b"$-1\r"]),
        (b"LRANGE nothing 0 -1", [b"*0\r"]),
        (b"GET too many", [b"-ERR wrong number of arguments for 'get' command\r"]),
    ],
)
def test_inline_commands(conn: gtcp.Conn, request_line: bytes, reply_lines: list[bytes]) -> None:
    conn.send(request_line + b"\r\n", timeout=LONG)
    assert [conn.recv_line(timeout=LONG) for _ in reply_lines] == reply_lines


def test_inline_command_in_one_exchange(conn: gtcp.Conn) -> None:
    assert conn.send_recv(b"PING\r\n", -1, timeout=LONG) == b"+PONG\r\n"
    assert conn.send_recv(b"PING\r\n", 7, timeout=LONG) == b"+PONG\r\n"
    conn.send(b"ECHO two-byte-delimiter\r\n", timeout=LONG)
    assert conn.recv_till(b"\r\n", timeout=LONG) == b"$18\r\n"
    assert conn.recv_till(b"\r\n", timeout=LONG) == b"two-byte-delimiter\r\n"


def test_resp_replies_of_every_kind(conn: gtcp.Conn) -> None:
    assert exchange(conn, "SET", "number", 41) == "OK"
    assert exchange(conn, "INCR", "number") == 42
    assert exchange(conn, "GET", "number") == b"42"
    assert exchange(conn, "GET", "nothing") is None
    assert exchange(conn, "RPUSH", "list", "a", b"", b"\r\n") == 3
    assert exchange(conn, "LRANGE", "list", 0, -1) == [b"a", b"", b"\r\n"]
    assert exchange(conn, "EVAL", "return {1, {2, {'three', false}}}", 0) == [1, [2, [b"three", None]]]
    refused = exchange(conn, "INCR", "list")
    assert isinstance(refused, Refusal)
    assert refused == "WRONGTYPE Operation against a key holding the wrong kind of value"
    assert exchange(conn, "PING") == "PONG"


@pytest.mark.parametrize("size", [0, 1, 4095, 65_536, 5_000_000])
def test_binary_value(conn: gtcp.Conn, size: int) -> None:
    value = os.urandom(size)
    assert exchange(conn, "SET", "key", value) == "OK"
    assert exchange(conn, "STRLEN", "key") == size
    assert exchange(conn, "GET", "key") == value


def test_pipeline_of_inline_commands(conn: gtcp.Conn) -> None:
    conn.send(b"".join(b"INCR counter\r\n" for _ in range(PIPELINE)), timeout=LONG)
    replies = [conn.recv_line(timeout=LONG) for _ in range(PIPELINE)]
    assert replies == [b":%d\r" % (i + 1) for i in range(PIPELINE)]
    assert exchange(conn, "GET", "counter") == b"%d" % PIPELINE


def test_pipeline_of_resp_commands(conn: gtcp.Conn) -> None:
    requests = [b"request %d" % i for i in range(PIPELINE)]
    conn.send(b"".join(command("ECHO", request) for request in requests), timeout=LONG)
    assert [read_reply(conn) for _ in requests] == requests


def test_pipeline_received_as_one_block(conn: gtcp.Conn) -> None:
    expected = b"".join(b"$6\r\n%06d\r\n" % i for i in range(PIPELINE))
    conn.send(b"".join(command("ECHO", b"%06d" % i) for i in range(PIPELINE)), timeout=LONG)
    assert conn.recv(len(expected), timeout=LONG) == expected


def test_pipeline_sent_and_received_at_once(conn: gtcp.Conn) -> None:
    """20 MB each way, one thread per direction."""
    requests = [b"%d:" % i + bytes([i % 256]) * 2000 for i in range(PIPELINE)]

    def send_all() -> None:
        for request in requests:
            conn.send(command("ECHO", request), timeout=LONG)

    sender = threading.Thread(target=send_all)
    sender.start()
    try:
        assert [read_reply(conn) for _ in requests] == requests
    finally:
        sender.join(LONG)


def test_lines_until_redis_hangs_up(conn: gtcp.Conn) -> None:
    conn.send(b"PING\r\n" * PIPELINE + b"QUIT\r\n", timeout=LONG)
    assert list(conn.lines(timeout=LONG)) == [b"+PONG\r"] * PIPELINE + [b"+OK\r"]
    with pytest.raises(gtcp.EOF, match=r"^EOF$"):
        conn.recv_line(timeout=LONG)


def test_reply_that_comes_after_a_timeout(redis: RedisServer, conn: gtcp.Conn) -> None:
    """A timeout costs nothing but time: the reply is still received, whole."""
    conn.send(command("BLPOP", "queue", 0), timeout=LONG)
    with pytest.raises(gtcp.Timeout):
        conn.recv_line(timeout=SHORT)
    with gtcp.Conn(redis.address, timeout=LONG) as other:
        assert exchange(other, "RPUSH", "queue", "late") == 1
    assert read_reply(conn) == [b"queue", b"late"]
    assert exchange(conn, "PING") == "PONG"
