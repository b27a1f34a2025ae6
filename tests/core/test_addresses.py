"""What is an address and what is not (A6, A7), and the free ports."""

import pickle
import socket
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gtcp
from gtcp._address import of_socket, parse

GOOD: list[tuple[Any, str, int]] = [
    ("127.0.0.1:8999", "127.0.0.1", 8999),
    ("example.org:80", "example.org", 80),
    ("Example.ORG:80", "Example.ORG", 80),
    ("localhost:1", "localhost", 1),
    ("h:65535", "h", 65535),
    ("h:00080", "h", 80),
    (":80", "", 80),
    ("[::1]:80", "::1", 80),
    ("[fe80::1%eth0]:80", "fe80::1%eth0", 80),
    ("bücher.example:80", "xn--bcher-kva.example", 80),
    (("h", 80), "h", 80),
    (("::1", 80), "::1", 80),
    (("", 80), "", 80),
    (gtcp.Address("h", 80), "h", 80),
]

BAD: list[Any] = [
    "",
    ":",
    "h",
    "h:",
    "8999",
    ":0",
    "h:0",
    "h:65536",
    "127.0.0.1:99999",
    "h:100000",
    "h:-1",
    "h:8_0",
    "h:１２",  # noqa: RUF001 (digits of another script are the point)
    "h:٣",
    "h: 80",
    "h:80 ",
    "h:80\n",
    "h:+80",
    "h:0x50",
    "h:8e1",
    "h:http",
    "::1:80",
    "::1",
    "[::1]",
    "[::1]80",
    "[::1:80",
    "::1]:80",
    "[]:80",
    "[127.0.0.1]:80",
    "http://h:80",
    "h:80/",
    "h/x:80",
    "u@h:80",
    "a b:80",
    " h:80",
    "h\n:80",
    "h\0:80",
    "h\0.example:80",
    "h\x7f:80",
    "h" * 64 + ":80",
    "h." * 127 + "h:80",
    "x" * 5000 + ":80",
    "ü" * 5000 + ":80",
    "h:" + "1" * 5000,
    ("h", 0),
    ("h", 65536),
    ("h", -1),
    ("h\0", 80),
    ("a b", 80),
]

WRONG_TYPE: list[Any] = [
    None,
    80,
    b"h:80",
    bytearray(b"h:80"),
    ("h",),
    ("h", 80, 0),
    ("h", "80"),
    ("h", 80.0),
    ("h", True),
    ("h", None),
    (b"h", 80),
    ["h", 80],
]


def short(value: object) -> str:
    return ascii(value)[:30]


@pytest.mark.parametrize(("addr", "host", "port"), GOOD, ids=short)
def test_A7_good_addresses(addr: Any, host: str, port: int) -> None:
    assert parse(addr) == gtcp.Address(host, port)


@pytest.mark.parametrize("addr", BAD, ids=short)
def test_A7_bad_addresses(addr: Any) -> None:
    with pytest.raises(ValueError, match=r"address|port|host name"):
        parse(addr)


@pytest.mark.parametrize("addr", WRONG_TYPE, ids=short)
def test_A7_not_an_address_at_all(addr: Any) -> None:
    with pytest.raises(TypeError, match=r"address|port"):
        parse(addr)


