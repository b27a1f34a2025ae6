"""Forks of a process that has a loop: the child leaves its parent's connections alone and makes its own (E19)."""

from __future__ import annotations

import asyncio
import gc
import os

import pytest

import gtcp
import gtcp.aio
from support import child
from support.aio import begun, linked, until
from support.forks import fork, join
from support.loops import LOOPS, run
from support.peers import Peer, Talker, deaf_address
from support.timing import LONG, eventually, quick
from support.tls import Authority


async def answers(conn: gtcp.aio.Conn, text: bytes) -> bool:
    return await conn.send_recv_pkg(text, timeout=LONG) == text


def pool_with_idle_and_leased(kind: str, ending: str) -> None:
    talker = Talker()

    async def in_the_child(pool: gtcp.aio.Pool, held: list[gtcp.aio.PoolConn], ports: set[int]) -> None:
        assert (pool.stats().idle, pool.stats().in_use, pool.stats().closed["forked"]) == (0, 0, 2)
        for use in (held[0].send(b"x"), held[0].recv(0)):
            with pytest.raises(gtcp.ClosedError, match="forked"):
                await use
        async with pool.acquire() as own:
            assert own.local_addr().port not in ports
            assert await answers(own, b"own")
        assert (pool.stats().idle, pool.stats().in_use) == (1, 0)
        match ending:
            case "close":
                await held[0].close()
                await pool.close()
            case "abort":
                held[0].abort()
            case "drop":
                held.clear()
                gc.collect()

    async def main(address: str) -> None:
        async with gtcp.aio.Pool(address) as pool:
            held = [await pool.acquire()]
            async with pool.acquire() as idle:
                assert await answers(held[0], b"leased")
                assert await answers(idle, b"idle")
                ports = {held[0].local_addr().port, idle.local_addr().port}
            # The loop watches both; the child has a loop of its own.
            pid = fork(lambda: run(kind, in_the_child(pool, held, ports)), finalize=ending != "exit at once")
            await asyncio.to_thread(join, pid)
            await until(lambda: talker.ended == 1)  # the child's own
            assert (pool.stats().idle, pool.stats().in_use) == (1, 1)
            assert await answers(held[0], b"still mine")
            await held[0].close()
            async with pool.acquire() as first, pool.acquire() as second:
                assert {first.local_addr().port, second.local_addr().port} == ports
                assert await answers(first, b"first")
                assert await answers(second, b"second")
            assert talker.ended == 1
        eventually(lambda: talker.ended == 3)

    with Peer(talker) as peer:
        run(kind, main(peer.address), 2 * LONG)


@pytest.mark.parametrize("ending", ["exit at once", "exit", "close", "abort", "drop"])
@pytest.mark.parametrize("kind", LOOPS)
def test_E19_a_child_leaves_the_connections_of_a_pool_to_its_parent(kind: str, ending: str) -> None:
    child.run(pool_with_idle_and_leased, kind, ending)


def pool_that_dials(kind: str) -> None:
    async def in_the_child(pool: gtcp.aio.Pool) -> None:
        stats = pool.stats()
        assert (stats.connecting, stats.waiting, stats.in_use) == (0, 0, 0)
        with quick():
            await pool.close()

    async def main(address: str) -> None:
        async with gtcp.aio.Pool(address, max_size=1) as pool:
            dialling, waiting = [await begun(pool.acquire()._opened()) for _ in range(2)]
            assert (pool.stats().connecting, pool.stats().waiting) == (1, 1)
            await asyncio.to_thread(join, fork(lambda: run(kind, in_the_child(pool)), finalize=False))
            assert (pool.stats().connecting, pool.stats().waiting) == (1, 1)
            assert not dialling.done()
            await pool.close()
            for task in (dialling, waiting):
                with pytest.raises(gtcp.PoolClosed):
                    await task

    with deaf_address() as address:
        run(kind, main(address))


@pytest.mark.parametrize("kind", LOOPS)
def test_E20_a_child_waits_for_no_dial_of_its_parent(kind: str) -> None:
    child.run(pool_that_dials, kind)


def connection(kind: str, ending: str) -> None:
    async def main() -> None:
        async with linked() as (conn, far):
            waiting = asyncio.ensure_future(conn.recv_line())
            await asyncio.sleep(0)  # the loop watches the socket now
            join(fork(conn._discard if ending == "close" else lambda: None))
            far.sendall(b"line\n")
            assert await asyncio.wait_for(waiting, LONG) == b"line"
            await conn.send(b"ping")
            assert far.recv(4) == b"ping"

    run(kind, main())


@pytest.mark.parametrize("ending", ["exit", "close"])
@pytest.mark.parametrize("kind", LOOPS)
def test_E19_H8_a_child_leaves_a_connection_to_its_parent(kind: str, ending: str) -> None:
    child.run(connection, kind, ending)


def busy_in_the_child(kind: str) -> None:
    """Its loop is the parent's, whose epoll a child that waited would change."""

    async def in_the_child(conn: gtcp.aio.Conn) -> None:
        for use in (conn.send(b"x"), conn.recv(1), conn.send_recv_pkg(b"x")):
            with quick(), pytest.raises(gtcp.ClosedError, match="forked"):
                await use
        number = conn.fileno()
        await conn.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)

    async def main() -> None:
        async with linked() as (conn, far):
            waiting = await begun(conn.recv_line())
            pid = fork(lambda: run(kind, in_the_child(conn)), finalize=False)
            await asyncio.to_thread(join, pid)
            far.sendall(b"line\n")
            assert await asyncio.wait_for(waiting, LONG) == b"line"
            await conn.send(b"ping")
            assert far.recv(100) == b"ping"

    run(kind, main())


@pytest.mark.parametrize("kind", LOOPS)
def test_E19_H8_a_child_is_refused_a_connection_of_its_parents_loop(kind: str) -> None:
    child.run(busy_in_the_child, kind)


def secure(kind: str, ending: str) -> None:
    """A close_notify of the child, or anything else that it encrypts, would end the session under its parent."""
    authority = Authority()
    ours = authority.client()

    def echo(conn: gtcp.Conn) -> None:
        for package in conn.packages():
            conn.send_pkg(package)

    async def in_the_child(pool: gtcp.aio.Pool, held: list[gtcp.aio.Conn]) -> None:
        for use in (held[0].send(b"x"), held[0].recv(0)):
            with pytest.raises(gtcp.ClosedError, match="forked"):
                await use
        match ending:
            case "close":
                await held[0].close()
                await pool.close()
            case "abort":
                held[0].abort()
            case "drop":
                held.clear()
                gc.collect()

    async def main(address: gtcp.Address) -> None:
        async with gtcp.aio.connect(address, tls=ours) as conn, gtcp.aio.Pool(address, tls=ours) as pool:
            async with pool.acquire() as lease:
                assert await answers(lease, b"before")
            assert await answers(conn, b"before")
            held = [conn]
            pid = fork(lambda: run(kind, in_the_child(pool, held)), finalize=False)
            await asyncio.to_thread(join, pid)
            assert await answers(conn, b"after")
            async with pool.acquire() as lease:
                assert await answers(lease, b"after")
            assert pool.stats().created == 1

    with gtcp.Server("127.0.0.1:0", echo, tls=authority.server()) as server:
        address = server.get_listened_address()
        assert address is not None
        run(kind, main(address), 2 * LONG)


@pytest.mark.parametrize("ending", ["close", "abort", "drop"])
@pytest.mark.parametrize("kind", LOOPS)
def test_E19_a_child_says_no_goodbye_on_its_parents_tls_connections(kind: str, ending: str) -> None:
    child.run(secure, kind, ending)
