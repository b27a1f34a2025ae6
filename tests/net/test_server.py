"""Server: listening, the life of a connection, the end (F7, F10, F11, F12, F13)."""

import socket
import threading

import pytest

import gtcp
from net.ends import Serve
from net.handlers import address_of, echo
from support.calls import Call
from support.peers import free_port, listen
from support.timing import LONG, SHORT, eventually, quick, takes


def test_a_client_can_connect_as_soon_as_start_returns() -> None:
    server = gtcp.Server("127.0.0.1:0", echo)
    server.start()
    try:
        with gtcp.Conn(address_of(server), LONG) as conn:
            assert conn.send_recv(b"hello", timeout=LONG) == b"hello"
    finally:
        server.close()


def test_with_starts_and_closes() -> None:
    with gtcp.Server("127.0.0.1:0", echo) as server, gtcp.Conn(address_of(server), LONG) as conn:
        assert conn.send_recv(b"hello", timeout=LONG) == b"hello"
    assert server.get_listened_address() is None


@pytest.mark.parametrize("end", ["close", "shutdown"])
def test_F10_run_returns_normally_after_the_end(end: str) -> None:
    port = free_port()
    server = gtcp.Server(f"127.0.0.1:{port}", echo)
    running = Call(server.run)
    eventually(lambda: server.get_listened_port() == port)
    with gtcp.Conn(f"127.0.0.1:{port}", LONG) as conn:
        assert conn.send_recv(b"hello", timeout=LONG) == b"hello"
    with quick():
        getattr(server, end)()
        assert running.result() is None
    with pytest.raises(gtcp.RefusedError):
        gtcp.dial(f"127.0.0.1:{port}", LONG)


def test_F10_the_same_port_can_be_opened_again_at_once() -> None:
    port = free_port()
    server = gtcp.Server(f"127.0.0.1:{port}", echo)
    for _ in range(3):
        server.start()
        with gtcp.Conn(f"127.0.0.1:{port}", LONG) as conn:
            assert conn.send_recv(b"hello", timeout=LONG) == b"hello"
            server.close()
        assert server.get_listened_port() == -1


def test_F13_a_port_in_time_wait_can_be_listened_on(serve: Serve) -> None:
    def hang_up(conn: gtcp.Conn) -> None:
        conn.recv(1)  # this side closes first, so this side keeps the TIME_WAIT

    port = free_port()
    for _ in range(2):
        with gtcp.Server(f"127.0.0.1:{port}", hang_up), gtcp.Conn(f"127.0.0.1:{port}", LONG) as conn:
            conn.send(b"x")
            with pytest.raises(gtcp.EOF):
                conn.recv(timeout=LONG)


def test_F13_a_port_in_use(serve: Serve) -> None:
    with listen() as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = gtcp.Server(address, echo)
        with pytest.raises(gtcp.SocketError, match="Address already in use") as error:
            server.start()
        assert error.value.errno == 98
        assert address in str(error.value)
        assert server.get_listened_port() == -1
    server.start()  # the failure left it as it was
    server.close()


def test_F13_a_port_that_is_not_ours() -> None:
    server = gtcp.Server("192.0.2.1:8999", echo)  # TEST-NET: no interface has it
    with pytest.raises(gtcp.SocketError, match="assign requested address"):
        server.start()


def test_F7_the_connection_is_closed_when_the_handler_returns(serve: Serve) -> None:
    server = serve(lambda conn: conn.send(b"bye"))
    with gtcp.Conn(address_of(server), LONG) as conn:
        assert conn.recv(3, timeout=LONG) == b"bye"
        with pytest.raises(gtcp.EOF):
            conn.recv(timeout=LONG)


def test_F7_a_detached_connection_lives_on(serve: Serve) -> None:
    sockets: list[socket.socket] = []
    returned = threading.Event()

    def keep(conn: gtcp.Conn) -> None:
        sockets.append(conn.detach())
        returned.set()

    server = serve(keep)
    with gtcp.Conn(address_of(server), LONG) as conn:
        assert returned.wait(LONG)
        server.close()
        with sockets[0] as sock:
            sock.sendall(b"still here")
            assert conn.recv(10, timeout=LONG) == b"still here"


def test_many_clients_at_once(serve: Serve) -> None:
    clients = 50
    together = threading.Barrier(clients)

    def meet(conn: gtcp.Conn) -> None:
        together.wait(LONG)  # passes only when all are served at the same time
        conn.send(b"met")

    server = serve(meet)
    conns = [gtcp.Conn(address_of(server), LONG) for _ in range(clients)]
    for conn in conns:
        assert conn.recv(3, timeout=LONG) == b"met"
        conn.close()


def test_F10_close_ends_the_connections(serve: Serve) -> None:
    errors: list[BaseException] = []
    waiting = threading.Event()
    ended = threading.Event()

    def wait(conn: gtcp.Conn) -> None:
        waiting.set()
        try:
            conn.recv()
        except gtcp.ClosedError as error:
            errors.append(error)
        ended.set()

    server = serve(wait)
    with gtcp.Conn(address_of(server), LONG) as conn:
        assert waiting.wait(LONG)
        with quick():
            server.close()
            assert ended.wait(LONG)
        assert len(errors) == 1
        with pytest.raises((gtcp.EOF, gtcp.ResetError)):
            conn.recv(timeout=LONG)


