"""TLS: what the contract says of plain connections holds, where records come between (G7, H1)."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

import gtcp
from contract.operations import EXCHANGES, RECEIVES
from net.ends import Serve
from support.calls import Call
from support.timing import LONG, eventually, quick
from support.tls import Authority

Connect = Callable[[Any], gtcp.Conn]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def connect(serve: Serve, authority: Authority) -> Connect:
    """A connection to a TLS server with this handler."""
    ours, theirs = authority.client(), authority.server()

    def connect(handler: Any) -> gtcp.Conn:
        return gtcp.Conn(serve(handler, tls=theirs).get_listened_address() or "", LONG, tls=ours)

    return connect


def silent(conn: gtcp.Conn) -> None:
    for _ in conn.lines():
        pass


def test_is_alive_takes_nothing(connect: Connect) -> None:
    with connect(lambda conn: (conn.send(b"hello"), silent(conn))) as conn:
        eventually(lambda: conn.is_alive() and conn.buffered)
        for _ in range(3):
            assert conn.is_alive()
        assert conn.recv(5, timeout=LONG) == b"hello"


def test_is_alive_beside_a_receiver(connect: Connect) -> None:
    go_on = threading.Event()
    with connect(lambda conn: (go_on.wait(LONG), conn.send(b"hello"), silent(conn))) as conn:
        waiting = Call(conn.recv, 5, timeout=LONG).sleeping()
        go_on.set()
        while waiting.running:
            assert conn.is_alive()
        assert waiting.result() == b"hello"


def test_is_alive_tells_of_the_end(connect: Connect) -> None:
    with connect(lambda conn: None) as conn:
        eventually(lambda: not conn.is_alive())
        with pytest.raises(gtcp.EOF):
            conn.recv(timeout=LONG)


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("name", RECEIVES)
def test_H1_close_wakes_a_receiver(connect: Connect, name: str, how: str) -> None:
    conn = connect(silent)
    waiting = Call(RECEIVES[name].call, conn, None).sleeping()
    with quick():
        getattr(conn, how)()
        with pytest.raises(gtcp.ClosedError):
            waiting.result()


@pytest.mark.parametrize("name", EXCHANGES)
def test_H1_close_wakes_an_exchange(connect: Connect, name: str) -> None:
    conn = connect(silent)
    waiting = Call(EXCHANGES[name], conn, b"?", None).sleeping()
    with quick():
        conn.close()
        with pytest.raises(gtcp.ClosedError):
            waiting.result()


def test_G7_packages_in_one_record_need_no_further_bytes(connect: Connect) -> None:
    with connect(lambda conn: (conn.send_pkgs([b"a", b"", b"c"]), silent(conn))) as conn:
        assert [conn.recv_pkg(timeout=LONG) for _ in range(3)] == [b"a", b"", b"c"]
