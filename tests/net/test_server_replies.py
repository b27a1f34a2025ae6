"""Replies that were given reach the client, in whatever way its connection ends (F5, F9, F11)."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

import gtcp
from net.ends import Serve, run_by
from support.calls import Call
from support.loops import LOOPS
from support.peers import frame, read
from support.timing import LONG, SHORT, eventually

REPLY = bytes(range(256)) * 200  # more than a narrow connection takes at once, and few enough to be gathered

Answering = Callable[..., gtcp.Server]


concurrency = run_by("threads", "greenlets")


everywhere = pytest.mark.parametrize("concurrency", ["threads", "greenlets", *LOOPS], indirect=True)


@pytest.fixture(params=["handler", "pkg_handler"])
def answering(request: pytest.FixtureRequest, serve: Serve) -> Answering:
    """Start a server that answers packages with what a function makes of them, over narrow connections."""

    def start(answer: Callable[[bytes], bytes], option: gtcp.PkgOption | None = None, **options: object) -> gtcp.Server:
        def handler(conn: gtcp.Conn) -> None:
            for package in conn.packages(option):
                conn.send_pkg(answer(package), option)

        handle = handler if request.param == "handler" else gtcp.pkg_handler(answer, option)
        return serve(handle, **{"gather_sends": True, "on_connect": narrow, **options})

    return start


def narrow(conn: gtcp.Conn) -> None:
    """Leave little room in the kernel for what is sent."""
    with socket.socket(fileno=os.dup(conn.fileno())) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


@pytest.fixture
def client() -> Iterator[socket.socket]:
    """Takes little before it reads."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(LONG)
        yield sock


def connect(client: socket.socket, server: gtcp.Server) -> None:
    client.connect(("127.0.0.1", server.get_listened_port()))


def ask(client: socket.socket, server: gtcp.Server, *requests: bytes) -> gtcp.Conn:
    """Requests whose replies find no room; the server's side, which waits for that and for more requests."""
    connect(client, server)
    client.sendall(b"".join(map(frame, requests)))
    eventually(lambda: server.connections)
    [conn] = server.connections
    eventually(lambda: waits(conn, len(requests)))
    return conn


def waits(conn: gtcp.Conn, received: int = 0) -> bool:
    """For the client, after so many requests."""
    events, units, _ = conn._activity()
    return units == received and events != 0


def shutting_down(server: gtcp.Server, timeout: float) -> Call:
    """A shutdown that has told its connections."""
    service = server._service
    assert service is not None
    stopping = Call(server.shutdown, timeout)
    eventually(service.acceptor.ended.wait)
    return stopping.sleeping()


