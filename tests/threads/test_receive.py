"""Several threads and the receiving end of one connection.

Row ids are those of the project's table of faults.
"""

import socket
import time
from collections.abc import Callable

import pytest

import gtcp
from conftest import MakePeer
from support.crew import Worker, results, together
from support.peers import echo, frame, read_frame, socket_pair
from support.timing import LONG, quick

RECEIVE: dict[str, Callable[[gtcp.Conn], object]] = {
    "recv": lambda conn: conn.recv(1),
    "recv some": lambda conn: conn.recv(0),
    "recv burst": lambda conn: conn.recv(-1),
    "recv_into": lambda conn: conn.recv_into(bytearray(4)),
    "recv_line": lambda conn: conn.recv_line(),
    "recv_till": lambda conn: conn.recv_till(b";"),
    "recv_pkg": lambda conn: conn.recv_pkg(),
    "recv_pkgs": lambda conn: conn.recv_pkgs(),
    "packages": lambda conn: next(conn.packages()),
    "lines": lambda conn: next(conn.lines()),
    "send_recv": lambda conn: conn.send_recv(b"x", 1),
    "send_recv_pkg": lambda conn: conn.send_recv_pkg(b"x"),
    "send_recv_pkgs": lambda conn: conn.send_recv_pkgs([b"x"]),
}


@pytest.mark.parametrize("name", RECEIVE)
def test_H3_a_second_receiver_is_refused_and_harms_nothing(name: str) -> None:
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        first = Worker(lambda: conn.recv_pkg(timeout=LONG))
        first.asleep()
        with quick(), pytest.raises(gtcp.ConcurrencyError):
            RECEIVE[name](conn)
        theirs.sendall(frame(b"for the first"))
        assert first.result() == b"for the first"
        # Nothing of a refused exchange has left either.
        conn.send_pkg(b"next")
        assert read_frame(theirs) == b"next"
        theirs.sendall(frame(b"for anybody"))
        assert conn.recv_pkg() == b"for anybody"


@pytest.mark.parametrize("name", [name for name in RECEIVE if not name.startswith("send")])
def test_H3_a_receiver_beside_an_exchange_is_refused(name: str) -> None:
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        exchange = Worker(lambda: conn.send_recv_pkg(b"question", timeout=LONG))
        assert read_frame(theirs) == b"question"
        exchange.asleep()
        with quick(), pytest.raises(gtcp.ConcurrencyError):
            RECEIVE[name](conn)
        theirs.sendall(frame(b"answer"))
        assert exchange.result() == b"answer"


def test_H3_every_package_reaches_exactly_one_of_many_receivers() -> None:
    total = 2000
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:

        def receive() -> list[bytes]:
            mine: list[bytes] = []
            while True:
                try:
                    mine.append(conn.recv_pkg(timeout=LONG))
                except gtcp.ConcurrencyError:
                    time.sleep(0.0001)  # who does receive needs the interpreter
                except gtcp.EOF:
                    return mine

        def speak() -> list[bytes]:
            for i in range(total):
                theirs.sendall(frame(b"%d" % i))
            theirs.shutdown(socket.SHUT_WR)
            return []

        came = results(together([receive, receive, receive, speak]))
    assert sorted(int(body) for mine in came for body in mine) == list(range(total))
    assert all(mine == sorted(mine, key=int) for mine in came)


def test_H22_exchanges_of_eight_threads_each_get_their_own_reply(peer: MakePeer) -> None:
    def ask(conn: gtcp.Conn, who: int) -> None:
        for i in range(300):
            question = bytes([who]) * (i * 7 % 2000) + b"%d" % i
            assert conn.send_recv_pkg(question, timeout=LONG) == question

    with gtcp.Conn(peer(echo).address) as conn:
        results(together([lambda who=who: ask(conn, who) for who in range(8)]))  # type: ignore[misc]


def test_H22_pipelines_of_several_threads_each_get_their_own_replies(peer: MakePeer) -> None:
    def ask(conn: gtcp.Conn, who: int) -> None:
        for i in range(10):
            questions = [b"%d %d %d" % (who, i, j) for j in range(150)]
            assert conn.send_recv_pkgs(questions, timeout=LONG) == questions

    with gtcp.Conn(peer(echo).address) as conn:
        results(together([lambda who=who: ask(conn, who) for who in range(4)]))  # type: ignore[misc]
