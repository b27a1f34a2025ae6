"""Loops that take turns in a thread, a loop that moves, and threads that end what a loop has opened."""

from __future__ import annotations

import asyncio
import gc
import queue
import socket
import threading
import warnings
from typing import Any

import pytest

import gtcp
import gtcp.aio
from gtcp.aio import _loops
from support.calls import Call
from support.leaks import descriptors
from support.loops import LoopThread, new_loop, run
from support.peers import echo, socket_pair
from support.timing import LONG, eventually

HERE = "127.0.0.1:0"
ANOTHER = "another event loop"


async def echo_packages(conn: gtcp.aio.Conn) -> None:
    async for package in conn.packages():
        await conn.send_pkg(package)


class Things:
    """What a loop has open."""

    conn: gtcp.aio.Conn
    lease: gtcp.aio.PoolConn
    pool: gtcp.aio.Pool
    server: gtcp.aio.Server

    async def open(self) -> None:
        self.server = gtcp.aio.Server(HERE, echo_packages)
        await self.server.start()
        address = str(self.server.get_listened_address())
        self.conn = await gtcp.aio.connect(address)
        self.pool = gtcp.aio.Pool(address, max_size=2)
        self.lease = await self.pool.acquire()

    async def work(self) -> None:
        async with self.pool.acquire() as lease, gtcp.aio.connect(self.pool.addr) as conn:
            for each in (self.conn, self.lease, lease, conn):
                assert await each.send_recv_pkg(b"hello", timeout=LONG) == b"hello"
        assert self.pool.stats().idle == 1

    async def are_refused(self) -> None:
        """To other loops, at once, and with no harm."""
        before = self.pool.stats()
        uses = [
            self.conn.recv(0),
            self.conn.send_recv_pkg(b"x"),
            self.conn.send(b""),
            self.lease.send_pkg(b"x"),
            self.lease.recv_pkg(),
            self.pool.prefill(1),
            self.pool.close(),
            self.server.close(),
            self.server.shutdown(0),
            self.server.serve_forever(),
        ]
        for use in uses:
            with pytest.raises(RuntimeError, match=ANOTHER):
                await use
        with pytest.raises(RuntimeError, match=ANOTHER):
            await self.pool.acquire()
        with pytest.raises(RuntimeError, match="running already"):
            await self.server.start()
        assert self.pool.stats() == before

    async def close(self) -> None:
        await self.lease.close()
        await self.conn.close()
        stats = self.pool.stats()
        assert (stats.created, stats.idle, stats.closed["error"]) == (2, 2, 0)
        await self.pool.close()
        await self.server.close()


def test_two_loops_take_turns(loop_kind: str) -> None:
    loops = [new_loop(loop_kind), new_loop(loop_kind)]
    things = [Things(), Things()]
    for loop, mine in zip(loops, things, strict=True):
        loop.run_until_complete(mine.open())
    for _ in range(3):
        for loop, mine, other in zip(loops, things, reversed(things), strict=True):
            loop.run_until_complete(mine.work())
            loop.run_until_complete(other.are_refused())
    for loop, mine in zip(loops, things, strict=True):
        loop.run_until_complete(mine.close())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def test_a_server_whose_loop_was_closed_may_be_closed_in_another(loop_kind: str) -> None:
    async def open_it(server: gtcp.aio.Server) -> gtcp.aio.Conn:
        await server.start()
        return await gtcp.aio.connect(str(server.get_listened_address()))

    first, second = new_loop(loop_kind), new_loop(loop_kind)
    server = gtcp.aio.Server(HERE, echo_packages)
    conn = first.run_until_complete(open_it(server))
    address = server.get_listened_address()
    first.close()
    second.run_until_complete(server.close())
    assert server.get_listened_port() == -1
    conn.close()  # type: ignore[unused-coroutine]
    server.set_address(str(address))
    again = second.run_until_complete(open_it(server))  # the port is free
    second.run_until_complete(again.close())
    second.run_until_complete(server.close())
    second.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of cleaning up: it is Python's to say
