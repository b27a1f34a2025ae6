"""pkg_handler: the loop of the core keeps what `recv_pkg` and `send_pkg` promise, gathered sends or not."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest

import gtcp
from support.calls import Call
from support.timing import LONG, SHORT, takes

Ends = tuple[gtcp.Conn, gtcp.Conn]


@pytest.fixture(params=[False, True], ids=["at once", "gathered"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """The handler's end and the client's."""
    here, there = socket.socketpair()
    with gtcp.Conn.from_socket(here) as served, gtcp.Conn.from_socket(there) as client:
        if request.param:
            served._gather_sends()
        yield served, client


def serve(conn: gtcp.Conn, function: Callable[[bytes], object], option: gtcp.PkgOption | None = None) -> Call[None]:
    return Call(gtcp.pkg_handler(function, option), conn)  # type: ignore[arg-type]


def test_replies_of_every_size_and_kind_in_order(ends: Ends) -> None:
    option = gtcp.PkgOption(header_size=3)
    requests = [b"", b"x", bytes(100), bytes(16381), bytes(16382), bytes(70000), b"view", b"array", b"last"]

    def answer(package: bytes) -> bytes | bytearray | memoryview | None:
        if package == b"view":
            return memoryview(b"w e i v")[::2]
        return bytearray(b"yarra") if package == b"array" else package

    served, client = ends
    handling = serve(served, answer, option)
    expected = [*requests[:6], b"weiv", b"yarra", b"last"]
    assert client.send_recv_pkgs(requests * 20, option, timeout=LONG) == expected * 20
    client.close()
    assert handling.result() is None


def test_what_the_function_raises_leaves_the_handler_after_the_earlier_replies(ends: Ends) -> None:
    def answer(package: bytes) -> bytes:
        if package == b"3":
            raise gtcp.EOF
        return package

    served, client = ends
    client.send_pkgs([b"1", b"2", b"3", b"4"])
    with pytest.raises(gtcp.EOF):
        gtcp.pkg_handler(answer)(served)
    served.flush()
    assert client.recv_pkgs(2, timeout=LONG) == [b"1", b"2"]
    assert served.recv_pkg(timeout=0) == b"4"


def test_a_reply_of_the_wrong_type_or_size_harms_nothing(ends: Ends) -> None:
    replies: list[object] = [7, bytes(256), b"fine"]
    option = gtcp.PkgOption(header_size=1)
    handler = gtcp.pkg_handler(lambda _: replies.pop(0), option)  # type: ignore[arg-type,return-value]
    served, client = ends
    client.send_pkgs([b"1", b"2", b"3"], option)
    client.close_write()
    with pytest.raises(TypeError, match="bytes-like"):
        handler(served)
    with pytest.raises(gtcp.LimitError, match="256 bytes exceeds max_data_size 255"):
        handler(served)
    handler(served)
    served.flush()
    assert client.recv_pkg(option, timeout=LONG) == b"fine"


def test_a_request_that_is_too_long_breaks_the_connection(ends: Ends) -> None:
    served, client = ends
    client.send_pkgs([b"fine", bytes(11)])
    seen: list[bytes] = []
    with pytest.raises(gtcp.LimitError, match="11 bytes exceeds max_data_size 10"):
        gtcp.pkg_handler(seen.append, gtcp.PkgOption(max_data_size=10))(served)
    assert seen == [b"fine"]
    with pytest.raises(gtcp.BrokenError):
        served.send(b"x")


def test_a_request_that_is_cut_off(ends: Ends) -> None:
    served, client = ends
    client.send(b"\0\1a\0\3bc")
    client.close()
    seen: list[bytes] = []
    with pytest.raises(gtcp.EOF) as caught:
        gtcp.pkg_handler(seen.append)(served)
    assert seen == [b"a"]
    assert (caught.value.partial, caught.value.expected) == (b"bc", 3)


def test_deadlines_of_the_connection_hold(ends: Ends) -> None:
    served, client = ends
    client.send_pkgs([b"1", b"2"])
    with takes(SHORT):
        served.set_deadline_recv(time.monotonic() + SHORT)
        with pytest.raises(gtcp.Timeout):
            gtcp.pkg_handler(lambda package: package)(served)
    assert client.recv_pkgs(2, timeout=LONG) == [b"1", b"2"]


@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_function_that_closes_the_connection(ends: Ends, end: str) -> None:
    served, client = ends

    def answer(package: bytes) -> bytes:
        getattr(served, end)()
        return package

    client.send_pkgs([b"1", b"2"])
    with pytest.raises(gtcp.ClosedError):
        gtcp.pkg_handler(answer)(served)


def test_a_function_that_receives_and_sends_itself(ends: Ends) -> None:
    served, client = ends

    def answer(package: bytes) -> bytes:
        served.send_pkg(b"first")
        return served.recv_line(timeout=LONG) + package

    client.send(b"\0\1!line\n\0\1?text\n")
    client.close_write()
    gtcp.pkg_handler(answer)(served)
    served.flush()
    assert client.recv_pkgs(4, timeout=LONG) == [b"first", b"line!", b"first", b"text?"]
