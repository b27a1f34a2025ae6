"""A failed exchange that is owed its reply: no other exchange gets that, and a receive puts the connection in step."""

from collections.abc import Callable

import pytest

import gtcp
from contract.makers import Link, Maker
from contract.operations import EXCHANGES
from support.calls import Call
from support.peers import frame, read, read_frame
from support.timing import LONG, SHORT, quick

OPTION = gtcp.PkgOption(4)
PKGS = pytest.mark.parametrize("name", EXCHANGES)
MUCH = bytes(8 << 20)  # more than the buffers between two sockets hold


def request(name: str, data: bytes) -> bytes:
    """What the exchange sends, or what has to come as its reply."""
    return data if name == "send_recv" else frame(data, 4)


def receive(conn: gtcp.Conn, name: str) -> bytes:
    return conn.recv(5, timeout=LONG) if name == "send_recv" else conn.recv_pkg(OPTION, timeout=LONG)


def refused(call: Callable[[], object]) -> None:
    with quick(), pytest.raises(gtcp.BrokenError, match="owed its reply"):
        call()


def goes_on(link: Link, name: str) -> None:
    """The next exchange gets its own reply, and nothing has been sent before it."""
    conn, far = link
    call = Call(EXCHANGES[name], conn, b"mine?", LONG)
    assert read(far, len(request(name, b"mine?"))) == request(name, b"mine?")
    far.sendall(request(name, b"mine!"))
    assert call.result() in (b"mine!", [b"mine!"])


@PKGS
def test_E5_a_late_reply_is_received_and_reaches_no_other_exchange(make_conn: Maker, name: str) -> None:
    conn, far = link = make_conn()
    with pytest.raises(gtcp.Timeout):
        EXCHANGES[name](conn, b"late?", SHORT / 2)
    assert read(far, len(request(name, b"late?"))) == request(name, b"late?")
    for part in (b"", request(name, b"late!")[:3], request(name, b"late!")[3:]):
        far.sendall(part)
        for exchange in EXCHANGES.values():
            refused(lambda exchange=exchange: exchange(conn, b"other", LONG))
    assert receive(conn, name) == b"late!"
    goes_on(link, name)


@PKGS
def test_E5_exchanges_that_queue_behind_a_failed_one_do_not_get_its_reply(make_conn: Maker, name: str) -> None:
    conn, far = link = make_conn()
    first = Call(EXCHANGES[name], conn, b"first", 3 * SHORT)
    assert read(far, len(request(name, b"first"))) == request(name, b"first")
    queued = [Call(exchange, conn, b"other", LONG) for exchange in EXCHANGES.values()]
    with pytest.raises(gtcp.Timeout):
        first.result()
    for call in queued:
        refused(call.result)
    far.sendall(request(name, b"first"))
    assert receive(conn, name) == b"first"
    goes_on(link, name)


@PKGS
def test_E5_an_exchange_that_sent_nothing_is_owed_nothing(make_conn: Maker, name: str) -> None:
    conn, far = link = make_conn()
    first = Call(conn.send_recv_pkg, b"first", timeout=LONG)
    assert read_frame(far) == b"first"
    for exchange in EXCHANGES.values():
        with pytest.raises(gtcp.Timeout):
            exchange(conn, b"other", SHORT / 5)
    far.sendall(frame(b"reply"))
    assert first.result() == b"reply"
    goes_on(link, name)


def test_E5_a_batch_is_owed_the_replies_that_are_missing(make_conn: Maker) -> None:
    conn, far = link = make_conn()
    batch = Call(conn.send_recv_pkgs, [b"1", b"2", b"3"], OPTION, timeout=3 * SHORT)
    assert [read_frame(far, 4) for _ in range(3)] == [b"1", b"2", b"3"]
    far.sendall(frame(b"one", 4))
    with pytest.raises(gtcp.Timeout) as late:
        batch.result()
    assert (late.value.sent, late.value.replies) == (3, [b"one"])
    far.sendall(frame(b"two", 4) + frame(b"three", 4))
    refused(lambda: conn.send_recv_pkg(b"?", OPTION, timeout=LONG))
    assert conn.recv_pkg(OPTION, timeout=LONG) == b"two"
    refused(lambda: conn.send_recv_pkg(b"?", OPTION, timeout=LONG))
    assert conn.recv_pkgs(1, OPTION, timeout=LONG) == [b"three"]
    goes_on(link, "send_recv_pkgs")


def test_E5_a_request_that_left_in_part_can_be_brought_to_its_end(make_conn: Maker) -> None:
    conn, far = link = make_conn(receive_buffer=4096)
    with pytest.raises(gtcp.Timeout) as late:
        conn.send_recv(MUCH, 5, timeout=SHORT)
    assert late.value.sent
    refused(lambda: conn.send_recv(b"?", 5, timeout=LONG))
    rest = Call(conn.send, MUCH[late.value.sent :], timeout=LONG)
    assert read(far, len(MUCH)) == MUCH
    rest.result()
    refused(lambda: conn.send_recv(b"?", 5, timeout=LONG))
    far.sendall(b"whole")
    assert conn.recv(5, timeout=LONG) == b"whole"
    goes_on(link, "send_recv")


def test_E5_a_receive_that_timed_out_brings_nothing_in_step(make_conn: Maker) -> None:
    conn, far = link = make_conn()
    with pytest.raises(gtcp.Timeout):
        conn.send_recv_pkg(b"late?", OPTION, timeout=0)
    far.sendall(frame(b"one", 4)[:5])
    for receive_late in (lambda t: conn.recv_pkg(OPTION, timeout=t), lambda t: conn.recv_pkgs(2, OPTION, timeout=t)):
        with pytest.raises(gtcp.Timeout):
            receive_late(SHORT / 5)
        refused(lambda: conn.send_recv_pkg(b"?", OPTION, timeout=LONG))
    far.sendall(frame(b"one", 4)[5:])
    with pytest.raises(gtcp.Timeout):
        conn.recv_pkgs(2, OPTION, timeout=SHORT / 5)  # has the reply, and puts it back
    refused(lambda: conn.send_recv_pkg(b"?", OPTION, timeout=LONG))
    assert conn.recv_pkg(OPTION, timeout=LONG) == b"one"
    assert read_frame(far, 4) == b"late?"
    goes_on(link, "send_recv_pkg")