@pytest.mark.parametrize("cleans_up", [False, True], ids=["lets go", "cleans up"])
def test_a_handler_whose_loop_was_closed_has_one_end_and_no_failure(
    loop_kind: str, caplog: pytest.LogCaptureFixture, cleans_up: bool
) -> None:
    ends: list[BaseException | None] = []
    at_work = asyncio.Event()

    async def handler(conn: gtcp.aio.Conn) -> None:
        helper = asyncio.create_task(asyncio.sleep(LONG))
        at_work.set()
        try:
            await conn.recv(1)
        finally:
            if cleans_up:
                helper.cancel()  # which a loop that is closed refuses

    async def open_it() -> gtcp.aio.Conn:
        await server.start()
        client = await gtcp.aio.connect(str(server.get_listened_address()))
        await at_work.wait()
        return client

    first, second = new_loop(loop_kind), new_loop(loop_kind)
    server = gtcp.aio.Server(HERE, handler, on_close=lambda conn, error: ends.append(error))
    client = first.run_until_complete(open_it())
    first.close()
    second.run_until_complete(server.close())
    second.close()
    assert (server.stats().connections, server.connections) == (0, [])
    assert [type(end) for end in ends] == [asyncio.CancelledError]
    client.close()  # type: ignore[unused-coroutine]
    del client, first
    gc.unfreeze()  # a call's object may be older than the test
    gc.collect()  # ends the handler
    assert len(ends) == 1
    assert server.stats().failed == 0
    assert [record.message for record in caplog.records if record.name == "gtcp"] == []


def test_a_handler_that_raises_GeneratorExit_has_failed(loop_kind: str) -> None:
    async def handler(conn: gtcp.aio.Conn) -> None:
        raise GeneratorExit

    async def main() -> None:
        async with gtcp.aio.Server(HERE, handler) as server:
            async with gtcp.aio.connect(str(server.get_listened_address())) as client:
                with pytest.raises(gtcp.EOF):
                    await client.recv(1, timeout=LONG)
            assert server.stats().failed == 1

    run(loop_kind, main())


def test_without_a_loop_a_socket_stays_the_callers() -> None:
    near, far = socket.socketpair()
    with near, far:
        with pytest.raises(RuntimeError, match="no running event loop"):
            gtcp.aio.Conn.from_socket(near)
        far.sendall(b"x")
        assert near.recv(1) == b"x"


@pytest.mark.parametrize("busy", [False, True], ids=["at rest", "at work"])
def test_a_loop_moves_to_another_thread(loop_kind: str, peer: Any, busy: bool) -> None:
    """Its connections go with it, also one that is dropped where they came from."""
    loop = new_loop(loop_kind)

    async def connect() -> gtcp.aio.Conn:
        return await gtcp.aio.connect(peer(echo).address)

    async def work(conn: gtcp.aio.Conn) -> None:
        assert await conn.send_recv(b"x", 1, timeout=LONG) == b"x"

    kept, dropped = loop.run_until_complete(connect()), [loop.run_until_complete(connect())]
    loop.run_until_complete(work(dropped[0]))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(work(kept), loop).result(LONG)
    if busy:
        asyncio.run_coroutine_threadsafe(work(dropped[0]), loop).result(LONG)
    for end in (kept.close, kept.abort, kept.detach):
        with pytest.raises(RuntimeError, match="event loop"):
            end()
    number = dropped[0].fileno()
    with pytest.warns(ResourceWarning, match="unclosed"):
        dropped.clear()
    eventually(lambda: number not in {fd for fd, _ in descriptors()})
    asyncio.run_coroutine_threadsafe(work(kept), loop).result(LONG)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.run_until_complete(kept.close())
    loop.close()


def test_one_loop_after_the_other(loop_kind: str, peer: Any) -> None:
    """What a loop has left open may be closed in others; none can wait with it."""
    address = peer(echo).address
    first, second = new_loop(loop_kind), new_loop(loop_kind)

    async def use(conn: gtcp.aio.Conn) -> None:
        with pytest.raises(RuntimeError, match=ANOTHER):
            await conn.recv(1)
        await conn.close()

    async def connect() -> gtcp.aio.Conn:
        return await gtcp.aio.connect(address)

    conn = first.run_until_complete(connect())
    second.run_until_complete(use(conn))
    assert conn.closed
    other = first.run_until_complete(connect())
    first.close()
    other.close()  # type: ignore[unused-coroutine]
    assert other.closed
    second.close()


