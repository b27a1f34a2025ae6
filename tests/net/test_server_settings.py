"""Server: addresses, handlers and names (F12, F13, F16)."""

import errno
import gc
import socket
import threading
from typing import Any

import pytest

import gtcp
from net.ends import Serve
from net.handlers import address_of, echo
from support.peers import free_port
from support.timing import LONG, eventually

HAS_IPV6 = socket.has_ipv6 and socket.has_dualstack_ipv6()


@pytest.mark.parametrize("address", ["", ":0", gtcp.FREE_PORT_ADDRESS])
def test_any_free_port(serve: Serve, address: str) -> None:
    server = serve(echo, address)
    assert server.get_address() == address
    port = server.get_listened_port()
    assert 1 <= port <= 65535
    with gtcp.Conn(f"127.0.0.1:{port}", LONG) as conn:
        assert conn.send_recv(b"hello", timeout=LONG) == b"hello"


def test_the_stack_of_a_handlers_thread(serve: Serve) -> None:
    before = threading.stack_size()
    server = serve(echo, stack_size=256 << 10)
    with gtcp.Conn(address_of(server), LONG) as conn:
        assert conn.send_recv(b"hello", timeout=LONG) == b"hello"
    eventually(lambda: threading.stack_size() == before)  # whoever starts a thread may be slower than the thread


def test_a_server_cannot_be_made_anew(serve: Serve) -> None:
    server = serve(echo)
    with pytest.raises(RuntimeError, match="already"):
        server.__init__("", echo)  # type: ignore[misc]
    with gtcp.Conn(address_of(server), LONG) as conn:
        assert conn.send_recv(b"hello", timeout=LONG) == b"hello"
    address = address_of(server)
    server.close()
    with pytest.raises(gtcp.RefusedError):
        gtcp.Conn(address, LONG)


@pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")
def test_F16_every_interface_means_both_families(serve: Serve) -> None:
    server = serve(lambda conn: conn.send(str(conn.remote_addr()).encode()), ":0")
    port = server.get_listened_port()
    for host in ("127.0.0.1", "[::1]"):
        with gtcp.Conn(f"{host}:{port}", LONG) as conn:
            seen = conn.recv(timeout=LONG).decode()
            assert seen == str(conn.local_addr())  # not ::ffff:127.0.0.1


@pytest.mark.parametrize("asks", ["the system has none", "no address of it"])
def test_F16_without_ipv6_every_interface_means_ipv4(serve: Serve, monkeypatch: pytest.MonkeyPatch, asks: str) -> None:
    def bind(sock: socket.socket, name: object) -> None:
        if sock.family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "none")
        raw_bind(sock, name)

    raw_bind = socket.socket.bind
    with monkeypatch.context() as patched:
        if asks == "no address of it":
            patched.setattr(socket, "has_dualstack_ipv6", lambda: True)
            patched.setattr(socket.socket, "bind", bind)
        else:
            patched.setattr(socket, "has_dualstack_ipv6", lambda: False)
        server = serve(echo, ":0")
    assert address_of(server) == f"0.0.0.0:{server.get_listened_port()}"
    with gtcp.Conn(f"127.0.0.1:{server.get_listened_port()}", LONG) as conn:
        assert conn.send_recv(b"hello", timeout=LONG) == b"hello"


@pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")
def test_F16_one_family_only(serve: Serve) -> None:
    server = serve(echo, "[::1]:0")
    assert address_of(server) == f"[::1]:{server.get_listened_port()}"
    with pytest.raises(gtcp.RefusedError):
        gtcp.dial(f"127.0.0.1:{server.get_listened_port()}", LONG)


@pytest.mark.parametrize("address", ["127.0.0.1:0", ("127.0.0.1", 0), gtcp.Address("127.0.0.1", 0), "localhost:0"])
def test_forms_of_addresses(serve: Serve, address: Any) -> None:
    server = serve(echo, address)
    assert server.get_address() == address
    with gtcp.Conn(server.get_listened_address() or "", LONG) as conn:
        assert conn.send_recv(b"hello", timeout=LONG) == b"hello"


def test_a_name_that_does_not_exist() -> None:
    server = gtcp.Server("no-such-host.invalid:80", echo)
    with pytest.raises(gtcp.ResolveError, match=r"no-such-host\.invalid"):
        server.start()


