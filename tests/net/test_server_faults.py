"""Server: what goes wrong in handlers and at accept ends nothing but itself (B18, F1, F3, F4, F5, F6)."""

import contextlib
import errno
import logging
import secrets
import socket
import threading
import time
from typing import Any

import pytest

import gtcp
from net.ends import Serve, run_by
from net.handlers import address_of, echo, echo_packages
from support.loops import LOOPS
from support.peers import frame, listen, read, reset
from support.timing import LONG, SHORT, eventually, quick

concurrency = run_by("threads", "greenlets", *LOOPS)


def check_serves(server: gtcp.Server) -> None:
    with gtcp.Conn(address_of(server), LONG) as conn:
        assert conn.send_recv(b"hello", timeout=LONG) == b"hello"


def failing(error: BaseException) -> Any:
    def handle(conn: gtcp.Conn) -> None:
        if conn.recv() == b"fail":
            raise error
        conn.send(b"hello")

    return handle


def provoke(server: gtcp.Server) -> None:
    """A connection whose handler fails, and is closed for that."""
    with gtcp.Conn(address_of(server), LONG) as conn:
        conn.send(b"fail")
        with pytest.raises(gtcp.EOF):
            conn.recv(timeout=LONG)


class Stop(BaseException):
    """What no handler of ordinary errors catches."""


