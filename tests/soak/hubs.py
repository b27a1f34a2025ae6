"""Greenlets whose calls end at any moment, on both sides of many connections: timeouts, kills, closes in both threads.

The server's handler is a loop with a greenlet for each connection, or pkg_handler, whose connections share carriers.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import random
import time
from collections import Counter

import greenlet

import gtcp
from gtcp import _core
from gtcp.testing import Peer, echo_packages
from support.leaks import Baseline
from support.timing import LONG, eventually

AT_A_TIME = 100
KINDS = ("greenlets", "pkg_handler")
SPARE_CARRIERS = 64

ENDS = (gtcp.Timeout, gtcp.EOF, gtcp.ClosedError, gtcp.ResetError, gtcp.PipeError, greenlet.GreenletExit)


def storm(kind: str, count: int, seed: object) -> Counter[str]:
    """So many clients. Answers how they ended; none may get another's reply, and nobody may wait for ever."""
    chance = random.Random(f"{kind}/{seed}")
    ends: Counter[str] = Counter()

    def answer(package: bytes) -> bytes:
        what = chance.random()
        if what < 0.1:
            gtcp.sleep(chance.random() / 500)
        elif what < 0.2:
            with contextlib.suppress(gtcp.Error), behind.acquire(chance.choice([0.0, 0.001, LONG])) as lease:
                assert lease.send_recv_pkg(package, timeout=chance.choice([0.0, 0.001, LONG])) == package
        elif what < 0.21:
            chance.choice(server.connections).close()
        return package

    def serve(conn: gtcp.Conn) -> None:
        for package in conn.packages():
            conn.send_pkg(answer(package))

    def client(number: int) -> None:
        with gtcp.Conn(address, LONG) as conn:
            for lap in range(20):
                requests = [b"%d/%d/%d " % (number, lap, i) * chance.choice([1, 1, 1, 500]) for i in range(3)]
                timeout = chance.choice([0.0, 0.0005, 0.002]) if chance.random() < 0.03 else LONG
                assert conn.send_recv_pkgs(requests, timeout=timeout) == requests
            if number % 4:
                conn.abort()  # no port waits: there are fewer of them than clients

    def disturb(fiber: _core.Fiber[None]) -> None:
        what = chance.random()
        if what < 0.2:
            fiber.kill()
        elif what < 0.4:
            for conn in server.connections[:1]:
                chance.choice([conn.close, conn.abort])()

    def clients() -> None:
        for begin in range(0, count, AT_A_TIME):
            fibers = [gtcp.spawn(client, number) for number in range(begin, min(begin + AT_A_TIME, count))]
            for fiber in fibers:
                gtcp.sleep(chance.random() / 2000)
                disturb(fiber)
            for fiber in fibers:
                assert fiber.join(LONG), "a client waits for ever"
                try:
                    fiber.get()
                    ends["done"] += 1
                except ENDS as end:
                    ends[type(end).__name__] += 1

    handler = gtcp.pkg_handler(answer) if kind == "pkg_handler" else serve
    with (
        Peer(echo_packages()) as peer,
        gtcp.Pool(peer.address, max_size=4) as behind,
        gtcp.Server("127.0.0.1:0", handler, concurrency="greenlets", gather_sends=True, backlog=1024) as server,
    ):
        address = ("127.0.0.1", server.get_listened_port())
        gtcp.run(clients)
        eventually(lambda: not server.connections)
        eventually(lambda: served() == 0)
        assert greenlets() < SPARE_CARRIERS + 8
        assert server.shutdown(LONG) == 0
    return ends


def served() -> int:
    gc.collect()
    return sum(type(thing).__name__ == "Served" for thing in gc.get_objects())


def greenlets() -> int:
    return sum(isinstance(thing, greenlet.greenlet) and not thing.dead for thing in gc.get_objects())


def all_of_them(count: int) -> None:
    logging.getLogger("gtcp").setLevel(logging.CRITICAL)  # each connection that a client has reset would be a line
    for kind in KINDS:
        before, start = Baseline(), time.monotonic()
        ends = storm(kind, count, "soak")
        differences = before.differences()
        assert not differences, differences
        told = ", ".join(f"{name} {number}" for name, number in ends.most_common())
        print(f"hubs, {kind}: {count} clients in {time.monotonic() - start:.0f} s: {told}", flush=True)
