"""What is done to a loop's connections, beside what the contract suite does to those of every kind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import mmap
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import gtcp
import gtcp.aio
from aio.conftest import Run
from net.ends import Host
from support import child, shim
from support.aio import begun, linked
from support.leaks import descriptors
from support.loops import LOOPS, run
from support.peers import Peer, deaf_address, echo, frame, silent
from support.timing import LATE, LONG, SHORT, quick, takes

WIDE = gtcp.PkgOption(4)
LARGE = bytes(50_000)
HUGE = bytes(16 << 20)
STATUS = Path("/proc/self/status")

on_every_loop = pytest.mark.parametrize("kind", LOOPS)


def memory(name: str) -> int:
    """Bytes, as /proc tells them."""
    return next(int(line.split()[1]) << 10 for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))


async def echo_packages(conn: gtcp.aio.Conn) -> None:
    async for package in conn.packages(WIDE):
        await conn.send_pkg(package, WIDE)


# -- receiving


def bombs(kind: str, count: int) -> None:
    async def handle(conn: gtcp.aio.Conn) -> None:
        with contextlib.suppress(gtcp.EOF):
            await echo_packages(conn)

    async def main() -> None:
        async with gtcp.aio.Server("127.0.0.1:0", handle) as server:
            address = server.get_listened_address()
            assert address is not None
            async with gtcp.aio.connect(address) as honest:
                assert await honest.send_recv_pkg(b"honest", WIDE) == b"honest"
                data, resident = memory("VmData"), memory("VmRSS")
                with contextlib.ExitStack() as stack:
                    for i in range(count):
                        sock = stack.enter_context(socket.create_connection((address.host, address.port), LONG))
                        sock.sendall((0x7FFFFFFF - i).to_bytes(4, "big") + b"x")
                    while len(server.connections) <= count:  # noqa: ASYNC110
                        await asyncio.sleep(0.001)
                    for _ in range(100):
                        with quick():
                            assert await honest.send_recv_pkg(b"honest", WIDE) == b"honest"
                    assert memory("VmData") - data <= 64 << 20
                    assert memory("VmRSS") - resident <= 64 << 20

    run(kind, main(), 4 * LONG)


@pytest.mark.skipif(not STATUS.exists(), reason="needs /proc")
@on_every_loop
def test_B9_B10_clients_that_announce_huge_packages(kind: str) -> None:
    child.run(bombs, kind, 300, within=4 * LONG)


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(100), b"\xff" * 5000],
    ids=["http", "tls", "noise"],
)
def test_B18_a_client_that_speaks_something_else(run: Run, caplog: pytest.LogCaptureFixture, garbage: bytes) -> None:
    async def main() -> None:
        async with gtcp.aio.Server("127.0.0.1:0", echo_packages) as server:
            address = server.get_listened_address()
            assert address is not None
            async with gtcp.aio.connect(address) as conn:
                await conn.send(garbage)
                conn.close_write()
                with contextlib.suppress(gtcp.Error):
                    while True:
                        await conn.recv(0, timeout=LONG)
            assert await gtcp.aio.send_recv_pkg(address, b"hello", WIDE, timeout=LONG) == b"hello"

    run(main())
    assert len([record for record in caplog.records if record.name == "gtcp"]) <= 1


def at_once(call: Any) -> Any:
    """What a call answers that has no need to wait."""
    try:
        call.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError(f"{call!r} waits")


Use = Callable[[gtcp.aio.Conn], object]

# How a connection is used, and what has come before that.
USES: dict[str, tuple[Use, bytes]] = {
    "package": (lambda conn: at_once(conn.send_recv_pkg(b"hello")), frame(b"hello")),
    "large": (lambda conn: at_once(conn.send_recv_pkg(LARGE, WIDE)), frame(LARGE, 4)),
    "bytes": (lambda conn: at_once(conn.send_recv(b"hello", 5)), b"hello"),
    "lines": (lambda conn: (at_once(conn.recv_line()), at_once(conn.recv_till(b"--"))), b"one\ntwo--"),
    "into": (lambda conn: at_once(conn.recv_into(bytearray(5), 5)), b"hello"),
    "batch": (lambda conn: at_once(conn.send_recv_pkgs([b"a", b"bc"])), frame(b"a") + frame(b"bc")),
    "many": (lambda conn: (at_once(conn.send_pkgs([b"a"] * 50)), at_once(conn.recv_pkgs(50))), frame(b"a") * 50),
    "packages": (lambda conn: at_once(conn.packages().__anext__()), frame(b"a")),
}


def lend(pool: gtcp.aio.Pool) -> None:
    lease = at_once(pool.acquire()._opened())
    at_once(lease.close())


def without_memory(name: str, address: str) -> None:
    import _testcapi  # type: ignore[import-not-found]

    async def attempt(at: int) -> bool:
        """False when an allocation failed, as it should."""
        async with contextlib.AsyncExitStack() as stack:
            if name == "pool":
                pool = await stack.enter_async_context(gtcp.aio.Pool(address, max_size=1))
                await pool.prefill(1)
                call = lambda: lend(pool)  # noqa: E731
            else:
                conn, far = await stack.enter_async_context(linked())
                use, wire = USES[name]
                far.sendall(wire)
                call = lambda: use(conn)  # noqa: E731
            _testcapi.set_nomemory(at, at + 1)
            try:
                call()
            except MemoryError:
                return False
            finally:
                _testcapi.remove_mem_hooks()
                if name == "pool":
                    gc.collect()  # a lease that was not handed out
                    assert (pool.stats().in_use, pool.stats().connecting) == (0, 0)
        return True

    async def main() -> None:
        assert await attempt(5000)  # what is made once
        before = descriptors()
        failed = passed = at = 0
        while passed < 5:
            if await attempt(at):
                passed += 1
            else:
                failed += 1
                passed = 0
            at += 1
            assert at < 5000
        assert failed > 0
        gc.collect()
        assert descriptors() == before

    asyncio.run(main())


@pytest.mark.parametrize("name", [*USES, "pool"])
def test_B21_memory_runs_out_at_every_allocation(name: str) -> None:
    pytest.importorskip("_testcapi", reason="this Python has no _testcapi")
    with Peer(silent) as peer:
        child.run(without_memory, name, peer.address, options=["-W", "ignore"], within=4 * LONG)


def reset(far: socket.socket) -> None:
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()


WHOLE, PART = frame(b"whole"), frame(b"part")[:-1]
RECEIVES: dict[str, Callable[[gtcp.aio.Conn], Coroutine[Any, Any, object]]] = {
    "recv_pkg": lambda conn: conn.recv_pkg(),
    "recv_line": lambda conn: conn.recv_line(),
    "recv_pkgs": lambda conn: conn.recv_pkgs(3),
}


@pytest.mark.parametrize("name", RECEIVES)
@pytest.mark.parametrize("sends", [False, True], ids=["alone", "and-a-sender"])
def test_B7_bytes_and_a_reset_in_one_event(run: Run, name: str, sends: bool) -> None:
    """uvloop tells a socket's failure once, and then nothing more."""

    async def main() -> None:
        async with linked(receive_buffer=1 << 16) as (conn, far):
            waiting = [await begun(RECEIVES[name](conn))]
            if sends:
                waiting.append(await begun(conn.send(HUGE)))
            far.sendall(PART)
            reset(far)
            ended, late = await asyncio.wait(waiting, timeout=LONG)
            assert not late
            ends = (gtcp.ResetError, gtcp.PipeError, gtcp.EOF) if sends else gtcp.ResetError  # the kernel says it once
            assert all(isinstance(task.exception(), ends) for task in ended)
            with pytest.raises(ends):
                await conn.recv_pkg(timeout=LONG)

    run(main())


