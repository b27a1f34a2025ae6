"""Exceptions of signal handlers leave a blocked call at once, and what it held is as the contract says.

Row ids are those of the project's table of faults.
"""

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable

import pytest

import gtcp
import gtcp.aio
from support import child
from support.crew import Worker
from support.interrupts import Alarm, interrupt, raise_alarm
from support.leaks import descriptors
from support.peers import Peer, deaf_address, echo, frame, read, read_frame, silent, socket_pair
from support.timing import LONG, eventually
from support.tls import Authority, Ends

HUGE = bytes(16 << 20)
WIDE = gtcp.PkgOption(header_size=4)
REPLY = frame(b"late reply to the first")


def poisoned_lease(sent_before: int, signal_name: str, ending: str) -> None:
    """The exchange is interrupted when so many bytes of its reply have come; the rest comes afterwards."""
    number = signal.Signals[signal_name]
    if number != signal.SIGINT:
        signal.signal(number, raise_alarm)
    halfway, go_on = threading.Event(), threading.Event()

    def script(sock: socket.socket) -> None:
        request = read_frame(sock)
        if request == b"first":
            sock.sendall(REPLY[:sent_before])
            halfway.set()
            assert go_on.wait(LONG)
            with contextlib.suppress(ConnectionError):
                sock.sendall(REPLY[sent_before:])
        else:
            sock.sendall(frame(b"reply to " + request))

    with Peer(script) as peer, gtcp.Pool(peer.address, max_size=1) as pool:
        lease = pool.acquire()
        if ending == "with":

            def exchange() -> None:
                with lease:
                    lease.send_recv_pkg(b"first", timeout=LONG)

            error = interrupt(exchange, number, halfway)
        else:
            error = interrupt(lambda: lease.send_recv_pkg(b"first", timeout=LONG), number, halfway)
            lease.close()
        assert type(error) is (KeyboardInterrupt if number == signal.SIGINT else Alarm)
        go_on.set()
        stats = pool.stats()
        assert (stats.idle, stats.in_use, stats.closed["error"] + stats.closed["discarded"]) == (0, 0, 1)
        with pool.acquire() as second:
            assert second.send_recv_pkg(b"second", timeout=LONG) == b"reply to second"


@pytest.mark.parametrize("sent_before", [0, 1, 2, 10], ids=["nothing", "half a header", "header", "half a body"])
def test_E6_an_interrupted_exchange_is_not_pooled(sent_before: int) -> None:
    child.run(poisoned_lease, sent_before, "SIGINT", "close")


@pytest.mark.parametrize("ending", ["close", "with"])
@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGALRM"])
def test_E6_whatever_the_handler_raises_and_however_the_lease_ends(signal_name: str, ending: str) -> None:
    child.run(poisoned_lease, 10, signal_name, ending)


RECEIVE: dict[str, tuple[bytes, Callable[[gtcp.Conn], object], bytes, object]] = {
    # what has come, the call, what comes later, what the repeated call gives
    "recv": (b"abc", lambda conn: conn.recv(6), b"def", b"abcdef"),
    "recv_into": (b"abc", lambda conn: conn.recv_into(bytearray(6), 6), b"def", 6),
    "recv_line": (b"abc", lambda conn: conn.recv_line(), b"def\n", b"abcdef"),
    "recv_till": (b"abc", lambda conn: conn.recv_till(b";"), b"def;", b"abcdef;"),
    "recv_pkg": (b"\0\6abc", lambda conn: conn.recv_pkg(), b"def", b"abcdef"),
    "recv_pkgs": (b"\0\1a\0\1", lambda conn: conn.recv_pkgs(2), b"b", [b"a", b"b"]),
    "packages": (b"\0", lambda conn: next(conn.packages()), b"\1x", b"x"),
}


def receive_again() -> None:
    for begin, call, rest, expected in RECEIVE.values():
        for timeout in (None, LONG):
            with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
                theirs.sendall(begin)
                eventually(conn.is_alive)
                conn.set_deadline(None if timeout is None else time.monotonic() + timeout)
                assert type(interrupt(lambda: call(conn))) is KeyboardInterrupt  # noqa: B023
                theirs.sendall(rest)
                assert call(conn) == expected


