"""Dialling: one deadline for everything, no socket left open, no connection to oneself (A1-A5, A10)."""

import contextlib
import errno
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gtcp
from gtcp import _dial
from support.calls import Call
from support.peers import Peer, closed_address, deaf_address, listen, reset, says, silent
from support.timing import LONG, SHORT, quick, takes

# Everything that dials; the socket or connection is closed again at once.
DIALS: dict[str, Any] = {
    "dial": lambda addr, t: gtcp.dial(addr, t).close(),
    "Conn": lambda addr, t: gtcp.Conn(addr, t).close(),
    "PoolConn": lambda addr, t: gtcp.PoolConn(addr, t).discard(),
    "send_pkg": lambda addr, t: gtcp.send_pkg(addr, b"x", timeout=t),
}


@pytest.fixture(autouse=True)
def no_shared_pools() -> Any:
    yield
    for pool in gtcp.pools():
        pool.close()


@pytest.mark.parametrize("name", DIALS)
def test_A1_nobody_listens(name: str) -> None:
    with closed_address() as address, quick(SHORT / 2), pytest.raises(gtcp.RefusedError) as error:
        DIALS[name](address, LONG)
    assert isinstance(error.value, ConnectionRefusedError)
    assert error.value.errno == errno.ECONNREFUSED
    assert address in str(error.value)


@pytest.mark.parametrize("name", DIALS)
def test_A2_nobody_answers(name: str) -> None:
    with deaf_address() as address, takes(SHORT), pytest.raises(gtcp.Timeout, match=address):
        DIALS[name](address, SHORT)


@pytest.mark.parametrize("name", DIALS)
def test_D4_no_time_at_all(name: str) -> None:
    with deaf_address() as address, quick(), pytest.raises(gtcp.Timeout):
        DIALS[name](address, 0)


@pytest.mark.parametrize("timeout", [-1, float("nan"), True, "1"])
@pytest.mark.parametrize("name", DIALS)
def test_D4_bad_timeouts_dial_nobody(name: str, timeout: Any) -> None:
    with Peer(silent) as peer:
        with pytest.raises((ValueError, TypeError), match="timeout"):
            DIALS[name](peer.address, timeout)
        assert peer.accepted == 0


@pytest.mark.parametrize("timeout", [None, LONG, float("inf")])
def test_a_dialled_socket_is_an_ordinary_one(timeout: float | None) -> None:
    with Peer(says(b"hello")) as peer, gtcp.dial(peer.address, timeout) as sock:
        assert sock.recv(5) == b"hello"
        assert sock.gettimeout() is None
        assert not sock.get_inheritable()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest.mark.parametrize("form", ["{host}:{port}", "localhost:{port}", ":{port}"])
def test_forms_of_addresses(form: str) -> None:
    with Peer(says(b"hello")) as peer, gtcp.Conn(form.format(host=peer.host, port=peer.port), LONG) as conn:
        assert conn.recv(5, timeout=LONG) == b"hello"
        assert str(conn.remote_addr()) == peer.address


def test_ipv6() -> None:
    try:
        peer = Peer(says(b"hello"), host="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    with peer, gtcp.Conn(peer.address, LONG) as conn:
        assert conn.recv(5, timeout=LONG) == b"hello"
        assert str(conn.remote_addr()) == peer.address
        assert conn.local_addr().host == "::1"


# -- names


def patch_resolver(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], list[str]]) -> None:
    """Names, not addresses, are looked up by `answer`."""
    real = socket.getaddrinfo

    def lookup(host: Any, *rest: Any) -> Any:
        if rest[-1] & socket.AI_NUMERICHOST:
            return real(host, *rest)
        return [found for each in answer(host) for found in real(each, *rest)]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


def test_A3_the_first_addresses_stay_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_dial, "ATTEMPT_DELAY", SHORT)
    with listen("127.0.0.4") as listener:
        port = listener.getsockname()[1]
        patch_resolver(monkeypatch, lambda _: ["127.0.0.2", "127.0.0.3", "127.0.0.4"])
        with deaf("127.0.0.2", port), deaf("127.0.0.3", port):
            with takes(2 * SHORT), gtcp.dial(f"several:{port}", LONG) as sock:
                assert sock.getpeername() == ("127.0.0.4", port)
            listener.close()
            with takes(SHORT), pytest.raises(gtcp.Timeout):
                gtcp.dial(f"several:{port}", SHORT)


