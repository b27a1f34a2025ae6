"""The package functions: dial, do one thing, close."""

import socket
from collections.abc import Callable

import pytest

import gtcp
from net.ends import Serve
from net.handlers import address_of, echo, echo_packages
from support.calls import Call
from support.peers import Peer, closed_address, frame, free_port, read_frame, silent
from support.timing import LONG, SHORT, eventually, quick, takes

OPTION = gtcp.PkgOption(4)


def collecting(seen: list[bytes]) -> Callable[[socket.socket], None]:
    """A peer that notes everything up to the clean end of each connection."""

    def script(sock: socket.socket) -> None:
        seen.append(b"".join(iter(lambda: sock.recv(65536), b"")))

    return script


@pytest.mark.parametrize(
    ("call", "wire"),
    [
        (lambda addr: gtcp.send(addr, b"hello"), b"hello"),
        (lambda addr: gtcp.send(addr, memoryview(b"hello"), timeout=LONG), b"hello"),
        (lambda addr: gtcp.send_with_timeout(addr, b"hello", LONG), b"hello"),
        (lambda addr: gtcp.send_pkg(addr, b"hello"), frame(b"hello")),
        (lambda addr: gtcp.send_pkg(addr, b"hello", OPTION, timeout=LONG), frame(b"hello", 4)),
        (lambda addr: gtcp.send_pkg_with_timeout(addr, b"hello", LONG, OPTION), frame(b"hello", 4)),
    ],
    ids=["send", "send timeout", "send_with_timeout", "send_pkg", "send_pkg option", "send_pkg_with_timeout"],
)
def test_send_and_close(call: Callable[[str], None], wire: bytes) -> None:
    seen: list[bytes] = []
    with Peer(collecting(seen)) as peer:
        assert call(peer.address) is None  # type: ignore[func-returns-value]
        eventually(lambda: seen)
    assert seen == [wire]


@pytest.mark.parametrize(
    "call",
    [
        lambda addr: gtcp.send_recv(addr, b"hello"),
        lambda addr: gtcp.send_recv(addr, b"hello", 5),
        lambda addr: gtcp.send_recv(addr, b"hello", 0, gtcp.Retry(1), timeout=LONG),
        lambda addr: gtcp.send_recv_with_timeout(addr, b"hello", -1, LONG),
    ],
    ids=["all", "n", "0", "with_timeout"],
)
def test_send_recv(serve: Serve, call: Callable[[str], bytes]) -> None:
    assert call(address_of(serve(echo))) == b"hello"


def test_send_recv_pkg(serve: Serve) -> None:
    address = address_of(serve(echo_packages))
    assert gtcp.send_recv_pkg(address, b"hello") == b"hello"
    assert gtcp.send_recv_pkg(address, b"", timeout=LONG) == b""
    assert gtcp.send_recv_pkg_with_timeout(address, b"hello", LONG) == b"hello"


@pytest.mark.parametrize(
    "call",
    [
        lambda addr: gtcp.send_recv(addr, b"x", timeout=SHORT),
        lambda addr: gtcp.send_recv_pkg(addr, b"x", timeout=SHORT),
        lambda addr: gtcp.send_recv_with_timeout(addr, b"x", 5, SHORT),
        lambda addr: gtcp.send_recv_pkg_with_timeout(addr, b"x", SHORT),
        lambda addr: gtcp.send(addr, bytes(64 << 20), timeout=SHORT),
        lambda addr: gtcp.send_with_timeout(addr, bytes(64 << 20), SHORT),
        lambda addr: gtcp.send_pkg(addr, bytes(64 << 20), OPTION, timeout=SHORT),
        lambda addr: gtcp.send_pkg_with_timeout(addr, bytes(64 << 20), SHORT, OPTION),
    ],
    ids=[
        *("send_recv", "send_recv_pkg", "send_recv_with_timeout", "send_recv_pkg_with_timeout"),
        *("send", "send_with_timeout", "send_pkg", "send_pkg_with_timeout"),
    ],
)
def test_D1_one_timeout_for_all_of_it(call: Callable[[str], object]) -> None:
    # The connection waits in the listener's queue: nobody reads and nobody replies.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = "{}:{}".format(*listener.getsockname())
        with takes(SHORT), pytest.raises(gtcp.Timeout):
            call(address)


def test_B12_too_long_a_package_says_so() -> None:
    with Peer(silent) as peer, pytest.raises(gtcp.LimitError, match="package of 65536 bytes"):
        gtcp.send_pkg(peer.address, bytes(65536))


def test_without_a_retry_a_refusal_is_final() -> None:
    with closed_address() as address, quick(), pytest.raises(gtcp.RefusedError):
        gtcp.send(address, b"x")


def test_a_retry_dials_again() -> None:
    port = free_port()
    sending = Call(gtcp.send_recv_pkg, f"127.0.0.1:{port}", b"hello", gtcp.PkgOption(retry=gtcp.Retry(10_000, 0.001)))
    sending.sleeping()

    def reply(sock: socket.socket) -> None:
        sock.sendall(frame(read_frame(sock)))
        silent(sock)

    with Peer(reply, port=port):
        assert sending.result() == b"hello"


def test_retries_end_with_their_count() -> None:
    with closed_address() as address, takes(3 * SHORT / 2), pytest.raises(gtcp.RefusedError):
        gtcp.send(address, b"x", gtcp.Retry(3, SHORT / 2))


def test_a_retry_never_waits_past_the_timeout() -> None:
    with closed_address() as address, quick(), pytest.raises(gtcp.RefusedError):
        gtcp.send(address, b"x", gtcp.Retry(3, LONG), timeout=SHORT)
