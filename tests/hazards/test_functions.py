"""Hazards of the original's package functions (gtcp_func.go) that gtcp does not inherit.

The numbers are those of the project's list of hazards. H37 and H39 are about TLS.
"""

from collections.abc import Callable, Iterator

import pytest

import gtcp
from conftest import MakePeer
from support.peers import closed_address, deaf_address, echo, listen
from support.timing import SHORT, quick, takes

HUGE = bytes(16 << 20)
WIDE = gtcp.PkgOption(header_size=4)

CALLS: dict[str, Callable[[str], object]] = {
    "send": lambda address: gtcp.send_with_timeout(address, HUGE, SHORT),
    "send_recv": lambda address: gtcp.send_recv_with_timeout(address, HUGE, -1, SHORT),
    "send_pkg": lambda address: gtcp.send_pkg_with_timeout(address, HUGE, SHORT, WIDE),
    "send_recv_pkg": lambda address: gtcp.send_recv_pkg_with_timeout(address, HUGE, SHORT, WIDE),
}


@pytest.mark.parametrize("name", CALLS)
def test_H20_the_timeout_of_a_function_covers_the_dial(name: str) -> None:
    with deaf_address() as address, takes(SHORT), pytest.raises(gtcp.Timeout, match="connecting"):
        CALLS[name](address)


@pytest.fixture
def mute() -> Iterator[str]:
    """An address that accepts connections and neither reads nor says anything."""
    with listen() as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("name", CALLS)
def test_H20_the_timeout_of_a_function_covers_the_send(mute: str, name: str) -> None:
    with takes(SHORT), pytest.raises(gtcp.Timeout, match="sending"):
        CALLS[name](mute)


def test_H20_the_timeout_of_a_function_covers_the_reply(mute: str) -> None:
    with takes(SHORT), pytest.raises(gtcp.Timeout, match="receiving"):
        gtcp.send_recv_pkg_with_timeout(mute, b"x", SHORT)


def test_H38_a_failed_dial_leaves_a_handle_that_is_closed() -> None:
    """The original hands out a connection that is not nil and cannot be used."""
    conn = gtcp.Conn.__new__(gtcp.Conn)
    with closed_address() as address, quick(), pytest.raises(gtcp.RefusedError):
        conn.__init__(address)  # type: ignore[misc]
    assert conn.closed
    assert conn.fileno() == -1
    with pytest.raises(gtcp.ClosedError):
        conn.send(b"x")
    conn.close()


def test_H40_a_function_leaves_no_connection_behind(peer: MakePeer) -> None:
    echoing = peer(echo)
    assert gtcp.send_recv(echoing.address, b"x", 1) == b"x"
    assert gtcp.send_recv_pkg(echoing.address, b"x") == b"x"
    assert echoing.accepted == 2


def test_H41_free_ports_differ_from_each_other() -> None:
    ports = gtcp.get_free_ports(50)
    assert len(set(ports)) == 50
    assert all(0 < port < 65536 for port in ports)
