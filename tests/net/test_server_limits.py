"""What a server bears, in threads, as greenlets and in loops: limits, callbacks, the end (F7 to F14)."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

import gtcp
from net.ends import Serve, run_by
from net.handlers import echo_packages
from support.calls import Call
from support.loops import LOOPS
from support.peers import frame, read_frame
from support.timing import LONG, SHORT, eventually, quick
from support.tls import Authority

concurrency = run_by("threads", "greenlets", *LOOPS)


# Without a stack for those that wait, too.
echoes = pytest.mark.parametrize("concurrency", ["threads", "greenlets", "pkg_handler", *LOOPS], indirect=True)


@pytest.fixture
def echoing(serve: Serve, concurrency: str) -> Callable[..., gtcp.Server]:
    """Start a server that echoes packages."""
    if concurrency == "pkg_handler":
        return partial(serve, gtcp.pkg_handler(lambda package: package), concurrency="greenlets")
    return partial(serve, echo_packages)


@pytest.fixture
def client(leaves_no_trace: None) -> Iterator[Callable[[gtcp.Server], socket.socket]]:
    """Connect to a server; closed at the end."""
    socks: list[socket.socket] = []

    def connect(server: gtcp.Server) -> socket.socket:
        socks.append(socket.create_connection(("127.0.0.1", server.get_listened_port()), LONG))
        return socks[-1]

    yield connect
    for sock in socks:
        sock.close()


Client = Callable[[gtcp.Server], socket.socket]


def answers(sock: socket.socket) -> bool:
    sock.sendall(frame(b"hello"))
    return read_frame(sock) == b"hello"


def is_ended(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@echoes
def test_F14_more_than_max_connections_wait_and_are_served_later(
    echoing: Callable[..., gtcp.Server], client: Client
) -> None:
    server = echoing(max_connections=2)
    first, second, third = client(server), client(server), client(server)
    assert answers(first)
    assert answers(second)
    third.sendall(frame(b"third"))
    third.settimeout(SHORT)
    with pytest.raises(TimeoutError):
        third.recv(1)
    assert len(server.connections) == server.stats().accepted == 2
    third.settimeout(LONG)
    first.close()
    assert read_frame(third) == b"third"
    assert answers(second)


@echoes
@pytest.mark.parametrize("drip", [False, True], ids=["silent", "dripping"])
def test_F8_idle_timeout_ends_who_says_nothing_whole(
    echoing: Callable[..., gtcp.Server], client: Client, caplog: pytest.LogCaptureFixture, drip: bool
) -> None:
    ends: list[BaseException | None] = []
    server = echoing(idle_timeout=4 * SHORT, on_close=lambda conn, error: ends.append(error))
    idle = client(server)
    assert answers(idle)
    if drip:
        idle.sendall(b"\0\5a")
    assert is_ended(idle)
    eventually(lambda: ends)
    assert isinstance(ends[0], gtcp.ClosedError)
    assert "idle_timeout" in str(ends[0])
    assert server.stats().timeouts["idle_timeout"] == 1
    assert answers(client(server))
    assert caplog.records == []


@echoes
def test_F8_first_byte_timeout(echoing: Callable[..., gtcp.Server], client: Client) -> None:
    server = echoing(first_byte_timeout=4 * SHORT)
    honest, silent = client(server), client(server)
    assert answers(honest)
    assert is_ended(silent)
    assert answers(honest)  # which may be idle for as long as it likes
    assert server.stats().timeouts == {"first_byte_timeout": 1, "idle_timeout": 0, "send_timeout": 0}


def test_F9_send_timeout_ends_who_never_reads(serve: Serve, client: Client) -> None:
    server = serve(lambda conn: conn.send(bytes(64 << 20)), send_timeout=2 * SHORT)
    deaf = client(server)
    eventually(lambda: server.stats().timeouts["send_timeout"] == 1)
    eventually(lambda: server.connections == [])
    deaf.close()


@echoes
def test_F11_shutdown_ends_the_idle_at_once_and_lets_the_others_finish(
    echoing: Callable[..., gtcp.Server], client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    server = echoing()
    idle, busy = client(server), client(server)
    assert answers(idle)
    assert answers(busy)
    busy.sendall(b"\0\5ab")
    eventually(lambda: any(conn.buffered for conn in server.connections))
    stopping = Call(server.shutdown, LONG)
    with quick():
        assert is_ended(idle)
    assert stopping.running
    busy.sendall(b"cde")
    assert read_frame(busy) == b"abcde"
    assert is_ended(busy)
    assert stopping.result() == 0
    assert caplog.records == []


@pytest.mark.parametrize("concurrency", ["threads", "greenlets"], indirect=True)
def test_F12_close_and_shutdown_in_a_handler(serve: Serve, client: Client) -> None:
    cut: list[int] = []

    def handler(conn: gtcp.Conn) -> None:
        conn.recv_pkg()
        cut.append(server.shutdown(LONG))

    server = serve(handler)
    idle, ending = client(server), client(server)
    with quick():
        ending.sendall(frame(b"end"))
        assert is_ended(idle)
        assert is_ended(ending)
        eventually(lambda: cut == [0])


@echoes
def test_F10_close_ends_handlers_by_an_error(
    echoing: Callable[..., gtcp.Server], client: Client, concurrency: str
) -> None:
    ends: list[BaseException | None] = []
    ended = threading.Event()

    def note(conn: gtcp.Conn, error: BaseException | None) -> None:
        ends.append(error)
        ended.set()

    server = echoing(on_close=note)
    sock = client(server)
    assert answers(sock)
    with quick():
        server.close()
        assert is_ended(sock)
    assert ended.wait(LONG)
    assert isinstance(ends[0], asyncio.CancelledError if concurrency in LOOPS else gtcp.ClosedError)


def test_callbacks_refuse_and_tell(serve: Serve, client: Client) -> None:
    told: list[tuple[str, object]] = []
    welcome = iter([False, None])
    server = serve(
        lambda conn: 1 // 0,
        on_connect=lambda conn: next(welcome),
        on_close=lambda conn, error: told.append(("close", type(error))),
        on_error=lambda conn, error: told.append(("error", type(error))),
    )
    for _ in range(2):
        assert is_ended(client(server))
    eventually(lambda: len(told) == 3)
    assert told == [("close", type(None)), ("error", ZeroDivisionError), ("close", ZeroDivisionError)]
    stats = server.stats()
    assert (stats.accepted, stats.refused, stats.failed) == (2, 1, 1)


@pytest.mark.parametrize("concurrency", ["threads"], indirect=True)
def test_F11_close_ends_a_shutdown_that_waits(serve: Serve, client: Client) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work(conn: gtcp.Conn) -> None:
        begun.set()
        assert go_on.wait(LONG)

    server = serve(work)
    client(server)
    assert begun.wait(LONG)
    stopping = Call(server.shutdown)
    stopping.sleeping()
    with quick():
        server.close()
        assert stopping.result() == 1
    go_on.set()


@pytest.mark.parametrize("concurrency", ["threads", "greenlets"], indirect=True)
def test_F11_what_several_shutdowns_cut_is_counted_once(serve: Serve, client: Client) -> None:
    server = serve(echo_packages)
    busy = [client(server) for _ in range(3)]
    for sock in busy:
        sock.sendall(b"\0\5ab")  # the rest never comes
    eventually(lambda: sum(conn.buffered > 0 for conn in server.connections) == 3)
    stopping = [Call(server.shutdown, SHORT) for _ in range(3)]
    assert max(call.result() for call in stopping) == 3
    assert server.stats().cut == 3


@pytest.mark.parametrize("concurrency", ["greenlets"], indirect=True)
def test_F10_close_does_not_wait_for_a_greenlet_that_blocks(serve: Serve, client: Client) -> None:
    pytest.importorskip("greenlet")
    begun, go_on = threading.Event(), threading.Event()

    def block(conn: gtcp.Conn) -> None:
        begun.set()
        assert go_on.wait(LONG)  # which holds up the hub

    server = serve(block)
    sock = client(server)
    there = sock.getpeername()
    assert begun.wait(LONG)
    with quick():
        server.close()
        assert is_ended(sock)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(there, LONG)
    go_on.set()


def test_F11_shutdown_does_not_wait_for_a_handshake(serve: Serve, client: Client) -> None:
    server = serve(echo_packages, tls=Authority().server(), handshake_timeout=None)
    silent = client(server)
    eventually(lambda: server.connections)
    eventually(lambda: server._service is not None and server._service._agreeing)
    with quick():
        assert server.shutdown() == 0
        assert is_ended(silent)


def test_F12_no_thread_for_the_acceptor_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    server = gtcp.Server("127.0.0.1:0", echo_packages)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_more)
        with pytest.raises(RuntimeError, match="new thread"):
            server.start()
    assert server.get_listened_address() is None
    with server:
        assert server.get_listened_port() > 0


def test_F2_a_listening_socket_that_is_none_ends_run(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    server = gtcp.Server("127.0.0.1:0", echo_packages)
    running = Call(server.run)
    eventually(lambda: server.get_listened_port() != -1)
    service = server._service
    assert service is not None
    with quick():
        service.acceptor._listener.refuse()  # accept gives EINVAL from now on
        assert running.result() is None
    assert server.get_listened_port() == -1
    [record] = caplog.records
    assert "ended" in record.getMessage()


@pytest.mark.parametrize(
    "options",
    [{"max_connections": 0}, {"idle_timeout": -1}, {"send_timeout": float("nan")}, {"backlog": -1}, {"on_close": 1}],
    ids=str,
)
def test_wrong_options(options: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError), match=next(iter(options))):
        gtcp.Server(**options)  # type: ignore[arg-type]