def is_over(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_F11_replies_leave_before_a_receive_is_ended(answering: Answering, client: socket.socket) -> None:
    server = answering(lambda _: REPLY)
    ask(client, server, b"?")
    stopping = shutting_down(server, LONG)
    assert read(client, 2 + len(REPLY)) == frame(REPLY)
    assert is_over(client)
    assert stopping.result() == 0


def test_F11_a_client_that_does_not_read_its_replies_is_cut(answering: Answering, client: socket.socket) -> None:
    server = answering(lambda _: REPLY)
    ask(client, server, b"?")
    assert server.shutdown(SHORT) == 1
    assert server.stats().cut == 1


def test_F11_what_comes_after_all_is_answered(answering: Answering, client: socket.socket) -> None:
    server = answering(lambda _: REPLY)
    ask(client, server, b"?")
    client.sendall(b"\0\5ab")
    eventually(lambda: server.connections[0].buffered)
    stopping = shutting_down(server, LONG)
    client.sendall(b"cde")
    assert read(client, 2 * (2 + len(REPLY))) == 2 * frame(REPLY)
    assert is_over(client)
    assert stopping.result() == 0


@pytest.mark.parametrize("concurrency", ["threads"], indirect=True)
def test_F11_a_request_that_begins_after_the_end_is_none(
    answering: Answering, client: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    """While replies leave; in greenlets a greenlet sends those, and its end is the connection's."""
    server = answering(lambda _: REPLY)
    ask(client, server, b"?")
    stopping = shutting_down(server, LONG)
    client.sendall(b"\0\5ab")
    assert read(client, 2 + len(REPLY)) == frame(REPLY)
    assert is_over(client)
    assert stopping.result() == 0
    assert caplog.records == []


def test_F11_a_client_that_goes_on_asking_has_its_replies(answering: Answering, client: socket.socket) -> None:
    """The kernel answers a close with unread bytes by a reset, and forgets what it has yet to send."""
    server = answering(lambda _: REPLY)
    conn = ask(client, server, b"?")
    stopping = shutting_down(server, LONG)
    received = b""
    while conn._activity()[0]:  # the last bytes have yet to find room
        received += client.recv(1000)
        threading.Event().wait(0.001)
    client.sendall(b"more" * 10000)
    assert received + read(client, 2 + len(REPLY) - len(received)) == frame(REPLY)
    assert is_over(client)
    assert stopping.result() == 0


@everywhere
def test_F5_replies_arrive_though_the_client_says_more(
    serve: Serve, client: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(conn: gtcp.Conn) -> None:
        for _ in conn.packages(gtcp.PkgOption(max_data_size=10)):
            conn.send_pkg(bytes(1000))

    server = serve(handler)
    connect(client, server)
    client.sendall(20 * frame(b"?") + frame(bytes(11)) + bytes(100_000))
    eventually(lambda: caplog.records)
    assert read(client, 20 * 1002) == 20 * frame(bytes(1000))
    assert is_over(client)
    eventually(lambda: not server.connections)
    assert server.stats().failed == 1


def test_F5_replies_leave_before_a_failure_ends_the_connection(
    answering: Answering, client: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(package: bytes) -> bytes:
        if package == b"fail":
            raise LookupError
        return REPLY

    ends: list[BaseException | None] = []
    server = answering(answer, on_close=lambda _, error: ends.append(error))
    connect(client, server)
    client.sendall(frame(b"?") + frame(b"fail"))
    eventually(lambda: caplog.records)
    assert read(client, 2 + len(REPLY)) == frame(REPLY)
    assert is_over(client)
    eventually(lambda: ends)
    assert isinstance(ends[0], LookupError)
    assert len(caplog.records) == server.stats().failed == 1


def test_F5_replies_leave_before_a_request_that_is_too_long_ends_the_connection(
    answering: Answering, client: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    ends: list[BaseException | None] = []
    option = gtcp.PkgOption(max_data_size=len(REPLY))
    server = answering(lambda _: REPLY, option, on_close=lambda _, error: ends.append(error))
    connect(client, server)
    client.sendall(frame(b"?") + b"\xff\xff")
    eventually(lambda: caplog.records)
    assert read(client, 2 + len(REPLY)) == frame(REPLY)
    assert is_over(client)
    eventually(lambda: ends)
    assert isinstance(ends[0], gtcp.LimitError)
    assert len(caplog.records) == server.stats().failed == 1


def test_replies_leave_after_the_clients_last_words(answering: Answering, client: socket.socket) -> None:
    server = answering(lambda _: REPLY)
    ask(client, server, b"?")
    client.shutdown(socket.SHUT_WR)
    assert read(client, 2 + len(REPLY)) == frame(REPLY)
    assert is_over(client)
    eventually(lambda: not server.connections)
    assert server.stats().failed == 0


def test_F9_a_client_that_asks_and_never_reads(answering: Answering, client: socket.socket) -> None:
    server = answering(lambda _: REPLY, send_timeout=2 * SHORT)
    ask(client, server, b"?")
    eventually(lambda: server.stats().timeouts["send_timeout"] == 1)
    eventually(lambda: not server.connections)


def test_F11_a_connection_rests_when_the_send_under_way_has_ended(serve: Serve, client: socket.socket) -> None:
    server = serve(lambda conn: conn.recv_pkg(), on_connect=narrow)
    connect(client, server)
    eventually(lambda: server.connections and waits(server.connections[0]))
    [conn] = server.connections
    sending = [Call(conn.send_pkg, REPLY) for _ in range(3)]
    eventually(lambda: conn._activity()[0] == gtcp._core.POLLOUT)
    for call in sending:
        call.sleeping()
    stopping = shutting_down(server, LONG)
    assert read(client, 3 * (2 + len(REPLY))) == 3 * frame(REPLY)
    assert is_over(client)
    assert stopping.result() == 0
    for call in sending:
        call.result()


def test_F11_a_receive_that_begins_while_another_call_sends(serve: Serve, client: socket.socket) -> None:
    def handler(conn: gtcp.Conn) -> None:
        conn.recv_pkg()
        conn.recv_pkg()

    server = serve(handler, on_connect=narrow)
    connect(client, server)
    eventually(lambda: server.connections and waits(server.connections[0]))
    [conn] = server.connections
    sending = Call(conn.send_pkg, REPLY)
    eventually(lambda: conn._activity()[0] == gtcp._core.POLLOUT)
    client.sendall(b"\0")
    eventually(lambda: conn.buffered)
    stopping = shutting_down(server, LONG)
    client.sendall(b"\1x")
    eventually(lambda: conn._activity()[1] == 1)
    assert read(client, 2 + len(REPLY)) == frame(REPLY)
    assert is_over(client)
    assert stopping.result() == 0
    sending.result()


def test_a_connection_that_breaks_lets_gathered_sends_leave(client: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client.connect(listener.getsockname())
        sock, _ = listener.accept()
    with closing(gtcp.Conn.from_socket(sock)) as conn:
        conn._gather_sends()
        conn.send_pkg(b"given")
        client.sendall(frame(bytes(11)))
        with pytest.raises(gtcp.LimitError):
            conn.recv_pkg(gtcp.PkgOption(max_data_size=10), timeout=LONG)
        with pytest.raises(gtcp.BrokenError):
            conn.send_pkg(b"too late")
        conn.flush()
        assert read(client, 7) == frame(b"given")
