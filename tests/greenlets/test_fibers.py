"""The life of a greenlet: its error is told, it takes its share of the time, and connections move between hubs."""

from __future__ import annotations

import contextlib
import gc
import logging
import select
import socket
import threading
import time

import greenlet
import pytest

import gtcp
from gtcp import _core
from support.calls import Call
from support.collector import at_collection
from support.peers import frame
from support.timing import LONG, eventually


def fail() -> None:
    raise ZeroDivisionError("nobody asked")


def failures(caplog: pytest.LogCaptureFixture) -> list[object]:
    gc.collect()
    return [record.exc_info[0] for record in caplog.records if record.levelno == logging.ERROR and record.exc_info]


def test_an_error_that_nobody_asks_for_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    def main() -> None:
        gtcp.spawn(fail)
        joined = gtcp.spawn(fail)
        assert joined.join(LONG)
        assert failures(caplog) == [ZeroDivisionError]

    gtcp.run(main)
    assert failures(caplog) == [ZeroDivisionError] * 2


def test_an_error_that_somebody_asked_for_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    def main() -> None:
        with pytest.raises(ZeroDivisionError):
            gtcp.spawn(fail).get(LONG)
        gtcp.spawn(gtcp.sleep, LONG).kill()
        fail()

    with pytest.raises(ZeroDivisionError):
        gtcp.run(main)
    assert failures(caplog) == []


def test_an_error_in_a_greenlet_of_a_handler(caplog: pytest.LogCaptureFixture) -> None:
    def handler(conn: gtcp.Conn) -> None:
        gtcp.spawn(fail)
        with contextlib.suppress(ZeroDivisionError):
            gtcp.spawn(fail).get(LONG)
        conn.send(b"done")

    with (
        gtcp.Server("127.0.0.1:0", handler, concurrency="greenlets") as server,
        gtcp.Conn(("127.0.0.1", server.get_listened_port()), LONG) as conn,
    ):
        assert conn.recv(4, timeout=LONG) == b"done"
        eventually(lambda: failures(caplog))
    assert failures(caplog) == [ZeroDivisionError]


def test_a_greenlet_that_is_killed_before_it_began_never_runs() -> None:
    seen: list[int] = []

    def main() -> None:
        fiber = gtcp.spawn(seen.append, 1)
        fiber.kill()
        assert fiber.join(LONG)
        assert fiber.dead
        with pytest.raises(greenlet.GreenletExit):
            fiber.get()
        gtcp.spawn(seen.append, 2)  # and ends with `run`

    gtcp.run(main)
    assert seen == []


def flood(port: int, stop: threading.Event) -> None:
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port)) as sock:
        block = b"\0\x3e" + bytes(62)
        block *= (1 << 20) // len(block)
        while not stop.is_set():
            sock.sendall(block)


@pytest.mark.parametrize("handler", ["packages", "recv", "pkg_handler", "recv_into"])
def test_a_client_that_floods_does_not_hold_up_the_others(handler: str) -> None:
    flooded = threading.Event()

    def swallow(data: bytes) -> None:
        flooded.set()

    def serve(conn: gtcp.Conn) -> None:
        first = conn.recv_pkg(timeout=LONG)
        if first == b"?":
            conn.send_pkg(b"!")
        elif handler == "packages":
            for package in conn.packages():
                swallow(package)
        elif handler == "pkg_handler":
            gtcp.pkg_handler(swallow)(conn)
        elif handler == "recv_into":
            block = bytearray(64)
            while conn.recv_into(block, 64):
                swallow(block)
        else:
            while True:
                swallow(conn.recv(64))

    stop = threading.Event()
    with gtcp.Server("127.0.0.1:0", serve, concurrency="greenlets") as server:
        port = server.get_listened_port()
        flooding = Call(flood, port, stop)
        assert flooded.wait(LONG)
        for _ in range(5):
            with gtcp.Conn(("127.0.0.1", port), LONG) as conn:
                assert conn.send_recv_pkg(b"?", timeout=LONG / 5) == b"!"
        stop.set()
    flooding.result()


def test_a_greenlet_that_sends_for_ever_does_not_hold_up_the_others() -> None:
    here, there = socket.socketpair()
    stop = threading.Event()

    def drink() -> None:
        while there.recv(1 << 16):
            pass

    def send(conn: gtcp.Conn) -> None:
        while not stop.is_set():
            conn.send(b"x")

    def main() -> None:
        with gtcp.Conn.from_socket(here) as conn:
            sending = gtcp.spawn(send, conn)
            for _ in range(10):
                gtcp.sleep(0.001)
            stop.set()
            sending.get(LONG)

    with there:
        drinking = Call(drink)
        gtcp.run(main)
        drinking.result()