def test_H4_an_interrupted_receive_can_be_repeated() -> None:
    child.run(receive_again)


def receive_again_over_tls() -> None:
    with Ends(Authority()) as ends:
        conn, far = ends.connect()
        far.sendall(frame(b"hello")[:4])
        assert type(interrupt(conn.recv_pkg)) is KeyboardInterrupt
        far.sendall(frame(b"hello")[4:])
        assert conn.recv_pkg(timeout=LONG) == b"hello"
        conn.send(b"fine")
        assert far.recv(4) == b"fine"


def test_H4_an_interrupted_receive_over_tls_can_be_repeated() -> None:
    child.run(receive_again_over_tls)


def shake_hands() -> None:
    with Peer(silent) as peer:
        ours = Authority().client()
        before = descriptors()
        assert type(interrupt(lambda: gtcp.Conn(peer.address, LONG, tls=ours))) is KeyboardInterrupt
        eventually(lambda: descriptors() == before)


def test_A11_an_interrupted_handshake_leaves_nothing_open() -> None:
    child.run(shake_hands)


def send_again() -> None:
    calls: list[Callable[[gtcp.Conn], object]] = [
        lambda conn: conn.send(HUGE),
        lambda conn: conn.send(HUGE, timeout=LONG),
        lambda conn: conn.send_pkg(HUGE, WIDE),
        lambda conn: conn.send_pkgs([b"x", HUGE], WIDE),
        lambda conn: conn.send_recv_pkg(HUGE, WIDE),
        lambda conn: conn.send_recv_pkgs([b"x", HUGE], WIDE),
    ]
    for call in calls:
        with socket_pair() as (ours, _), gtcp.Conn.from_socket(ours) as conn:
            assert type(interrupt(lambda: call(conn))) is KeyboardInterrupt  # noqa: B023
            # Nobody knows how much of it has left: the connection is out of step for good.
            for use in (conn.recv, lambda: conn.send(b"x")):
                try:
                    use()
                except gtcp.BrokenError:
                    continue
                raise AssertionError("a connection that is out of step can be used")


def test_H4_an_interrupted_send_breaks_the_connection() -> None:
    child.run(send_again)


def wait_for_a_turn() -> None:
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        first = Worker(lambda: conn.send(HUGE, timeout=LONG))
        first.asleep()
        assert type(interrupt(lambda: conn.send(b"never sent"))) is KeyboardInterrupt
        assert type(interrupt(lambda: conn.send(b"never sent", timeout=LONG))) is KeyboardInterrupt
        last = Worker(lambda: conn.send(b"last", timeout=LONG))
        assert read(theirs, len(HUGE)) == HUGE
        first.result()
        last.result()
        assert read(theirs, 4) == b"last"


def test_H4_waiting_for_another_sender_can_be_interrupted() -> None:
    child.run(wait_for_a_turn)


def wait_for_a_lease() -> None:
    with Peer(echo) as peer, gtcp.Pool(peer.address, max_size=1) as pool:
        holder = pool.acquire()
        for timeout in (None, LONG):
            assert type(interrupt(lambda: pool.acquire(timeout))) is KeyboardInterrupt  # noqa: B023
            assert pool.stats().waiting == 0
        holder.close()
        pool.acquire(0).close()
        assert (pool.stats().idle, pool.stats().in_use) == (1, 0)


def test_E15_an_interrupted_waiter_takes_no_connection_along() -> None:
    child.run(wait_for_a_lease)


def dial() -> None:
    with deaf_address() as address:
        before = descriptors()
        assert type(interrupt(lambda: gtcp.Conn(address))) is KeyboardInterrupt
        assert type(interrupt(lambda: gtcp.Conn(address, None))) is KeyboardInterrupt
        assert type(interrupt(lambda: gtcp.dial(address))) is KeyboardInterrupt
        assert type(interrupt(lambda: gtcp.send_recv(address, b"x"))) is KeyboardInterrupt
        with gtcp.Pool(address, max_size=1) as pool:
            assert type(interrupt(pool.acquire)) is KeyboardInterrupt
            assert (pool.stats().connecting, pool.stats().failed) == (0, 1)
        assert descriptors() == before


