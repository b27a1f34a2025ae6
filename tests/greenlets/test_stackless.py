"""pkg_handler on a greenlet server: connections that wait have no greenlet, and miss nothing that one would give."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import greenlet
import pytest

import gtcp
from soak import hubs
from support.calls import Call
from support.peers import frame, read
from support.timing import LATE, LONG, SHORT, eventually, quick, takes
from support.tls import Authority

Answer = Callable[[bytes], bytes | None]
Answering = Callable[..., gtcp.Server]

REQUEST = 60000  # bytes: more than a narrow connection takes at once


@pytest.fixture(params=[False, True], ids=["at once", "gathered"])
def answering(request: pytest.FixtureRequest, leaves_no_trace: None) -> Iterator[Answering]:
    """Start a server that answers packages with what a function makes of them."""
    with contextlib.ExitStack() as stack:

        def start(answer: Answer, **options: object) -> gtcp.Server:
            options = {"concurrency": "greenlets", "gather_sends": request.param, **options}
            return stack.enter_context(gtcp.Server("127.0.0.1:0", gtcp.pkg_handler(answer), **options))  # type: ignore[arg-type]

        yield start


def client_of(server: gtcp.Server) -> gtcp.Conn:
    return gtcp.Conn(("127.0.0.1", server.get_listened_port()), LONG)


@contextlib.contextmanager
def all_of(conns: Iterable[gtcp.Conn]) -> Iterator[list[gtcp.Conn]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(conn) for conn in conns]


def same(package: bytes) -> bytes:
    return package


def test_connections_that_wait_have_no_greenlet(answering: Answering) -> None:
    server = answering(same)
    with all_of(client_of(server) for _ in range(50)) as clients:
        for client in clients:
            assert client.send_recv_pkg(b"x", timeout=LONG) == b"x"
        assert len(server.connections) == 50
        assert hubs.greenlets() < 10
        for size in (0, 1, 1000, 65535):
            assert all(client.send_recv_pkg(bytes(size), timeout=LONG) == bytes(size) for client in clients)
    eventually(lambda: not server.connections)


def test_a_function_that_waits_takes_its_connection_along_and_nobody_else(answering: Answering) -> None:
    def answer(package: bytes) -> bytes:
        if package == b"wait":
            waiting.append(package)
            gtcp.sleep(SHORT)
            waiting.pop()
        return package

    waiting: list[bytes] = []
    server = answering(answer)
    with all_of(client_of(server) for _ in range(100)) as clients, client_of(server) as other:
        for client in clients:
            client.send_pkgs([b"wait", b"behind"])
        assert other.send_recv_pkg(b"now", timeout=LONG) == b"now"
        assert waiting  # all at the same time
        with quick(SHORT + LATE):
            for client in clients:
                assert client.recv_pkgs(2, timeout=LONG) == [b"wait", b"behind"]
    assert server.stats().failed == 0


def test_a_function_that_asks_another_server(answering: Answering) -> None:
    behind = answering(bytes.upper)
    pool = gtcp.Pool(("127.0.0.1", behind.get_listened_port()), max_size=3)

    def answer(package: bytes) -> bytes:
        with pool.acquire(LONG) as conn:
            return conn.send_recv_pkg(package, timeout=LONG)

    server = answering(answer)
    with pool, all_of(client_of(server) for _ in range(30)) as clients:
        for _ in range(3):
            for number, client in enumerate(clients):
                client.send_pkg(b"request %d" % number)
            for number, client in enumerate(clients):
                assert client.recv_pkg(timeout=LONG) == b"REQUEST %d" % number


def test_F5_what_ends_a_connection_reaches_on_close_and_the_log(
    answering: Answering, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(package: bytes) -> bytes:
        return b"%d" % int(package)

    ends: list[BaseException | None] = []
    server = answering(answer, on_close=lambda _, error: ends.append(error))
    with client_of(server) as client:
        assert client.send_recv_pkg(b"1", timeout=LONG) == b"1"
        client.send_pkg(b"one")
        with pytest.raises(gtcp.EOF):
            client.recv_pkg(timeout=LONG)
    eventually(lambda: ends)
    assert isinstance(ends.pop(), ValueError)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert server.stats().failed == 1

    with client_of(server) as client:
        client.send_recv_pkg(b"1", timeout=LONG)
    eventually(lambda: ends)
    assert ends.pop() is None

    with client_of(server) as client:
        client.send(b"\0\7cut")
    eventually(lambda: ends)
    end = ends.pop()
    assert isinstance(end, gtcp.EOF)
    assert (end.partial, end.expected) == (b"cut", 7)
    with client_of(server) as client:
        assert client.send_recv_pkg(b"2", timeout=LONG) == b"2"


class Stop(BaseException):
    """What no handler of ordinary errors catches."""


@pytest.mark.parametrize("error", [SystemExit("mine"), KeyboardInterrupt("mine"), Stop("mine")], ids=repr)
def test_F6_what_the_function_raises_ends_its_connection_only(
    answering: Answering, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    def answer(package: bytes) -> bytes:
        if package == b"fail":
            raise error
        return package

    ends: list[BaseException | None] = []
    server = answering(answer, on_close=lambda _, error: ends.append(error))
    with client_of(server) as other, client_of(server) as client:
        assert other.send_recv_pkg(b"1", timeout=LONG) == b"1"
        client.send_pkgs([b"before", b"fail", b"behind"])
        assert client.recv_pkg(timeout=LONG) == b"before"
        with pytest.raises((gtcp.EOF, gtcp.ResetError)):
            client.recv_pkg(timeout=LONG)
        eventually(lambda: ends == [error])
        assert other.send_recv_pkg(b"2", timeout=LONG) == b"2"
    [record] = caplog.records
    assert record.exc_info
    assert record.exc_info[1] is error
    assert server.stats().failed == 1


def test_F5_the_end_of_a_connection_that_the_function_uses_is_a_failure(
    answering: Answering, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(package: bytes) -> bytes:
        here, there = socket.socketpair()
        there.close()
        with gtcp.Conn.from_socket(here) as backend:
            return backend.recv_pkg()

    ends: list[BaseException | None] = []
    server = answering(answer, on_close=lambda _, error: ends.append(error))
    with client_of(server) as client:
        client.send_pkg(b"x")
        with pytest.raises(gtcp.EOF):
            client.recv_pkg(timeout=LONG)
    eventually(lambda: ends)
    assert isinstance(ends[0], gtcp.EOF)
    assert len(caplog.records) == server.stats().failed == 1


@pytest.mark.parametrize("reply", [None, b"nobody hears this"])
def test_F7_a_function_that_detaches_its_connection(
    answering: Answering, caplog: pytest.LogCaptureFixture, reply: bytes | None
) -> None:
    def answer(_: bytes) -> bytes | None:
        kept.append(conns[0].detach())
        return reply

    conns: list[gtcp.Conn] = []
    kept: list[socket.socket] = []
    ends: list[BaseException | None] = []
    server = answering(answer, on_connect=conns.append, on_close=lambda _, error: ends.append(error))
    with client_of(server) as client:
        client.send_pkg(b"x")
        eventually(lambda: ends)
        with kept[0]:
            kept[0].sendall(b"still here")
            assert client.recv(10, timeout=LONG) == b"still here"
    assert ends == [None]
    assert server.stats().failed == 0
    assert caplog.records == []


def test_a_deadline_that_on_connect_has_set_holds(answering: Answering) -> None:
    ends: list[BaseException | None] = []

    def limit(conn: gtcp.Conn) -> None:
        conn.set_deadline(gtcp._core.to_deadline(2 * SHORT))

    server = answering(same, on_connect=limit, on_close=lambda _, error: ends.append(error))
    with takes(2 * SHORT, late=SHORT), client_of(server) as client:
        assert client.send_recv_pkg(b"in time", timeout=LONG) == b"in time"
        with pytest.raises(gtcp.EOF):
            client.recv_pkg(timeout=LONG)
    eventually(lambda: ends)
    assert isinstance(ends[0], gtcp.Timeout)


def test_each_connection_has_a_context_of_its_own(answering: Answering) -> None:
    seen: contextvars.ContextVar[int] = contextvars.ContextVar("seen", default=0)

    def count(_: bytes) -> bytes:
        seen.set(seen.get() + 1)
        gtcp.sleep(0)
        return b"%d" % seen.get()

    server = answering(count)
    with all_of(client_of(server) for _ in range(5)) as clients:
        for number in range(1, 4):
            for client in clients:
                client.send_pkg(b"")
            assert [client.recv_pkg(timeout=LONG) for client in clients] == [b"%d" % number] * 5


def test_F12_the_function_ends_the_server(answering: Answering) -> None:
    cut: list[int] = []

    def end(package: bytes) -> bytes:
        if package == b"end":
            cut.append(server.shutdown(LONG))
        return package

    server = answering(end)
    with client_of(server) as idle, client_of(server) as ending:
        assert idle.send_recv_pkg(b"hello", timeout=LONG) == b"hello"
        with quick():
            ending.send_pkg(b"end")
            for client in (idle, ending):
                with pytest.raises((gtcp.EOF, gtcp.ResetError)):
                    client.recv_pkg(timeout=LONG)
            eventually(lambda: cut == [0])


def test_F10_functions_that_wait_are_ended_with_the_server(answering: Answering) -> None:
    ends: list[BaseException | None] = []
    inside = threading.Semaphore(0)

    def wait(package: bytes) -> bytes:
        inside.release()
        gtcp.sleep(10 * LONG)
        return package

    server = answering(wait, on_close=lambda _, error: ends.append(error))
    with all_of(client_of(server) for _ in range(3)) as clients:
        for client in clients:
            client.send_pkg(b"x")
        for _ in clients:
            assert inside.acquire(timeout=LONG)
        server.close()
        eventually(lambda: len(ends) == 3)
    assert {type(end) for end in ends} == {greenlet.GreenletExit}


def test_F9_clients_that_never_read_hold_nobody_up(answering: Answering) -> None:
    server = answering(lambda _: bytes(60000), send_timeout=4 * SHORT)
    with all_of(client_of(server) for _ in range(3)) as deaf, client_of(server) as client:
        for other in deaf:
            other.send_pkgs([b""] * 2000)
        for _ in range(10):
            assert client.send_recv_pkg(b"", timeout=LONG) == bytes(60000)
        eventually(lambda: server.stats().timeouts["send_timeout"] == 3)
        assert len(server.connections) == 1


def test_a_client_that_floods_does_not_hold_up_the_others(answering: Answering) -> None:
    server = answering(lambda _: None)
    with client_of(server) as flooding, client_of(server) as _, client_of(answering(same)) as client:
        flood = Call(lambda: [flooding.send_pkgs([bytes(100)] * 1000, timeout=LONG) for _ in range(300)])
        while flood.running:
            assert client.send_recv_pkg(b"x", timeout=LONG) == b"x"
        flood.result()


def test_one_that_closes_in_another_thread(answering: Answering) -> None:
    conns: list[gtcp.Conn] = []
    ends: list[BaseException | None] = []
    server = answering(same, on_connect=conns.append, on_close=lambda _, error: ends.append(error))
    with client_of(server) as client:
        assert client.send_recv_pkg(b"x", timeout=LONG) == b"x"
        with quick():
            conns[0].close()
            eventually(lambda: ends)
    assert isinstance(ends[0], gtcp.ClosedError)


def test_a_carrier_that_is_woken_while_it_rests_is_not_lent_twice(answering: Answering) -> None:
    """A greenlet that sends wakes whom it had overtaken, who may be done long since."""
    inside = threading.Semaphore(0)

    def answer(package: bytes) -> bytes:
        if package == b"ask":
            asked.send(bytes(REQUEST))  # gathered, and more than the kernel has room for
            inside.release()
            return asked.recv_pkg(timeout=LONG)
        began = time.monotonic()
        inside.release()
        gtcp.sleep(SHORT)
        return b"early" if time.monotonic() - began < SHORT else b"in time"

    with narrow_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as asked, asked.gathered():
        server = answering(answer)
        with all_of(client_of(server) for _ in range(4)) as clients:
            clients[0].send_pkg(b"ask")
            assert inside.acquire(timeout=LONG)
            theirs.sendall(frame(b"answer"))
            assert clients[0].recv_pkg(timeout=LONG) == b"answer"
            assert read(theirs, REQUEST) == bytes(REQUEST)
            for client in clients:
                client.send_pkg(b"sleep")
                assert inside.acquire(timeout=LONG)
            assert [client.recv_pkg(timeout=LONG) for client in clients] == [b"in time"] * 4


@contextlib.contextmanager
def narrow_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection with little room in the kernel."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        ours = socket.socket()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        ours.connect(listener.getsockname())
        theirs, _ = listener.accept()
    theirs.settimeout(LONG)
    with ours, theirs:
        yield ours, theirs


def test_timeouts_closes_and_kills_at_any_moment_leave_no_carrier_behind() -> None:
    ends = hubs.storm("pkg_handler", 300, time.monotonic_ns())
    assert {"done", "Timeout", "EOF", "GreenletExit"} <= ends.keys()


def test_tls(answering: Answering) -> None:
    authority = Authority()
    server = answering(same, tls=authority.server())
    with gtcp.Conn(("127.0.0.1", server.get_listened_port()), LONG, tls=authority.client()) as client:
        for size in (0, 100, 60000):
            assert client.send_recv_pkg(bytes(size), timeout=LONG) == bytes(size)
        assert client.send_recv_pkgs([b"%d" % i for i in range(500)], timeout=LONG) == [b"%d" % i for i in range(500)]


def test_serve_outside_of_greenlets_is_refused() -> None:
    here, there = socket.socketpair()
    with there, gtcp.Conn.from_socket(here) as conn, pytest.raises(TypeError, match="Hub"):
        gtcp._core.PkgHandler(same, None).serve(conn, print)