def test_a_connection_that_moves_to_a_hub_where_another_greenlet_waits_for_it() -> None:
    here, there = socket.socketpair()
    data = bytes(1 << 20)

    def waits_for(events: int) -> bool:
        return conn._activity()[0] == events

    def main() -> None:
        sending = gtcp.spawn(conn.send, data)
        while not waits_for(_core.POLLOUT):
            gtcp.sleep(0.001)
        gtcp.sleep(0.001)
        far.send_pkg(b"first")
        assert receiving.result() == b"first"
        fiber = gtcp.spawn(conn.recv_pkg)
        gtcp.sleep(0.001)
        assert not fiber.dead
        far.send_pkg(b"second")
        assert fiber.get(LONG) == b"second"
        assert far.recv(len(data), timeout=LONG) == data
        sending.get(LONG)

    with gtcp.Conn.from_socket(here) as conn, gtcp.Conn.from_socket(there) as far:
        receiving = Call(gtcp.run, conn.recv_pkg)
        eventually(lambda: waits_for(_core.POLLIN))
        gtcp.run(main)


def test_H1_a_greenlet_that_is_spawned_while_its_hub_ends_ends_too() -> None:
    """From another thread, at every moment of the end: it is refused, or it is ended as the others are."""

    def spawn(hub: _core.Hub, fibers: list[_core.Fiber[None]], begun: threading.Event) -> None:
        while True:
            fibers.append(hub.spawn(gtcp.sleep, LONG))
            begun.set()
            time.sleep(0)  # lets the hub run

    for _ in range(50):
        hub, begun = _core.Hub(), threading.Event()
        fibers: list[_core.Fiber[None]] = []
        spawning = Call(spawn, hub, fibers, begun)
        assert begun.wait(LONG)
        hub.run(hub.spawn(gtcp.sleep, 0.0005))
        with pytest.raises(RuntimeError, match="has been stopped"):
            spawning.result()
        assert all(fiber.join(LONG) for fiber in fibers)


def test_a_greenlet_that_is_ended_can_spawn_no_more() -> None:
    refused: list[bool] = []

    def last_words() -> None:
        try:
            gtcp.sleep(LONG)
        finally:
            with pytest.raises(RuntimeError, match="has been stopped"):
                gtcp.spawn(fail)
            refused.append(True)

    def main() -> None:
        gtcp.spawn(last_words)
        gtcp.sleep(0)

    gtcp.run(main)
    assert refused == [True]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_H4_an_interrupt_of_a_greenlet_that_is_ended_reaches_run(interrupt: type[BaseException]) -> None:
    def interrupted() -> None:
        try:
            gtcp.sleep(LONG)
        finally:
            raise interrupt

    def main() -> None:
        gtcp.spawn(interrupted)
        gtcp.sleep(0)

    with pytest.raises(interrupt):
        gtcp.run(main)


def watches() -> int:
    gc.collect()
    return sum(type(found).__name__ == "Watch" for found in gc.get_objects())


@pytest.mark.parametrize("number", range(1, 9))
def test_a_second_hub_that_comes_to_watch_while_the_first_begins_to(number: int) -> None:
    """Making a watch can run the collector, and with it other threads: one of the two watches is not for use."""
    here, there = socket.socketpair()
    data = bytes(1 << 22)
    before = watches()
    senders: list[Call] = []
    once = threading.Lock()

    def main() -> bytes:
        with at_collection(number, send):
            return conn.recv_pkg(timeout=LONG)

    def send() -> None:
        if not once.acquire(blocking=False):  # the collection comes when the receiver waits already
            return
        senders.append(Call(gtcp.run, conn.send, data))
        eventually(lambda: conn._activity()[0] == _core.POLLOUT)
        senders[0].asleep()
        far.send_pkg(b"go on")

    with gtcp.Conn.from_socket(here) as conn, gtcp.Conn.from_socket(there) as far:
        receiving = Call(gtcp.run, main)
        eventually(lambda: senders or conn._activity()[0] == _core.POLLIN)
        if not senders:
            send()
        assert receiving.result() == b"go on"
        assert far.recv(len(data), timeout=LONG) == data
        senders[0].result()
    assert watches() <= before


def test_what_carried_connections_without_a_stack_is_gone_with_the_run() -> None:
    hub = _core.Hub()
    ended: list[object] = []
    here, there = socket.socketpair()

    def main() -> None:
        _core.PkgHandler(bytes.upper, None).serve(conn, ended.append)
        there.sendall(frame(b"x"))
        while not select.select([there], [], [], 0)[0]:
            gtcp.sleep(0.001)

    with gtcp.Conn.from_socket(here) as conn, there:
        hub.run(hub.spawn(main))
        assert [type(error) for error in ended] == [greenlet.GreenletExit]
        kept = [thing for held in gc.get_referents(hub) if isinstance(held, list) for thing in held]
        assert not [thing for thing in kept if isinstance(thing, _core.Fiber)]
