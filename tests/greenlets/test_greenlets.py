"""Client code on greenlets: one thread, many calls that look blocking."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
from collections.abc import Callable
from typing import Literal

import greenlet
import pytest

import gtcp
from conftest import MakePeer
from support.peers import echo
from support.timing import LONG, SHORT, quick, takes


def silent(sock: socket.socket) -> None:
    """Unlike the one of `support.peers` it does not drink up what comes."""
    with contextlib.suppress(ConnectionError):
        sock.recv(1)


def test_run_answers_the_value_or_raises_the_error() -> None:
    assert gtcp.run(divmod, 7, 3) == (2, 1)
    with pytest.raises(ZeroDivisionError):
        gtcp.run(divmod, 7, 0)


def test_spawn_outside_and_run_inside_are_refused() -> None:
    with pytest.raises(RuntimeError, match=r"gtcp\.run"):
        gtcp.spawn(print)
    with pytest.raises(RuntimeError, match="already"):
        gtcp.run(gtcp.run, print)


def test_get_raises_what_the_greenlet_raised() -> None:
    def main() -> str:
        fiber = gtcp.spawn(int, "x")
        with pytest.raises(ValueError, match="invalid literal"):
            fiber.get(LONG)
        return gtcp.spawn(str, 1).get(LONG)

    assert gtcp.run(main) == "1"


def test_sleeps_overlap() -> None:
    def main() -> None:
        for fiber in [gtcp.spawn(gtcp.sleep, SHORT) for _ in range(100)]:
            fiber.get(LONG)

    with takes(SHORT):
        gtcp.run(main)


def test_sleep_of_nothing_lets_others_run() -> None:
    seen: list[int] = []

    def main() -> None:
        gtcp.spawn(seen.append, 1)
        assert not seen
        gtcp.sleep(0)
        assert seen == [1]

    gtcp.run(main)


def test_a_thousand_connections_in_one_thread() -> None:
    def serve(conn: gtcp.Conn) -> None:
        for package in conn.packages():
            conn.send_pkg(package)

    count = 1000
    with gtcp.Server("127.0.0.1:0", serve, concurrency="greenlets") as server:
        address = server.get_listened_address()
        assert address is not None

        def client(number: int) -> None:
            with gtcp.Conn(address, LONG) as conn:
                for lap in range(3):
                    assert conn.send_recv_pkg(b"%d %d" % (number, lap), timeout=LONG) == b"%d %d" % (number, lap)

        def main() -> None:
            for fiber in [gtcp.spawn(client, number) for number in range(count)]:
                fiber.get(LONG)

        gtcp.run(main)


def test_many_greenlets_share_a_small_pool(peer: MakePeer) -> None:
    with gtcp.Pool(peer(echo).address, max_size=3) as pool:

        def client(number: int) -> None:
            with pool.acquire(LONG) as lease:
                assert lease.send_recv_pkg(b"%d" % number, timeout=LONG) == b"%d" % number

        def main() -> None:
            for fiber in [gtcp.spawn(client, number) for number in range(100)]:
                fiber.get(LONG)
            assert pool.stats().created <= 3

        gtcp.run(main)


def test_a_name_is_looked_up_beside_the_others(peer: MakePeer, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    real = socket.getaddrinfo

    def slow(host: bytes, *args: int) -> object:
        if host == b"localhost" and not args[4] & socket.AI_NUMERICHOST:
            assert answered.wait(LONG)
        return real(host, *args)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    port = peer(echo).port

    def main() -> None:
        dialling = gtcp.spawn(gtcp.Conn, f"localhost:{port}", LONG)
        gtcp.sleep(0)
        gtcp.sleep(0)
        answered.set()
        dialling.get(LONG).close()

    gtcp.run(main)


def test_killed_where_it_waits(peer: MakePeer) -> None:
    ended: list[bool] = []

    def client(conn: gtcp.Conn) -> None:
        try:
            conn.recv_pkg()
        finally:
            ended.append(True)

    def main() -> None:
        with gtcp.Conn(peer(echo).address) as conn:
            fiber = gtcp.spawn(client, conn)
            gtcp.sleep(0)
            fiber.kill()
            assert fiber.join(LONG)
            assert ended == [True]
            assert conn.send_recv_pkg(b"still in step", timeout=LONG) == b"still in step"

    gtcp.run(main)


def test_those_left_are_ended_with_the_first() -> None:
    ended: list[int] = []

    def stubborn(number: int) -> None:
        try:
            gtcp.sleep(LONG)
        finally:
            ended.append(number)

    def main() -> None:
        for number in range(10):
            gtcp.spawn(stubborn, number)
        gtcp.sleep(0)

    with quick():
        gtcp.run(main)
    assert sorted(ended) == list(range(10))


def test_D13_interrupt_in_one_greenlet_reaches_run() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    def main() -> None:
        gtcp.spawn(interrupted)
        gtcp.sleep(LONG)

    with quick(), pytest.raises(KeyboardInterrupt):
        gtcp.run(main)


@pytest.mark.parametrize("end", [gtcp.Conn.close, gtcp.Conn.abort])
def test_H1_a_close_from_another_thread_wakes_the_greenlet(peer: MakePeer, end: Callable[[gtcp.Conn], object]) -> None:
    def main() -> None:
        conn = gtcp.Conn(peer(silent).address)
        receiving = gtcp.spawn(conn.recv_pkg)
        gtcp.sleep(0)
        closer = threading.Thread(target=end, args=(conn,))
        closer.start()
        with quick(), pytest.raises(gtcp.ClosedError):
            receiving.get(LONG)
        closer.join()

    gtcp.run(main)


def test_a_sender_and_a_receiver_with_gathered_sends_both_go_on(peer: MakePeer) -> None:
    """Both wait for room in the kernel; the receiver is woken first and takes nobody's place."""
    go = threading.Event()

    def script(sock: socket.socket) -> None:
        sock.sendall(b"\0\1x")
        assert go.wait(LONG)
        while sock.recv(1 << 20):
            pass

    def main() -> None:
        conn = gtcp.Conn(peer(script, receive_buffer=4096).address)
        with conn.gathered():
            assert conn.recv_pkg(timeout=LONG) == b"x"
            with pytest.raises(gtcp.Timeout):
                fill(conn)
            receiving = gtcp.spawn(receive, conn)
            gtcp.sleep(0)
            sending = gtcp.spawn(send, conn)
            gtcp.sleep(0)
            with pytest.raises(gtcp.Timeout):
                receiving.get(LONG)
            assert not sending.dead
            go.set()
            sending.get(LONG)
        conn.close()

    def fill(conn: gtcp.Conn) -> None:
        while True:
            conn.send(bytes(60000), timeout=SHORT)

    def receive(conn: gtcp.Conn) -> bytes:
        return conn.recv_pkg(timeout=SHORT)

    def send(conn: gtcp.Conn) -> None:
        conn.send(bytes(60000), timeout=LONG)

    gtcp.run(main)