@pytest.mark.parametrize("concurrency", ["threads", "greenlets"], indirect=True)
@pytest.mark.parametrize("error", [SystemExit("mine"), KeyboardInterrupt("mine")])
def test_F6_a_handler_cannot_end_the_program(
    serve: Serve, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    test_F5_F6_a_handler_that_raises(serve, caplog, error)


@pytest.mark.parametrize("error", [LookupError("mine"), gtcp.Timeout("mine"), MemoryError("mine"), Stop("mine")])
def test_F5_F6_a_handler_that_raises(serve: Serve, caplog: pytest.LogCaptureFixture, error: BaseException) -> None:
    server = serve(failing(error))
    provoke(server)
    [record] = caplog.records
    assert record.name == "gtcp"
    assert record.levelno == logging.ERROR
    assert record.exc_info
    assert record.exc_info[1] is error
    assert "127.0.0.1" in caplog.text
    check_serves(server)
    assert len(caplog.records) == 1


def test_F5_the_clean_end_of_a_client_is_no_failure(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    ended = threading.Event()

    def handle(conn: gtcp.Conn) -> None:
        try:
            echo(conn)
        finally:
            ended.set()

    server = serve(handle)
    check_serves(server)
    assert ended.wait(LONG)
    server.close()
    assert caplog.records == []


@pytest.mark.parametrize("when", ["while the client is there", "after the client"])
def test_F5_the_end_of_another_connection_is_a_failure(
    serve: Serve, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    def handle(conn: gtcp.Conn) -> None:
        request = conn.recv_pkg()
        if when == "after the client":
            with pytest.raises(gtcp.EOF):
                conn.recv_pkg()
        here, there = socket.socketpair()
        there.close()
        with gtcp.Conn.from_socket(here) as backend:
            conn.send_pkg(backend.send_recv_pkg(request) if request else backend.recv_pkg())

    server = serve(handle)
    with gtcp.Conn(address_of(server), LONG) as conn:
        conn.send_pkg(b"")
        conn.close_write()
        with pytest.raises(gtcp.EOF):
            conn.recv_pkg(timeout=LONG)
    eventually(lambda: not server.connections)
    [record] = caplog.records
    assert "the handler of" in record.getMessage()
    assert record.exc_info
    assert isinstance(record.exc_info[1], gtcp.EOF)
    assert server.stats().failed == 1


@pytest.mark.parametrize("end", ["detach", "close"])
def test_F7_a_connection_that_on_connect_keeps_or_ends_has_no_handler(
    serve: Serve, caplog: pytest.LogCaptureFixture, end: str
) -> None:
    kept: list[Any] = []
    ends: list[BaseException | None] = []
    server = serve(
        lambda conn: 1 // 0,
        on_connect=lambda conn: kept.append(getattr(conn, end)()),
        on_close=lambda conn, error: ends.append(error),
    )
    with socket.create_connection(("127.0.0.1", server.get_listened_port()), LONG) as sock:
        eventually(lambda: ends)
        assert ends == [None]
        if end == "detach":
            kept[0].sendall(b"still here")
            assert sock.recv(10) == b"still here"
            kept[0].close()
    assert server.stats().failed == 0
    assert caplog.records == []


def test_F5_an_end_in_the_middle_is_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    server = serve(lambda conn: conn.recv_pkg())
    with socket.create_connection(("127.0.0.1", server.get_listened_port()), LONG) as sock:
        sock.sendall(b"\0\5abc")
    eventually(lambda: caplog.records)
    assert "closed in the middle" in caplog.records[0].getMessage()


RECEIVERS = {
    "a package above the limit": lambda conn: conn.recv_pkg(gtcp.PkgOption(1, 3)),
    "a package cut short": lambda conn: conn.recv_pkg(),
    "a line above the limit": lambda conn: conn.recv_line(max_size=8),
    "a line cut short": lambda conn: conn.recv_line(),
    "no delimiter": lambda conn: conn.recv_till(b"--", max_size=8),
    "too few bytes": lambda conn: conn.recv(100),
}


@pytest.mark.parametrize("what", RECEIVERS)
def test_F5_a_failure_is_told_without_what_the_client_sent(
    serve: Serve, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    ends: list[BaseException | None] = []
    server = serve(RECEIVERS[what], on_close=lambda conn, error: ends.append(error))
    said = secrets.token_hex(16)  # and stands in no line of a traceback
    with socket.create_connection(("127.0.0.1", server.get_listened_port()), LONG) as sock:
        sock.sendall(said.encode())
        sock.shutdown(socket.SHUT_WR)
        eventually(lambda: ends and caplog.records)
    [error] = ends
    assert isinstance(error, (gtcp.EOF, gtcp.LimitError))
    told = f"{caplog.text} {error!s} {error!r} {error.args}"
    assert type(error).__name__ in told
    assert not [at for at in range(len(said) - 7) if said[at : at + 8] in told], "a part of it is in the log"


def test_F5_handlers_that_close_ends_are_not_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    waiting = threading.Event()

    def handle(conn: gtcp.Conn) -> None:
        waiting.set()
        conn.recv()

    server = serve(handle)
    with gtcp.Conn(address_of(server), LONG):
        assert waiting.wait(LONG)
        server.close()
    assert caplog.records == []


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(100), b"\xff" * 5000],
    ids=["http", "tls", "noise"],
)
def test_B18_a_client_that_speaks_something_else(
    serve: Serve, caplog: pytest.LogCaptureFixture, garbage: bytes
) -> None:
    server = serve(echo_packages)
    with socket.create_connection(("127.0.0.1", server.get_listened_port()), LONG) as sock:
        sock.sendall(garbage)
        sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while sock.recv(65536):
                pass
    with gtcp.Conn(address_of(server), LONG) as conn:
        assert conn.send_recv_pkg(b"hello", timeout=LONG) == b"hello"
    assert len(caplog.records) <= 1


def test_F3_clients_that_reset_before_they_are_accepted(
    serve: Serve, caplog: pytest.LogCaptureFixture, concurrency: str
) -> None:
    """One client takes all the room there is, while a hundred others come and go in the queue behind it."""

    def hello(conn: gtcp.Conn) -> None:
        conn.send(b"hello")
        conn.recv()

    server = serve(hello, max_connections=1, backlog=128)
    here = ("127.0.0.1", server.get_listened_port())
    rounds = 10 if concurrency in LOOPS else 50  # a loop's handlers run as calls from other threads here: slow
    for _ in range(rounds):
        with socket.create_connection(here, LONG) as first:
            assert read(first, 5) == b"hello"
            for _ in range(100):
                reset(socket.create_connection(here, LONG))
    with gtcp.Conn(here, LONG) as conn:
        assert conn.recv(5, timeout=LONG) == b"hello"
    assert len(caplog.records) == 100 * rounds
    for record in caplog.records:
        assert record.exc_info
        assert isinstance(record.exc_info[1], (gtcp.ResetError, gtcp.PipeError))


def test_F3_what_a_client_said_before_its_reset_is_heard(serve: Serve) -> None:
    heard: list[bytes] = []
    with listen() as listener:
        sock = socket.create_connection(listener.getsockname(), LONG)
        sock.sendall(frame(b"last words"))
        reset(sock)
        server = serve(lambda conn: heard.append(conn.recv_pkg(timeout=LONG)), "", sock=listener)
        eventually(lambda: heard == [b"last words"])
        server.close()


@pytest.mark.parametrize("concurrency", ["threads"], indirect=True)
def test_F4_no_more_threads(serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    server = serve(echo)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_more)
        with gtcp.Conn(address_of(server), LONG) as conn, pytest.raises((gtcp.EOF, gtcp.ResetError)):
            conn.recv(timeout=LONG)
    assert len(caplog.records) == 1
    assert "no thread for the connection from 127.0.0.1" in caplog.records[0].getMessage()
    check_serves(server)


class FailingListener:
    """Stands in for a listening socket whose accept fails so many times."""

    def __init__(self, listener: Any, number: int, times: int) -> None:
        self._listener = listener
        self._number = number
        self.times = times
        self.calls = 0

    def accept(self) -> Any:
        self.calls += 1
        if self.times:
            self.times -= 1
            raise OSError(self._number, "injected")
        return self._listener.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listener, name)


def inject(server: gtcp.Server, number: int, times: int) -> FailingListener:
    service: Any = server._service
    listener = service.acceptor._listener
    listener.socket = failing = FailingListener(listener.socket, number, times)
    return failing


# What accept(2) may say of a connection that was not accepted; other systems lack some of them.
PASSING = [
    getattr(errno, name)
    for name in (
        "ECONNABORTED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "EINTR", "ENETDOWN", "ENETUNREACH", "ENONET",
        "ENOPROTOOPT", "ENOSR", "EOPNOTSUPP", "EPERM", "EPROTO", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "ETIMEDOUT",
    )
    if hasattr(errno, name)
]  # fmt: skip
FINAL = [errno.EBADF, errno.EINVAL, errno.ENOTSOCK]


@pytest.mark.parametrize("number", PASSING, ids=errno.errorcode.get)
def test_F2_an_accept_that_fails_is_only_that(serve: Serve, caplog: pytest.LogCaptureFixture, number: int) -> None:
    server = serve(echo)
    listener = inject(server, number, times=3)
    check_serves(server)
    assert listener.times == 0
    assert caplog.records == []


def refuses(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, LONG).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # into the queue of a socket that is closed a moment later
        pass
    return False


@pytest.mark.parametrize("number", FINAL, ids=errno.errorcode.get)
def test_F2_an_accept_that_can_never_work_ends_the_server(
    serve: Serve, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    server = serve(echo)
    here = ("127.0.0.1", server.get_listened_port())
    listener = inject(server, number, times=10**9)
    with contextlib.suppress(ConnectionResetError), socket.create_connection(here, LONG) as client:
        assert client.recv(1) == b""
    eventually(lambda: server.get_listened_port() == -1)
    assert listener.calls == 1
    eventually(lambda: refuses(here))
    [record] = caplog.records
    assert f"listening on 127.0.0.1:{here[1]} ended" in record.getMessage()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS], ids=errno.errorcode.get)
def test_F1_no_more_descriptors_means_a_pause(serve: Serve, caplog: pytest.LogCaptureFixture, number: int) -> None:
    server = serve(echo)
    listener = inject(server, number, times=5)
    start = time.process_time()
    check_serves(server)
    assert time.process_time() - start < SHORT
    assert listener.calls >= 6
    assert len(caplog.records) == 1  # one line for the burst
    assert "cannot accept connections" in caplog.records[0].getMessage()


def test_F1_the_server_can_be_closed_during_the_pause(serve: Serve) -> None:
    server = serve(echo)
    listener = inject(server, errno.EMFILE, times=10**9)
    with socket.create_connection(("127.0.0.1", server.get_listened_port()), LONG):
        eventually(lambda: listener.calls >= 3)
        with quick():
            server.close()