def test_A11_an_interrupted_dial_leaves_nothing_open() -> None:
    child.run(dial)


def run_server() -> None:
    def handler(conn: gtcp.Conn) -> None:
        conn.send(conn.recv(1))
        conn.recv(1)

    before = descriptors()
    with contextlib.ExitStack() as stack:
        server = gtcp.Server("127.0.0.1:0", handler)
        served = threading.Event()

        def client() -> None:
            eventually(lambda: server.get_listened_port() > 0)
            conn = stack.enter_context(gtcp.Conn(("127.0.0.1", server.get_listened_port())))
            assert conn.send_recv(b"x", 1) == b"x"
            served.set()

        calling = Worker(client)
        assert type(interrupt(server.run, after=served)) is KeyboardInterrupt
        calling.result()
        assert server.get_listened_port() == -1
    eventually(lambda: descriptors() == before)


def test_F15_an_interrupted_server_is_closed() -> None:
    child.run(run_server)


def run_server_in_a_loop() -> None:
    before = descriptors()
    told: list[type[BaseException]] = []

    async def main() -> None:
        async def handler(conn: gtcp.aio.Conn) -> None:
            await conn.send_pkg(await conn.recv_pkg())
            os.kill(os.getpid(), signal.SIGINT)
            await conn.recv_pkg()

        server = gtcp.aio.Server("127.0.0.1:0", handler, on_close=lambda conn, error: told.append(type(error)))
        await server.start()
        talking = asyncio.ensure_future(gtcp.aio.send_recv_pkg(str(server.get_listened_address()), b"x"))
        await server.serve_forever()
        await talking

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert told in ([type(None)], [asyncio.CancelledError])
    assert descriptors() == before


def test_F15_an_interrupted_server_of_a_loop_is_closed() -> None:
    child.run(run_server_in_a_loop)


def storm() -> None:
    """Alarms at any moment, also between two steps of Python code; no reply reaches another request."""
    signal.signal(signal.SIGALRM, raise_alarm)
    before = descriptors()

    def script(sock: socket.socket) -> None:
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                sock.sendall(frame(read_frame(sock)))

    with Peer(script) as peer, gtcp.Pool(peer.address, max_size=2, timeout=LONG) as pool:
        pool.acquire().close()  # an alarm while the reaper's thread is started would be told by that thread
        pool.acquire().close()  # what Python imports for it could swallow an alarm
        served = interrupted = 0
        while served < 3000 or interrupted < 200:
            try:
                # By the interruptions too: the shortest may be too short for a dial and a request here, for ever.
                signal.setitimer(signal.ITIMER_REAL, 0.0003 + (served + interrupted) % 7 * 0.0004)
                while True:
                    question = b"%d" % served
                    with pool.acquire() as lease:
                        assert lease.send_recv_pkg(question, timeout=LONG) == question
                    served += 1
            except Alarm:
                interrupted += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        stats = pool.stats()
        assert (stats.in_use, stats.waiting, stats.connecting) == (0, 0, 0), stats
        assert stats.idle == stats.created - sum(stats.closed.values()), stats
    assert descriptors() == before


def test_E6_a_storm_of_alarms_mixes_nothing_up() -> None:
    # A lease that is dropped between acquire and `with` warns, rightly.
    child.run(storm, options=["-W", "error", "-W", "ignore::ResourceWarning"])


def before_a_package_after_a_large_one() -> None:
    """It is expected to be as large and its result has been begun: that binds nobody to anything."""
    signal.signal(signal.SIGUSR1, raise_alarm)
    large = bytes(50_000)
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:

        def receive() -> bytes:
            return conn.recv_pkg(WIDE, timeout=LONG)

        for unit in (large, b"small", b"line"):
            theirs.sendall(frame(large, 4))
            assert receive() == large
            assert isinstance(interrupt(receive, signal.SIGUSR1), Alarm)
            theirs.sendall(b"line\n" if unit == b"line" else frame(unit, 4))
            assert (conn.recv_line(timeout=LONG) if unit == b"line" else receive()) == unit


def test_H4_a_receive_that_is_interrupted_before_a_package_after_a_large_one() -> None:
    child.run(before_a_package_after_a_large_one)