def test_greenlets_of_two_threads_wait_for_one_connection_at_rest(peer: MakePeer) -> None:
    """Neither takes the watch from the other in turns for ever."""
    conn = gtcp.Conn(peer(silent, receive_buffer=4096).address)
    receiver = threading.Thread(target=run_until_closed, args=(conn.recv_pkg,))
    receiver.start()
    sender = threading.Thread(target=run_until_closed, args=(conn.send, bytes(1 << 26)))
    sender.start()
    before = sum(os.times()[:2])
    threading.Event().wait(3 * SHORT)
    used = sum(os.times()[:2]) - before
    conn.abort()
    receiver.join(LONG)
    sender.join(LONG)
    assert used < SHORT


def run_until_closed(function: Callable[..., object], *args: object) -> None:
    with pytest.raises((gtcp.Error, OSError)):
        gtcp.run(function, *args)


def test_E19_a_child_leaves_the_parents_greenlets_alone(peer: MakePeer) -> None:
    def main() -> None:
        conn = gtcp.Conn(peer(echo).address)
        receiving = gtcp.spawn(conn.recv_pkg, None)
        gtcp.sleep(0)
        child = os.fork()
        if child == 0:
            try:
                gtcp.sleep(0.001)  # as a thread does
                conn.close()
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0
        conn.send_pkg(b"hello")
        assert receiving.get(LONG) == b"hello"
        conn.close()

    gtcp.run(main)


def test_E19_a_childs_run_ends_with_an_error() -> None:
    def fork() -> int:
        return os.fork()

    child = 0

    def main() -> None:
        nonlocal child
        child = gtcp.spawn(fork).get(LONG)

    parent = os.getpid()
    try:
        gtcp.run(main)
    except RuntimeError as error:
        if os.getpid() != parent:
            os._exit(0 if "forked" in str(error) else 1)
        raise
    finally:
        if os.getpid() != parent:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert status == 0


def test_random_timeouts_closes_and_kills_leave_nothing_waiting(peer: MakePeer) -> None:
    chance = random.Random(5)
    address = peer(echo).address
    allowed = (gtcp.Timeout, gtcp.ClosedError)

    def client(conn: gtcp.Conn) -> None:
        try:
            for _ in range(20):
                data = bytes(chance.randrange(2000))
                timeout = chance.choice([0.0, 0.0005, 0.002, LONG])
                reply = conn.send_recv_pkg(data, timeout=timeout)
                assert reply == data
        except allowed:
            pass
        finally:
            conn.close()

    def main() -> None:
        for _ in range(10):
            conns = [gtcp.Conn(address, LONG) for _ in range(20)]
            fibers = [gtcp.spawn(client, conn) for conn in conns]
            for conn, fiber in zip(conns, fibers, strict=True):
                gtcp.sleep(chance.random() / 2000)
                chance.choice([conn.close, fiber.kill, lambda: None])()
            for conn, fiber in zip(conns, fibers, strict=True):
                assert fiber.join(LONG)
                with contextlib.suppress(greenlet.GreenletExit):
                    fiber.get()
                conn.close()  # nobody has, if the greenlet was killed before it began

    gtcp.run(main)


@pytest.mark.parametrize("concurrency", ["threads", "greenlets"])
def test_pkg_handler_answers_what_the_function_returns(concurrency: Literal["threads", "greenlets"]) -> None:
    def answer(package: bytes) -> bytes | None:
        return None if package == b"quiet" else package.upper()

    handler = gtcp.pkg_handler(answer, gtcp.PkgOption(header_size=4))
    option = gtcp.PkgOption(header_size=4)
    with (
        gtcp.Server("127.0.0.1:0", handler, concurrency=concurrency, gather_sends=True) as server,
        gtcp.Conn(("127.0.0.1", server.get_listened_port())) as conn,
    ):
        conn.send_pkgs([b"a", b"quiet", b"b"], option)
        assert conn.recv_pkgs(2, option, timeout=LONG) == [b"A", b"B"]


def test_pkg_handler_wants_a_function() -> None:
    with pytest.raises(TypeError, match="callable"):
        gtcp.pkg_handler(None)  # type: ignore[arg-type]