def test_what_ends_between_two_runs_of_the_loop_has_its_hooks_in_the_next(loop_kind: str, peer: Any) -> None:
    told: list[str] = []

    async def on_release(lease: gtcp.aio.PoolConn) -> None:
        await asyncio.sleep(0)
        told.append("released")

    async def on_close(conn: gtcp.aio.Conn, reason: str) -> None:
        await asyncio.sleep(0)
        told.append(reason)

    async def take() -> gtcp.aio.PoolConn:
        return await pool.acquire(LONG)

    loop = new_loop(loop_kind)
    pool = gtcp.aio.Pool(peer(echo).address, max_size=1, on_release=on_release, on_close=on_close)
    lease = loop.run_until_complete(take())
    lease.close()  # type: ignore[unused-coroutine]
    lease = loop.run_until_complete(take())
    assert told == ["released"]
    lease.discard()
    assert lease.closed
    assert told == ["released"]
    loop.run_until_complete(pool.close())
    assert told == ["released", "discarded"]
    loop.close()


# -- other threads


async def waited_for(sock: socket.socket) -> gtcp.aio.Conn:
    """A connection that the loop has an eye on, as somebody has waited for it."""
    conn = gtcp.aio.Conn.from_socket(sock)
    with pytest.raises(gtcp.Timeout):
        await conn.recv(1, timeout=0.001)
    return conn


def test_a_descriptor_is_taken_away_in_the_loops_thread_only(loop_kind: str) -> None:
    with socket_pair() as (ours, _):
        loop = new_loop(loop_kind)
        conn = loop.run_until_complete(waited_for(ours))
        with pytest.raises(RuntimeError, match="thread"):
            Call(conn.detach).result()
        with conn.detach() as sock:
            assert sock.fileno() >= 0
        loop.close()


def test_what_a_thread_closed_goes_with_a_loop_that_never_runs_again(loop_kind: str) -> None:
    with socket_pair() as (ours, theirs):
        loop = new_loop(loop_kind)
        conn = loop.run_until_complete(waited_for(ours))
        Call(conn.close).result()
        assert conn.closed
        loop.close()
        del conn, loop
        gc.collect()
        assert theirs.recv(1) == b""


@pytest.mark.parametrize("how", ["dropped", "discarded"])
def test_threads_end_connections_while_their_loop_is_at_work(loop_kind: str, peer: Any, how: str) -> None:
    """No descriptor is closed under the loop's eye, so none that takes its number is mistaken for it."""
    address = peer(echo).address
    doomed: queue.SimpleQueue[gtcp.aio.Conn | None] = queue.SimpleQueue()

    def end_them() -> None:
        while (conn := doomed.get()) is not None:
            if how == "discarded":
                conn._discard()
            del conn
            with socket.socket():  # takes the number, if that is free too early
                pass

    async def work(number: int) -> None:
        for i in range(100):
            conn = await gtcp.aio.connect(address)
            text = b"%d %d" % (number, i)
            assert await conn.send_recv(text, len(text), timeout=LONG) == text
            await conn.send(b"unread")  # the echo finds the loop still watching
            doomed.put(conn)
            del conn

    with warnings.catch_warnings(), LoopThread(loop_kind) as thread:
        warnings.simplefilter("ignore", ResourceWarning)
        before = descriptors()
        enders = [Call(end_them) for _ in range(3)]
        for work_ in [asyncio.run_coroutine_threadsafe(work(number), thread.loop) for number in range(4)]:
            work_.result(2 * LONG)
        for _ in enders:
            doomed.put(None)
        for ender in enders:
            ender.result()
        eventually(lambda: not watched(thread.loop))
        eventually(lambda: len(descriptors()) <= len(before))


def watched(loop: asyncio.AbstractEventLoop) -> list[int]:
    """The descriptors with a reader of ours."""
    if not isinstance(loop, asyncio.SelectorEventLoop):
        return []  # it tells nobody
    selector: Any = loop._selector  # type: ignore[attr-defined]
    own: Any = loop._ssock  # type: ignore[attr-defined]
    return [fd for fd in list(selector.get_map()) if fd != own.fileno()]


def test_a_loop_begins_while_another_thread_clears_away_one_that_has_ended() -> None:
    class Ended:
        def is_closed(self) -> bool:
            del _loops._homes[self]  # type: ignore[arg-type]  # as the other thread does
            return True

    for _ in range(2):
        _loops._homes[Ended()] = _loops.Home()  # type: ignore[index]

    async def main() -> None:
        assert gtcp.aio.pools() == []

    asyncio.run(main())