@pytest.mark.parametrize(
    "use",
    [
        gtcp.dial,
        gtcp.Conn,
        gtcp.PoolConn,
        gtcp.Pool,
        gtcp.get_pool,
        lambda addr: gtcp.send(addr, b"x"),
        lambda addr: gtcp.send_pkg(addr, b"x"),
    ],
    ids=["dial", "Conn", "PoolConn", "Pool", "get_pool", "send", "send_pkg"],
)
def test_A7_everything_that_dials_refuses_them(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket(*_: object, **__: object) -> None:
        raise AssertionError("a socket was made")

    monkeypatch.setattr(socket, "socket", no_socket)
    monkeypatch.setattr(socket, "getaddrinfo", no_socket)
    for addr in [*BAD, *WRONG_TYPE]:
        with pytest.raises((ValueError, TypeError)):
            use(addr)


@pytest.mark.parametrize(
    ("addr", "host", "port"), [("", "", 0), (":0", "", 0), ("127.0.0.1:0", "127.0.0.1", 0), (("::1", 0), "::1", 0)]
)
def test_A7_port_0_is_for_listening(addr: Any, host: str, port: int) -> None:
    assert parse(addr, listening=True) == gtcp.Address(host, port)
    with pytest.raises(ValueError, match=r"port"):
        parse(addr)


@pytest.mark.parametrize("addr", [addr for addr in BAD if "0" not in str(addr) or "80" in str(addr)][1:], ids=short)
def test_A7_a_server_refuses_them_too(addr: Any) -> None:
    with pytest.raises(ValueError, match=r"address|port|host name"):
        gtcp.Server(addr, print)


def test_A6_a_hostile_name_costs_nothing() -> None:
    start = time.thread_time()
    for host in ("ü" * 5000, "a" * 5000, "\0" * 5000, "ü." * 2500):
        with pytest.raises(ValueError, match="host name"):
            parse(f"{host}:80")
    assert time.thread_time() - start < 0.02


@pytest.mark.parametrize("addr", ["a..b:80", ".:80", ".a:80"])
def test_A6_names_with_empty_labels(addr: str) -> None:
    with pytest.raises(ValueError, match=r"host name|label|idna"):
        gtcp.dial(addr, 1.0)


@given(st.text("a9.:[]-_ \0\nüß１", max_size=20), st.text("0123456789_+- \n１a", max_size=8))  # noqa: RUF001
def test_A7_what_is_accepted_is_read_back_the_same(host: str, port: str) -> None:
    try:
        address = parse(f"{host}:{port}")
    except ValueError:
        return
    assert port.isascii()
    assert port.isdigit()
    assert 1 <= int(port) <= 65535
    assert parse(str(address)) == address


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (gtcp.Address("127.0.0.1", 8999), "127.0.0.1:8999"),
        (gtcp.Address("::1", 80), "[::1]:80"),
        (gtcp.Address("", 80), ":80"),
    ],
)
def test_an_address_reads_as_people_write_it(address: gtcp.Address, text: str) -> None:
    assert str(address) == text
    assert parse(text) == address


def test_addresses_are_values() -> None:
    assert gtcp.Address("h", 80) == gtcp.Address(host="h", port=80)
    assert len({gtcp.Address("h", 80), gtcp.Address("h", 80), gtcp.Address("h", 81)}) == 2
    address = gtcp.Address("h", 80)
    assert address != "h:80"
    assert pickle.loads(pickle.dumps(address)) == address
    with pytest.raises(AttributeError, match="does not change: port"):
        address.port = 81  # type: ignore[misc]
    with pytest.raises(AttributeError, match="does not change: host"):
        del address.host
    assert str(address) == "h:80"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (("127.0.0.1", 80), "127.0.0.1:80"),
        (("::1", 80, 0, 0), "[::1]:80"),
        (("::ffff:10.0.0.1", 80, 0, 0), "10.0.0.1:80"),
        (("::ffff:1", 80, 0, 0), "[::ffff:1]:80"),
    ],
)
def test_the_names_of_sockets(name: object, text: str) -> None:
    assert str(of_socket(name)) == text


def test_the_free_port_address() -> None:
    assert gtcp.FREE_PORT_ADDRESS == ":0"


def test_free_ports_differ_and_can_be_bound() -> None:
    ports = gtcp.get_free_ports(20)
    assert len(set(ports)) == 20
    for port in [*ports, gtcp.get_free_port()]:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", port))


def test_no_free_ports() -> None:
    assert gtcp.get_free_ports(0) == []


@pytest.mark.parametrize(("count", "error"), [(-1, ValueError), (True, TypeError), (1.0, TypeError), ("1", TypeError)])
def test_bad_counts_of_free_ports(count: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="count"):
        gtcp.get_free_ports(count)
