"""Hazards of the original's server (gtcp_server.go) that gtcp does not inherit.

The numbers are those of the project's list of hazards; its severities A and B have a test each. H82
is about TLS; H76 under a shortage of descriptors is F1 in tests/isolated.
"""

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator

import pytest

import gtcp
from support.crew import Worker, together
from support.peers import listen, reset
from support.timing import LONG, SHORT, eventually, quick


def echo(conn: gtcp.Conn) -> None:
    while True:
        conn.send(conn.recv(0))


@contextlib.contextmanager
def client(server: gtcp.Server) -> Iterator[gtcp.Conn]:
    address = server.get_listened_address()
    assert address is not None
    with gtcp.Conn(address, LONG) as conn:
        yield conn


def serves(server: gtcp.Server) -> bool:
    with client(server) as conn:
        return conn.send_recv(b"x", 1, timeout=LONG) == b"x"


def test_H76_connections_that_break_before_they_are_accepted_do_not_end_the_server() -> None:
    with gtcp.Server("127.0.0.1:0", echo) as server:
        for _ in range(300):
            reset(socket.create_connection(("127.0.0.1", server.get_listened_port())))
        assert serves(server)


def test_H77_close_ends_connections_and_handlers() -> None:
    ends: list[BaseException] = []
    running = threading.Semaphore(0)

    def handler(conn: gtcp.Conn) -> None:
        running.release()
        try:
            conn.recv(1)
        except gtcp.Error as end:
            ends.append(end)
            raise

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(gtcp.Server("127.0.0.1:0", handler))
        conns = [stack.enter_context(client(server)) for _ in range(3)]
        for _ in conns:
            assert running.acquire(timeout=LONG)
        with quick():
            server.close()
        for conn in conns:
            with quick(), pytest.raises((gtcp.EOF, gtcp.ResetError)):
                conn.recv(1)
        eventually(lambda: len(ends) == 3)
    assert {type(end) for end in ends} == {gtcp.ClosedError}


def test_H77_shutdown_lets_handlers_finish_and_then_cuts() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work(conn: gtcp.Conn) -> None:
        assert conn.recv(1) == b"x"
        begun.set()
        assert go_on.wait(LONG)
        conn.send(b"y")
        conn.recv_pkg()  # of which the half has come

    with gtcp.Server("127.0.0.1:0", work) as server, client(server) as conn:
        conn.send(b"x\0")
        assert begun.wait(LONG)
        stopping = Worker(lambda: server.shutdown(SHORT))
        go_on.set()
        assert conn.recv(1, timeout=LONG) == b"y"
        assert stopping.result() == 1
        with pytest.raises((gtcp.EOF, gtcp.ResetError)):
            conn.recv(1)


def test_H80_a_failed_listen_leaves_a_server_that_does_not_listen() -> None:
    with listen() as taken:
        port = taken.getsockname()[1]
        server = gtcp.Server(f"127.0.0.1:{port}", echo)
        for start in (server.start, server.run):
            with pytest.raises(gtcp.SocketError, match=str(port)):
                start()
            assert server.get_listened_port() == -1
            assert server.get_listened_address() is None
        server.close()
    with server:
        assert server.get_listened_port() == port
        assert serves(server)
    assert server.get_listened_port() == -1


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(3), KeyboardInterrupt()])
def test_H81_an_exception_of_a_handler_ends_its_connection_only(
    caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    def handler(conn: gtcp.Conn) -> None:
        if conn.recv(1) == b"!":
            raise error
        conn.send(b"x")

    with gtcp.Server("127.0.0.1:0", handler) as server:
        with client(server) as conn:
            conn.send(b"!")
            with pytest.raises(gtcp.EOF):
                conn.recv(1, timeout=LONG)
        assert serves(server)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("gtcp", logging.ERROR)
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_H81_a_connection_ends_with_its_handler() -> None:
    with (
        gtcp.Server("127.0.0.1:0", lambda conn: None) as server,
        client(server) as conn,
        pytest.raises(gtcp.EOF),
    ):
        conn.recv(1, timeout=LONG)


def test_H84_a_second_start_is_refused_and_harms_nothing() -> None:
    with gtcp.Server("127.0.0.1:0", echo) as server:
        port = server.get_listened_port()
        for start in (server.start, server.run):
            with pytest.raises(RuntimeError, match="running already"):
                start()
        assert server.get_listened_port() == port
        assert serves(server)


def test_H84_of_many_starts_at_once_one_wins() -> None:
    server = gtcp.Server("127.0.0.1:0", echo)
    with contextlib.closing(server):
        crew = together([server.start] * 8)
        assert sum(worker._error is None for worker in crew) == 1
        assert serves(server)


def test_H84_settings_may_change_while_the_server_runs() -> None:
    """A new handler is for connections accepted from now on, a new address for the next start."""
    with gtcp.Server("127.0.0.1:0", echo) as server:
        port = server.get_listened_port()
        with client(server) as old:
            assert old.send_recv(b"x", 1) == b"x"
            server.set_handler(lambda conn: conn.send(b"new"))
            server.set_address("127.0.0.1:1")
            with client(server) as new:
                assert new.recv(3, timeout=LONG) == b"new"
            assert old.send_recv(b"y", 1) == b"y"
        assert server.get_listened_port() == port
