"""Servers and clients that only cost: idle, dripping, deaf, in masses."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import gtcp
import gtcp.aio
from net.handlers import echo_packages
from support import child
from support.crew import Worker
from support.faces import FACES, everywhere
from support.loops import LOOPS, Facade, LoopThread
from support.peers import frame, read_frame
from support.timing import LATE, LONG, SHORT, eventually

CROWD = int(os.environ.get("GTCP_TEST_CROWD", "1000"))


def serving(
    face: str,
    stack: contextlib.ExitStack,
    blocking: Callable[[gtcp.Conn], object],
    awaiting: Callable[[gtcp.aio.Conn], Awaitable[object]],
) -> tuple[str, int]:
    """The address of a server of this face, with the one handler or the other."""
    server: Any
    if face == "threads":
        server = gtcp.Server("127.0.0.1:0", blocking, backlog=4096)
    elif face not in LOOPS:
        server = gtcp.Server("127.0.0.1:0", blocking, concurrency="greenlets", backlog=4096)
    else:
        loop = stack.enter_context(LoopThread(face))
        server = Facade.of(loop, loop.call(gtcp.aio.Server, "127.0.0.1:0", awaiting, backlog=4096))
    return "127.0.0.1", stack.enter_context(server).get_listened_port()


def echo(conn: gtcp.Conn) -> None:
    """Answer packages; a client has 5 SHORT for each."""
    with contextlib.suppress(gtcp.Timeout):
        while True:
            conn.send_pkg(conn.recv_pkg(timeout=5 * SHORT))


async def echo_in_loop(conn: gtcp.aio.Conn) -> None:
    with contextlib.suppress(gtcp.Timeout):
        while True:
            await conn.send_pkg(await conn.recv_pkg(timeout=5 * SHORT))


@everywhere
def test_F8_clients_that_drip_or_say_nothing(face: str) -> None:
    with contextlib.ExitStack() as stack:
        there = serving(face, stack, echo, echo_in_loop)
        idle = [stack.enter_context(socket.create_connection(there, LONG)) for _ in range(100)]
        dripping = [stack.enter_context(socket.create_connection(there, LONG)) for _ in range(50)]
        stop = threading.Event()

        def drip() -> None:
            package = iter(frame(bytes(1000)))
            while not stop.wait(SHORT / 4):
                byte = bytes([next(package)])
                for sock in dripping:
                    with contextlib.suppress(OSError):
                        sock.send(byte)

        dripper = Worker(drip)
        times = []
        with gtcp.Conn(there) as honest:
            for _ in range(200):
                start = time.monotonic()
                assert honest.send_recv_pkg(b"honest", timeout=LONG) == b"honest"
                times.append(time.monotonic() - start)
        assert sorted(times)[197] <= LATE / 2
        # Each of them is closed when its time is over: dripping extends nothing.
        for sock in [*idle, *dripping]:
            sock.settimeout(LONG)
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(1) == b""
        stop.set()
        dripper.result()


def deaf_clients(count: int, face: str) -> None:
    ends: list[type[BaseException]] = []
    data = bytes(8 << 20)

    def flood(conn: gtcp.Conn) -> None:
        try:
            while True:
                conn.send(data, timeout=2 * SHORT)
        except gtcp.Error as error:
            ends.append(type(error))

    async def flood_in_loop(conn: gtcp.aio.Conn) -> None:
        try:
            while True:
                await conn.send(data, timeout=2 * SHORT)
        except gtcp.Error as error:
            ends.append(type(error))

    with contextlib.ExitStack() as stack:
        there = serving(face, stack, flood, flood_in_loop)
        before = memory("VmRSS")
        for _ in range(count):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(there)
        eventually(lambda: len(ends) == count)
        assert set(ends) == {gtcp.Timeout}
        assert memory("VmRSS") - before <= 16 << 20, "what nobody reads was kept"


@everywhere
def test_F9_clients_that_never_read(face: str) -> None:
    child.run(deaf_clients, 50, face)


def memory(name: str) -> int:
    """Bytes, as /proc tells them."""
    with open("/proc/self/status") as status:  # noqa: PTH123
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(name + ":"))


def bombs(count: int) -> None:
    """Clients that announce 2 GiB and fall silent; only what has arrived may cost."""
    stack_size = 256 << 10
    threading.stack_size(stack_size)
    wide = gtcp.PkgOption(4)
    begun = threading.Semaphore(0)

    def handler(conn: gtcp.Conn) -> None:
        begun.release()
        with contextlib.suppress(gtcp.Error):
            while True:
                conn.send_pkg(conn.recv_pkg(wide), wide)

    with gtcp.Server("127.0.0.1:0", handler) as server, contextlib.ExitStack() as stack:
        there = ("127.0.0.1", server.get_listened_port())
        honest = stack.enter_context(gtcp.Conn(there))
        assert honest.send_recv_pkg(b"honest", wide, timeout=LONG) == b"honest"
        data, resident = memory("VmData"), memory("VmRSS")
        for i in range(count):
            sock = stack.enter_context(socket.create_connection(there, LONG))
            sock.sendall((0x7FFFFFFF - i).to_bytes(4, "big") + b"x")
        for _ in range(count):
            assert begun.acquire(timeout=LONG)
        times = []
        for _ in range(100):
            start = time.monotonic()
            assert honest.send_recv_pkg(b"honest", wide, timeout=LONG) == b"honest"
            times.append(time.monotonic() - start)
        assert sorted(times)[98] <= LATE
        assert memory("VmData") - data <= count * stack_size + (64 << 20)
        assert memory("VmRSS") - resident <= 96 << 20


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")  # noqa: PTH110
def test_B9_B10_clients_that_announce_huge_packages() -> None:
    child.run(bombs, 500, within=4 * LONG)


def crowd(count: int, face: str) -> None:
    """All are there at once, and each is answered."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * count + 200), hard))
    threading.stack_size(256 << 10)
    with contextlib.ExitStack() as stack:
        handler = gtcp.pkg_handler(lambda package: package) if face == "pkg_handler" else echo_packages
        there = serving(face, stack, handler, echo_packages_in_loop)
        socks = [stack.enter_context(socket.create_connection(there, LONG)) for _ in range(count)]
        for turn in range(3):
            start = time.monotonic()
            for i, sock in enumerate(socks):
                sock.sendall(frame(b"%d %d" % (turn, i)))
            for i, sock in enumerate(socks):
                assert read_frame(sock) == b"%d %d" % (turn, i)
            assert time.monotonic() - start <= 5 * LATE * 10
        idle = 30 * SHORT
        used = resource.getrusage(resource.RUSAGE_SELF)
        threading.Event().wait(idle)
        later = resource.getrusage(resource.RUSAGE_SELF)
        busy = later.ru_utime + later.ru_stime - used.ru_utime - used.ru_stime
        assert busy <= idle / 200, f"{busy / idle:.2%} of a processor for {count} idle connections"
        switches = later.ru_nvcsw - used.ru_nvcsw
        assert switches <= 10 * idle, f"woken {switches} times in {idle:g} s"


async def echo_packages_in_loop(conn: gtcp.aio.Conn) -> None:
    async for package in conn.packages():
        await conn.send_pkg(package)


@pytest.mark.parametrize("face", [*FACES, "greenlets", "pkg_handler"])
def test_F17_I5_many_clients_at_once_and_then_nothing(face: str) -> None:
    if face in ("greenlets", "pkg_handler"):
        pytest.importorskip("greenlet")
    child.run(crowd, CROWD, face, within=6 * LONG)