def test_nothing_is_listened_on_before_the_start() -> None:
    server = gtcp.Server("127.0.0.1:0", echo)
    assert server.get_listened_address() is None
    assert server.get_listened_port() == -1
    assert repr(server) == "<gtcp.Server not listening>"


def test_repr_tells_the_address(serve: Serve) -> None:
    server = serve(echo)
    assert repr(server) == f"<gtcp.Server 127.0.0.1:{server.get_listened_port()}>"


def test_set_address_counts_from_the_next_start() -> None:
    first, second = gtcp.get_free_ports(2)
    server = gtcp.Server(f"127.0.0.1:{first}", echo)
    with server:
        server.set_address(f"127.0.0.1:{second}")
        assert server.get_listened_port() == first
    with server:
        assert server.get_listened_port() == second


@pytest.mark.parametrize(
    ("address", "error"),
    [("h:99999", ValueError), ("::1:80", ValueError), ("h", ValueError), (None, TypeError), (b":80", TypeError)],
)
def test_bad_addresses_are_refused_at_once(address: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        gtcp.Server(address, echo)
    server = gtcp.Server("127.0.0.1:1", echo)
    with pytest.raises(error):
        server.set_address(address)
    assert server.get_address() == "127.0.0.1:1"


@pytest.mark.parametrize("handler", [1, "echo", object()])
def test_a_handler_that_cannot_be_called(handler: Any) -> None:
    with pytest.raises(TypeError, match="callable"):
        gtcp.Server("127.0.0.1:0", handler)
    server = gtcp.Server("127.0.0.1:0", echo)
    with pytest.raises(TypeError, match="callable"):
        server.set_handler(handler)


def test_a_handler_that_nobody_would_await() -> None:
    async def serve(_: gtcp.Conn) -> None:
        raise AssertionError

    with pytest.raises(TypeError, match="plain function"):
        gtcp.Server("127.0.0.1:0", serve)
    with pytest.raises(TypeError, match="on_connect must be a plain function"):
        gtcp.Server("127.0.0.1:0", echo, on_connect=serve)


def test_set_handler_counts_from_the_next_connection(serve: Serve) -> None:
    server = serve(lambda conn: conn.send(b"one"))
    for reply in (b"one", b"two"):
        with gtcp.Conn(address_of(server), LONG) as conn:
            assert conn.recv(3, timeout=LONG) == reply
        server.set_handler(lambda conn: conn.send(b"two"))


def test_the_handler_knows_both_ends(serve: Serve) -> None:
    server = serve(lambda conn: conn.send(f"{conn.local_addr()} {conn.remote_addr()}".encode()))
    with gtcp.Conn(address_of(server), LONG) as conn:
        assert conn.recv(timeout=LONG).decode() == f"{conn.remote_addr()} {conn.local_addr()}"


def test_a_server_by_name() -> None:
    server = gtcp.Server("127.0.0.1:0", echo, "mine")
    try:
        assert gtcp.get_server("mine") is server
        assert server.name == "mine"
        with pytest.raises(ValueError, match="there is a server named 'mine' already"):
            gtcp.Server(name="mine")
        assert gtcp.get_server("mine") is server
    finally:
        server.close()
    again = gtcp.get_server("mine")
    assert again is not server
    again.close()


def test_get_server_makes_one_and_gives_it_again() -> None:
    server = gtcp.get_server("made")
    try:
        assert gtcp.get_server("made") is server
        server.set_address(f"127.0.0.1:{free_port()}")
        server.set_handler(echo)
        with server, gtcp.Conn(address_of(server), LONG) as conn:
            assert conn.send_recv(b"hello", timeout=LONG) == b"hello"
    finally:
        server.close()


def test_the_default_name() -> None:
    server = gtcp.get_server()
    assert server.name == "default"
    assert gtcp.get_server("default") is server
    server.close()


def test_servers_without_a_name_are_in_no_register() -> None:
    server = gtcp.Server("127.0.0.1:0", echo)
    assert server.name is None
    assert gtcp.get_server("x") is not server
    gtcp.get_server("x").close()
    del server
    gc.collect()
