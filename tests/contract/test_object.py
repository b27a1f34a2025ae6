"""The object itself: half made, copied, forgotten, subclassed, printed (H12, H13)."""

import contextlib
import copy
import os
import pickle
import re
import select
import socket
import weakref
from typing import Any

import pytest

import gtcp
import gtcp.aio
from contract.makers import Maker
from contract.operations import OPERATIONS
from support.peers import closed_address, deaf_address, reset, socket_pair
from support.timing import LONG, eventually

TYPES = [gtcp.Conn, gtcp.PoolConn]


@pytest.mark.parametrize("cls", TYPES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_H12_operations_of_a_connection_that_was_never_opened(cls: type[gtcp.Conn], name: str) -> None:
    conn = cls.__new__(cls)
    with pytest.raises(gtcp.ClosedError):
        OPERATIONS[name](conn)


@pytest.mark.parametrize("cls", TYPES)
def test_H12_every_attribute_of_a_connection_that_was_never_opened(cls: type[gtcp.Conn]) -> None:
    standard_input = os.fstat(0)
    conn = cls.__new__(cls)
    for name in dir(conn):
        with contextlib.suppress(Exception):  # whatever it says, it does not crash
            getattr(conn, name)()
    assert conn.closed
    assert conn.fileno() == -1
    assert not conn.is_alive()
    assert conn.buffered == 0
    conn.close()
    del conn
    assert os.path.samestat(os.fstat(0), standard_input)


@pytest.mark.parametrize("cls", TYPES)
def test_H12_a_subclass_that_forgets_its_base(cls: type[gtcp.Conn]) -> None:
    class Forgetful(cls):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            self.mine = 1

    conn = Forgetful()
    assert conn.closed
    with pytest.raises(gtcp.ClosedError):
        conn.recv()
    conn.close()


def test_H12_init_twice(make_conn: Maker) -> None:
    conn, far = make_conn()
    with closed_address() as address, pytest.raises(RuntimeError, match="opened already"):
        conn.__init__(address)  # type: ignore[misc]
    far.sendall(b"x")
    assert conn.recv(1, timeout=LONG) == b"x"
    conn.close()
    with closed_address() as address, pytest.raises((RuntimeError, gtcp.RefusedError)):
        conn.__init__(address)  # type: ignore[misc]
    assert conn.closed


@pytest.mark.parametrize("cls", TYPES)
def test_H12_init_that_fails_leaves_nothing_open(cls: type[gtcp.Conn]) -> None:
    conn = cls.__new__(cls)
    with closed_address() as address, pytest.raises(gtcp.RefusedError):
        conn.__init__(address, LONG)  # type: ignore[misc]
    assert conn.closed


@pytest.mark.parametrize("arguments", [(), (None,), (1,), ("h:80", "soon"), ("h:80", -1), ("h:80", float("nan"))])
@pytest.mark.parametrize("cls", TYPES)
def test_H12_bad_arguments_of_the_constructor(cls: type[gtcp.Conn], arguments: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        cls(*arguments)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_H12_a_connection_cannot_be_copied(make_conn: Maker, duplicate: Any) -> None:
    conn, far = make_conn()
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        duplicate(conn)
    far.sendall(b"x")
    assert conn.recv(1, timeout=LONG) == b"x"


def test_H12_weak_references(make_conn: Maker) -> None:
    conn, _ = make_conn()
    assert weakref.ref(conn)() is conn
    assert conn in weakref.WeakSet([conn])


@pytest.mark.plain
def test_subclasses(make_conn: Maker) -> None:
    class Chatty(gtcp.Conn):
        def greet(self) -> None:
            self.send(b"hello")

    conn, far = make_conn()
    with Chatty.from_socket(conn.detach()) as chatty:
        chatty.greet()
        assert isinstance(chatty, Chatty)
        assert far.recv(5) == b"hello"


def test_H13_from_socket_takes_the_socket_over() -> None:
    with socket_pair() as (ours, theirs):
        number = ours.fileno()
        ours.setblocking(False)
        with gtcp.Conn.from_socket(ours) as conn:
            assert ours.fileno() == -1
            assert conn.fileno() == number
            theirs.sendall(b"hello")
            assert conn.recv(5, timeout=LONG) == b"hello"
        assert theirs.recv(1) == b""


def test_H13_a_pair_of_unix_sockets() -> None:
    ours, theirs = socket.socketpair()
    with theirs, gtcp.Conn.from_socket(ours) as conn:
        theirs.sendall(b"hello")
        assert conn.recv(5, timeout=LONG) == b"hello"
        assert str(conn.remote_addr())


@pytest.mark.parametrize("what", [None, 3, "127.0.0.1:80"])
def test_H13_from_something_else(what: Any) -> None:
    with pytest.raises(TypeError, match=r"sock must be a socket"):
        gtcp.Conn.from_socket(what)


def test_H13_from_a_datagram_socket() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with pytest.raises(TypeError, match="stream socket"):
            gtcp.Conn.from_socket(sock)
        assert sock.fileno() >= 0


def test_H13_from_a_closed_socket() -> None:
    sock = socket.socket()
    sock.close()
    with pytest.raises(ValueError, match="this one is closed"):
        gtcp.Conn.from_socket(sock)


@pytest.mark.parametrize("kind", [gtcp.Conn, gtcp.aio.Conn], ids=["Conn", "aio.Conn"])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["tcp", "unix"])
def test_H13_from_a_socket_that_is_not_connected(kind: Any, family: int, tmp_path: Any) -> None:
    with socket.socket(family) as sock:
        address: Any = ("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "socket")
        for words, change in (("no peer", None), ("no peer", sock.bind), ("this one listens at", sock.listen)):
            if change is not None:
                change(*[address] if change == sock.bind else [])
            with pytest.raises(ValueError, match=words):
                kind.from_socket(sock)
            assert sock.fileno() >= 0


def test_H13_from_a_socket_that_is_still_connecting() -> None:
    with deaf_address() as address, socket.socket() as sock:
        host, _, port = address.rpartition(":")
        sock.setblocking(False)
        sock.connect_ex((host, int(port)))
        with pytest.raises(ValueError, match="no peer"):
            gtcp.Conn.from_socket(sock)


def test_H13_from_a_socket_whose_peer_is_gone() -> None:
    """It was a connection: the first call tells what became of it."""
    with socket_pair() as (ours, theirs):
        reset(theirs)
        eventually(lambda: select.select([ours], [], [], 0)[0])
        with gtcp.Conn.from_socket(ours) as conn, pytest.raises(gtcp.ResetError):
            conn.recv(1, timeout=LONG)


def test_a_lease_is_made_by_its_pool_only() -> None:
    with socket_pair() as (ours, _):
        with pytest.raises(TypeError, match="a PoolConn comes from a pool"):
            gtcp.PoolConn.from_socket(ours)
        assert ours.fileno() >= 0


def test_addresses(make_conn: Maker) -> None:
    conn, far = make_conn()
    assert str(conn.local_addr()) == "{}:{}".format(*far.getpeername())
    assert str(conn.remote_addr()) == "{}:{}".format(*far.getsockname())
    assert conn.remote_addr().host == "127.0.0.1"
    assert conn.remote_addr().port == far.getsockname()[1]


def test_repr_tells_the_ends_and_the_state(make_conn: Maker) -> None:
    conn, _ = make_conn()
    kind = f"{conn.__class__.__module__}.{conn.__class__.__name__}"
    assert repr(conn) == f"<{kind} {conn.local_addr()} -> {conn.remote_addr()}>"
    conn.close()
    assert re.fullmatch(rf"<{kind} closed>", repr(conn))


def test_fileno_is_the_socket(make_conn: Maker) -> None:
    conn, far = make_conn()
    with socket.socket(fileno=os.dup(conn.fileno())) as sock:
        assert sock.getpeername() == far.getsockname()


def test_no_attributes_by_mistake(make_conn: Maker) -> None:
    conn, _ = make_conn()
    with pytest.raises(AttributeError):
        conn.timeout = 5  # type: ignore[attr-defined]