def test_B6_a_package_and_a_reset_in_one_event(run: Run) -> None:
    async def main() -> None:
        async with linked() as (conn, far):
            waiting = await begun(conn.recv_pkg())
            far.sendall(WHOLE)
            reset(far)
            assert await waiting == b"whole"
            with pytest.raises(gtcp.ResetError):
                await conn.recv_pkg(timeout=LONG)

    run(main())


def test_B6_the_next_connection_has_the_number_of_one_that_failed(run: Run) -> None:
    async def main() -> None:
        async with linked() as (conn, far):
            waiting, number = await begun(conn.recv_pkg()), conn.fileno()
            far.sendall(WHOLE)
            reset(far)
            await waiting
        numbers = set()
        async with contextlib.AsyncExitStack() as stack:
            while number not in numbers:
                conn, far = await stack.enter_async_context(linked())
                numbers.add(conn.fileno())
                waiting = await begun(conn.recv_pkg(timeout=LONG))
                far.sendall(WHOLE)
                assert await waiting == b"whole"

    run(main())


@contextlib.contextmanager
def refusing(loop: asyncio.AbstractEventLoop, name: str) -> Iterator[None]:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, name, refuse)
        yield


@pytest.mark.parametrize("refused", ["add_reader", "add_writer"])
def test_B21_a_loop_that_has_no_memory_to_watch_a_socket(refused: str) -> None:
    """The call fails, and later events find nothing of it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with linked(receive_buffer=1 << 12) as (conn, far):
            with refusing(loop, refused), pytest.raises(OSError, match="No space"):
                await conn.send_recv_pkgs([bytes(60_000)] * 300, window=300)  # waits for both directions
            far.sendall(WHOLE)
            await asyncio.sleep(SHORT)
        async with linked() as (conn, far):
            with refusing(loop, "add_reader"), pytest.raises(OSError, match="No space"):
                await conn.recv_pkg()
            far.sendall(WHOLE)
            assert await conn.recv_pkg() == b"whole"

    run("asyncio", main())


# -- sending


@pytest.mark.skipif(sys.maxsize < 2**32, reason="such a buffer needs 64 bits")
def test_C6_a_buffer_of_more_than_2_gib(leaves_no_trace: None) -> None:
    size = 2**31 + 4096

    def drain(far: socket.socket) -> int:
        room, count = bytearray(1 << 20), 0
        while n := far.recv_into(room):
            count += n
        return count

    async def main() -> None:
        async with linked() as (conn, far):
            with mmap.mmap(-1, size, prot=mmap.PROT_READ) as data:
                draining = asyncio.ensure_future(asyncio.to_thread(drain, far))
                await conn.send(data, timeout=6 * LONG)
                conn.close_write()
                assert await draining == size

    run("asyncio", main(), 6 * LONG)  # on one loop: it takes its time


# -- time


def while_the_clock_jumps(kind: str, silent_address: str, echoing: str) -> None:
    year = 365 * 86400

    async def main() -> None:
        for jump in (year, -year):
            async with gtcp.aio.connect(silent_address) as conn:
                with takes(SHORT):
                    waiting = await begun(conn.recv(1, timeout=SHORT))
                    shim.move_clock(jump)
                    await asyncio.wait([waiting])
                assert isinstance(waiting.exception(), gtcp.Timeout)
        async with gtcp.aio.Pool(echoing, ttl=LONG) as pool:
            for jump in (0, year, -year, 0):
                shim.move_clock(jump)
                with quick():
                    async with pool.acquire(LONG) as lease:
                        assert await lease.send_recv(b"tick", 4, timeout=LONG) == b"tick"
            assert pool.stats().created == 1

    run(kind, main())


@on_every_loop
def test_D3_the_wall_clock_jumps(kind: str) -> None:
    with Peer(silent) as peer, Peer(echo) as other:
        child.run(while_the_clock_jumps, kind, peer.address, other.address, environment=shim.environment())


def waits_in_a_storm(kind: str, address: str) -> None:
    signals = 0

    def count(*_: object) -> None:
        nonlocal signals
        signals += 1

    async def main() -> None:
        signal.signal(signal.SIGALRM, count)
        with deaf_address() as deaf:
            async with linked() as (conn, _), linked() as (full, _), gtcp.aio.Pool(address, max_size=1) as pool:
                waits: dict[str, Callable[[float], Coroutine[Any, Any, object]]] = {
                    "recv": lambda t: conn.recv(1, timeout=t),
                    "send": lambda t: full.send(HUGE, timeout=t),
                    "acquire": lambda t: pool.acquire(t)._opened(),
                    "dial": lambda t: gtcp.aio.Conn(deaf, t)._opened(),
                    "exchange": lambda t: conn.send_recv_pkg(b"x", timeout=t),
                }
                async with pool.acquire():
                    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
                    for name, wait in waits.items():
                        before = signals
                        with takes(SHORT):
                            try:
                                await wait(SHORT)
                            except gtcp.Timeout:
                                pass
                            else:
                                raise AssertionError(f"{name}: no timeout")
                        assert signals - before >= 20, f"{name}: {signals - before} signals"
                    signal.setitimer(signal.ITIMER_REAL, 0)

    run(kind, main())


@on_every_loop
def test_D6_waits_in_a_storm_of_signals(kind: str) -> None:
    with Peer(silent) as peer:
        child.run(waits_in_a_storm, kind, peer.address)


def test_D7_what_came_while_the_loop_was_busy_counts(run: Run) -> None:
    """The deadline passes, and what was waited for comes, while somebody else keeps the loop to himself."""

    async def main() -> None:
        async with linked() as (conn, far):
            for part, rest in ((b"", frame(b"hello")), (frame(b"hello")[:3], frame(b"hello")[3:])):
                far.sendall(part)
                waiting = await begun(conn.recv_pkg(timeout=SHORT / 5))
                far.sendall(rest)
                time.sleep(SHORT / 2)  # noqa: ASYNC251 (that is the fault)
                assert await waiting == b"hello"
            exchange = await begun(conn.send_recv_pkg(b"?", timeout=SHORT / 5))
            far.sendall(frame(b"reply"))
            time.sleep(SHORT / 2)  # noqa: ASYNC251
            assert await exchange == b"reply"

    run(main())


def test_D7_a_connection_that_came_back_while_the_loop_was_busy_counts(run: Run, host: Host) -> None:
    async def main() -> None:
        async with gtcp.aio.Pool(host.address, max_size=1) as pool:
            lease = await pool.acquire()
            waiting = await begun(pool.acquire(SHORT / 5)._opened())
            time.sleep(SHORT / 2)  # noqa: ASYNC251
            lease.close()  # type: ignore[unused-coroutine]
            async with await waiting as other:
                assert not other.closed

    run(main())


def test_D7_a_timeout_is_not_much_later_than_the_loop(run: Run) -> None:
    async def main() -> None:
        async with linked() as (conn, _):
            waiting = await begun(conn.recv(1, timeout=SHORT / 5))
            time.sleep(SHORT)  # noqa: ASYNC251
            with takes(0, late=LATE), pytest.raises(gtcp.Timeout):
                await waiting

    run(main())