@contextlib.contextmanager
def deaf(host: str, port: int) -> Iterator[None]:
    """As support's deaf_address, but at a port of the test's choice."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((host, port), backlog=0))
        for _ in range(8):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield


def test_A3_a_refusal_tries_the_next_address_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_dial, "ATTEMPT_DELAY", LONG)
    patch_resolver(monkeypatch, lambda _: ["127.0.0.2", "127.0.0.3", "127.0.0.4"])
    with listen("127.0.0.4") as listener:
        port = listener.getsockname()[1]
        with quick(), gtcp.dial(f"several:{port}", LONG) as sock:
            assert sock.getpeername() == ("127.0.0.4", port)


def test_A3_all_addresses_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_resolver(monkeypatch, lambda _: ["127.0.0.2", "127.0.0.3"])
    with closed_address() as address:
        port = address.partition(":")[2]
        with quick(), pytest.raises(gtcp.RefusedError, match=f"several:{port}"):
            gtcp.dial(f"several:{port}", LONG)


@pytest.mark.parametrize("name", DIALS)
def test_A5_a_name_that_does_not_exist(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(host: str) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    patch_resolver(monkeypatch, unknown)
    with quick(), pytest.raises(gtcp.ResolveError, match=r"Name or service not known: 'nowhere\.invalid'") as error:
        DIALS[name]("nowhere.invalid:80", LONG)
    assert isinstance(error.value, socket.gaierror)
    assert isinstance(error.value, OSError)
    assert error.value.errno == socket.EAI_NONAME


@pytest.mark.parametrize("name", DIALS)
def test_A5_a_resolver_that_takes_its_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    patch_resolver(monkeypatch, lambda _: ["127.0.0.1"] * go_on.wait(LONG))
    try:
        with takes(SHORT), pytest.raises(gtcp.Timeout, match="timed out while resolving 'localhost'"):
            DIALS[name]("localhost:80", SHORT)
    finally:
        go_on.set()


def test_A5_a_resolver_that_answers_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    patch_resolver(monkeypatch, lambda _: ["127.0.0.1"] * go_on.wait(LONG))
    with Peer(silent) as peer:
        dialling = Call(gtcp.dial, f"some.name:{peer.port}", LONG).sleeping()
        go_on.set()
        with dialling.result() as sock:
            assert sock.getpeername()[1] == peer.port


# -- what the network does


def test_A4_a_connection_to_oneself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel does it when the port that it picks for the client is the one that is dialled: here it is
    # picked for it, on every attempt.
    port = gtcp.get_free_port()
    attempts = []
    tune = _dial.tune

    def from_the_same_port(sock: socket.socket) -> None:
        tune(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        attempts.append(sock)

    monkeypatch.setattr(_dial, "tune", from_the_same_port)
    with quick(), pytest.raises(gtcp.SocketError):
        gtcp.dial(f"127.0.0.1:{port}", LONG)
    assert 1 <= len(attempts) <= 3


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS], ids=errno.errorcode.get)
def test_A8_no_descriptor_for_a_socket(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def none_left(*_: object) -> None:
        raise OSError(number, "injected")

    with Peer(silent) as peer:
        with monkeypatch.context() as patched:
            patched.setattr(socket, "socket", none_left)
            with quick(), pytest.raises(gtcp.SocketError) as error:
                gtcp.dial(peer.address, LONG)
        assert error.value.errno == number
        gtcp.dial(peer.address, LONG).close()


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES])
def test_A9_errors_of_connect(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: number)
    with Peer(silent) as peer, quick(), pytest.raises(gtcp.SocketError, match=peer.address) as error:
        gtcp.dial(peer.address, LONG)
    assert error.value.errno == number
    assert isinstance(error.value, PermissionError) == (number == errno.EACCES)


def test_A10_reset_right_after_the_handshake() -> None:
    with Peer(reset) as peer:
        for _ in range(20):
            try:
                conn = gtcp.Conn(peer.address, LONG)
            except gtcp.ResetError:
                continue
            with conn, quick(), pytest.raises((gtcp.ResetError, gtcp.PipeError)):
                conn.send_recv_pkg(b"hello", timeout=LONG)


def test_the_peer_may_be_gone_before_we_ask_for_its_name() -> None:
    with listen() as listener:
        ours = socket.create_connection(listener.getsockname(), LONG)
        theirs, _ = listener.accept()
        reset(theirs)
    with gtcp.Conn.from_socket(ours) as conn:
        assert repr(conn).startswith("<gtcp.Conn 127.0.0.1:")
        with pytest.raises(gtcp.ResetError):
            conn.recv(timeout=LONG)
