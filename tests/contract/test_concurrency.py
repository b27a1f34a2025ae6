"""Who may do what at the same time (H3), and what the one in the way gets."""

import threading
import time

import pytest

import gtcp
from contract.makers import Maker
from contract.operations import EXCHANGES, OPERATIONS, RECEIVES
from support.calls import Call
from support.peers import frame, read_frame
from support.timing import LONG, quick


@pytest.mark.parametrize("second", [*RECEIVES, *EXCHANGES])
def test_H3_a_second_receiver_is_refused_and_the_first_unharmed(make_conn: Maker, second: str) -> None:
    conn, far = make_conn()
    first = Call(conn.recv_pkg, timeout=LONG).sleeping()
    with quick(), pytest.raises(gtcp.ConcurrencyError, match="another call is receiving") as error:
        OPERATIONS[second](conn)
    assert isinstance(error.value, RuntimeError)
    far.sendall(frame(b"hello"))
    assert first.result() == b"hello"
    # Nothing of the refused call was sent, and the connection is as before.
    conn.send_pkg(b"fine")
    assert read_frame(far) == b"fine"


@pytest.mark.parametrize("name", EXCHANGES)
def test_H3_nobody_receives_into_an_exchange(make_conn: Maker, name: str) -> None:
    conn, far = make_conn()
    exchange = Call(EXCHANGES[name], conn, b"?", LONG).sleeping()
    with quick(), pytest.raises(gtcp.ConcurrencyError):
        conn.recv(timeout=LONG)
    far.sendall(b"hello" if name == "send_recv" else frame(b"hello", 4))
    assert exchange.result() in (b"hello", [b"hello"])


def test_H3_receivers_one_after_the_other(make_conn: Maker) -> None:
    conn, far = make_conn()
    count = 400
    received: list[bytes] = []
    lock = threading.Lock()

    def receive() -> None:
        while True:
            try:
                package = conn.recv_pkg(timeout=LONG)
            except gtcp.ConcurrencyError:
                time.sleep(0.0001)  # who does receive needs the interpreter
                continue
            except gtcp.EOF:
                return
            with lock:
                received.append(package)

    calls = [Call(receive) for _ in range(4)]
    for i in range(count):
        far.sendall(frame(str(i).encode()))
    far.close()
    for call in calls:
        call.result()
    assert sorted(received, key=int) == [str(i).encode() for i in range(count)]


def test_a_sender_does_not_wait_for_a_receiver(make_conn: Maker) -> None:
    conn, far = make_conn()
    receiving = Call(conn.recv_pkg, timeout=LONG).sleeping()
    with quick():
        conn.send_pkg(b"hello")
    assert read_frame(far) == b"hello"
    far.sendall(frame(b"you"))
    assert receiving.result() == b"you"


def test_an_exchange_waits_for_its_turn(make_conn: Maker) -> None:
    conn, far = make_conn()
    first = Call(conn.send_recv_pkg, b"1", timeout=LONG).sleeping()
    second = Call(conn.send_recv_pkg, b"2", timeout=LONG).sleeping()
    assert read_frame(far) == b"1"
    far.sendall(frame(b"one"))
    assert first.result() == b"one"
    assert read_frame(far) == b"2"
    far.sendall(frame(b"two"))
    assert second.result() == b"two"


def test_a_plain_send_may_come_between_the_halves_of_an_exchange(make_conn: Maker) -> None:
    conn, far = make_conn()
    exchange = Call(conn.send_recv_pkg, b"1", timeout=LONG).sleeping()
    conn.send_pkg(b"note")
    assert [read_frame(far) for _ in range(2)] == [b"1", b"note"]
    far.sendall(frame(b"one"))
    assert exchange.result() == b"one"


def test_a_waiting_call_lets_other_threads_run(make_conn: Maker) -> None:
    conn, far = make_conn()
    waiting = Call(conn.recv_pkg, timeout=LONG).sleeping()
    turns = 0
    with quick():
        for _ in range(10_000):
            turns += 1
    far.sendall(frame(b"x"))
    assert waiting.result() == b"x"
    assert turns == 10_000