def test_F10_close_wakes_run_while_nobody_connects() -> None:
    server = gtcp.Server("127.0.0.1:0", echo)
    running = Call(server.run)
    eventually(lambda: server.get_listened_port() != -1)
    running.sleeping()
    with quick():
        server.close()
        running.result()


def test_F11_shutdown_lets_handlers_finish() -> None:
    go_on = threading.Event()
    begun = threading.Event()

    def work(conn: gtcp.Conn) -> None:
        begun.set()
        assert go_on.wait(LONG)
        conn.send(b"done")

    server = gtcp.Server("127.0.0.1:0", work)
    server.start()
    address = address_of(server)
    with gtcp.Conn(address, LONG) as conn:
        assert begun.wait(LONG)
        stopping = Call(server.shutdown, LONG)
        eventually(lambda: is_refused(address))  # nobody new meanwhile
        assert stopping.running
        go_on.set()
        assert conn.recv(4, timeout=LONG) == b"done"
        assert stopping.result() == 0


def is_refused(address: str) -> bool:
    try:
        gtcp.dial(address, LONG).close()
    except gtcp.RefusedError:
        return True
    except gtcp.ResetError:  # it was in the queue of the listener when that was closed
        return False
    return False


def test_F11_shutdown_cuts_those_who_take_too_long() -> None:
    begun = threading.Barrier(4)

    def hang(conn: gtcp.Conn) -> None:
        assert conn.recv(1) == b"x"
        begun.wait(LONG)
        with pytest.raises(gtcp.ClosedError):
            conn.recv_pkg()

    with gtcp.Server("127.0.0.1:0", hang) as server:
        conns = [gtcp.Conn(address_of(server), LONG) for _ in range(3)]
        for conn in conns:
            conn.send(b"x\0\5abc")  # the rest of the package never comes
        begun.wait(LONG)
        with takes(SHORT):
            assert server.shutdown(SHORT) == 3
        for conn in conns:
            with pytest.raises((gtcp.EOF, gtcp.ResetError)):
                conn.recv(timeout=LONG)
            conn.close()


def test_F11_shutdown_with_nobody_there() -> None:
    with gtcp.Server("127.0.0.1:0", echo) as server, quick():
        assert server.shutdown() == 0
        assert server.shutdown(LONG) == 0


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_F11_shutdown_with_a_bad_timeout_changes_nothing(serve: Serve, timeout: float) -> None:
    server = serve(echo)
    with pytest.raises(ValueError, match="timeout"):
        server.shutdown(timeout)
    with gtcp.Conn(address_of(server), LONG) as conn:
        assert conn.send_recv(b"hello", timeout=LONG) == b"hello"


def test_F12_close_from_inside_a_handler() -> None:
    def end_it_all(conn: gtcp.Conn) -> None:
        server.close()

    server = gtcp.Server("127.0.0.1:0", end_it_all)
    running = Call(server.run)
    eventually(lambda: server.get_listened_port() != -1)
    with gtcp.Conn(address_of(server), LONG) as conn, quick():
        with pytest.raises((gtcp.EOF, gtcp.ResetError)):
            conn.recv(timeout=LONG)
        running.result()


def test_F12_close_again_and_before() -> None:
    server = gtcp.Server("127.0.0.1:0", echo)
    server.close()
    server.start()
    for _ in range(3):
        server.close()
    server.start()
    server.close()


def test_F12_many_threads_close_at_once() -> None:
    with gtcp.Server("127.0.0.1:0", echo) as server:
        for call in [Call(server.close) for _ in range(8)]:
            call.result()


def test_F12_start_twice(serve: Serve) -> None:
    server = serve(echo)
    for start in (server.start, server.run):
        with pytest.raises(RuntimeError, match="running already"):
            start()
    with gtcp.Conn(address_of(server), LONG) as conn:
        assert conn.send_recv(b"hello", timeout=LONG) == b"hello"


def test_F12_no_handler() -> None:
    server = gtcp.Server("127.0.0.1:0")
    with pytest.raises(ValueError, match="no handler"):
        server.start()
    assert server.get_listened_port() == -1


def test_the_threads_are_gone_after_close() -> None:
    before = threading.active_count()
    with gtcp.Server("127.0.0.1:0", echo) as server:
        conns = [gtcp.Conn(address_of(server), LONG) for _ in range(10)]
        for conn in conns:
            assert conn.send_recv(b"hello", timeout=LONG) == b"hello"
            conn.close()
    eventually(lambda: threading.active_count() <= before, within=10 * SHORT)


def test_threads_serve_one_connection_after_the_other(serve: Serve) -> None:
    served_by: list[int] = []
    server = serve(lambda conn: served_by.append(threading.get_ident()))
    for _ in range(20):
        with gtcp.Conn(address_of(server), LONG) as conn, pytest.raises(gtcp.EOF):
            conn.recv(timeout=LONG)
    eventually(lambda: len(served_by) == 20)
    assert len(set(served_by)) < 20
