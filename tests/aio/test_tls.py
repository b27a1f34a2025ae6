"""TLS in an event loop: handshakes, pools of such connections, what goes wrong with them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import gtcp
import gtcp.aio
from aio.conftest import Run
from support.aio import begun, until
from support.peers import silent
from support.timing import LONG, SHORT, quick, takes
from support.tls import Authority


async def echo_packages(conn: gtcp.aio.Conn) -> None:
    async for package in conn.packages():
        await conn.send_pkg(package)


@asynccontextmanager
async def serving(handler: Callable[[gtcp.aio.Conn], Awaitable[object]], **options: Any) -> AsyncIterator[gtcp.Address]:
    async with gtcp.aio.Server("127.0.0.1:0", handler, **options) as server:
        address = server.get_listened_address()
        assert address is not None
        yield address


@asynccontextmanager
async def pool_of(address: gtcp.Address | str, **options: Any) -> AsyncIterator[gtcp.aio.Pool]:
    async with gtcp.aio.Pool(address, **options) as pool:
        yield pool
        await until(lambda: pool.stats().connecting == 0)
        stats = pool.stats()
        assert (stats.in_use, stats.idle) == (0, stats.created - sum(stats.closed.values()))


# -- handshakes


def test_server_and_client(run: Run, authority: Authority) -> None:
    async def main() -> None:
        async with serving(echo_packages, tls=authority.server()) as address:
            async with gtcp.aio.connect(address, LONG, tls=authority.client()) as conn:
                assert await conn.send_recv_pkg(b"secret", timeout=LONG) == b"secret"
                info = conn.tls_info()
                assert info is not None
                assert info.version == "TLSv1.3"
            # The blocking face speaks the same.
            reply = asyncio.to_thread(ask, address, authority)
            assert await reply == b"hello"

    def ask(address: gtcp.Address, authority: Authority) -> bytes:
        with gtcp.Conn(address, LONG, tls=authority.client()) as conn:
            return conn.send_recv_pkg(b"hello", timeout=LONG)

    run(main())


def test_start_tls(run: Run, authority: Authority) -> None:
    async def handle(conn: gtcp.aio.Conn) -> None:
        assert await conn.recv_line() == b"STARTTLS"
        await conn.send(b"go\n")
        await conn.start_tls(authority.server(), server_side=True)
        await echo_packages(conn)

    async def main() -> None:
        async with serving(handle) as address, gtcp.aio.connect(address) as conn:
            assert conn.tls_info() is None
            assert await conn.send_recv(b"STARTTLS\n", 3) == b"go\n"
            await conn.start_tls(authority.client())
            assert await conn.send_recv_pkg(b"secret", timeout=LONG) == b"secret"
            assert conn.tls_info() is not None

    run(main())


def test_G1_a_certificate_that_nobody_trusts(run: Run, authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    stranger = Authority().client()

    async def main() -> None:
        async with serving(echo_packages, tls=authority.server()) as address:
            with pytest.raises(gtcp.TLSError):
                await gtcp.aio.connect(address, LONG, tls=stranger)
            async with pool_of(address, max_size=1, tls=stranger) as pool:
                for _ in range(3):  # the place is free again
                    with pytest.raises(gtcp.TLSError):
                        await pool.acquire(LONG)
            async with gtcp.aio.connect(address, LONG, tls=authority.client()) as conn:
                assert await conn.send_recv_pkg(b"x", timeout=LONG) == b"x"

    run(main())
    reports = [record for record in caplog.records if record.name == "gtcp"]
    assert {record.levelno for record in reports} == {logging.WARNING}
    assert len(reports) == 4


def test_G3_a_handshake_that_never_ends(run: Run, authority: Authority, peer: Any) -> None:
    ours = authority.client()

    async def main() -> None:
        address = peer(silent).address
        with takes(SHORT), pytest.raises(gtcp.Timeout):
            await gtcp.aio.connect(address, SHORT, tls=ours)
        async with pool_of(address, max_size=1, tls=ours) as pool:
            with takes(SHORT), pytest.raises(gtcp.PoolTimeout, match="agreeing on TLS") as caught:
                await pool.acquire(SHORT)
            assert caught.value.stats is not None
        async with (
            serving(echo_packages, tls=authority.server(), handshake_timeout=3 * SHORT) as there,
            gtcp.aio.connect(there) as mute,
            gtcp.aio.connect(there, tls=ours) as conn,
        ):
            with quick():
                assert await conn.send_recv_pkg(b"x", timeout=LONG) == b"x"
            with pytest.raises((gtcp.EOF, gtcp.ResetError)):
                await mute.recv(1, timeout=LONG)

    run(main())


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 21])
def test_a_cancelled_handshake_costs_no_place(run: Run, authority: Authority, turns: int) -> None:
    async def main() -> None:
        async with (
            serving(echo_packages, tls=authority.server()) as address,
            pool_of(address, max_size=1, tls=authority.client()) as pool,
        ):
            for way in (pool.acquire, lambda: gtcp.aio.connect(address, tls=authority.client())):
                opening = asyncio.ensure_future(way()._opened())
                for _ in range(turns):
                    await asyncio.sleep(0)
                opening.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await (await opening).close()
            async with pool.acquire(LONG) as lease:
                assert await lease.send_recv_pkg(b"x", timeout=LONG) == b"x"

    run(main())


# -- in a pool


def test_E23_each_context_has_a_shared_pool_of_its_own(run: Run, authority: Authority) -> None:
    async def main() -> None:
        one, two = authority.client(), authority.client()
        async with serving(echo_packages, tls=authority.server()) as address:
            ports = set()
            for tls in (one, one, two):
                async with gtcp.aio.PoolConn(address, LONG, tls=tls) as lease:
                    assert await lease.send_recv_pkg(b"x", timeout=LONG) == b"x"
                    ports.add(lease.local_addr().port)
            assert len(ports) == len(gtcp.aio.pools()) == 2

    run(main())


def test_E6_a_cancelled_exchange_discards_and_its_reply_goes_nowhere(run: Run, authority: Authority) -> None:
    async def main() -> None:
        answer = asyncio.Event()

        async def handle(conn: gtcp.aio.Conn) -> None:
            with contextlib.suppress(gtcp.Error):  # the first client does not wait
                async for package in conn.packages():
                    if package == b"slow":
                        await answer.wait()
                    await conn.send_pkg(package)

        async with (
            serving(handle, tls=authority.server()) as address,
            pool_of(address, max_size=1, tls=authority.client()) as pool,
        ):
            async with pool.acquire(LONG) as lease:
                slow = await begun(lease.send_recv_pkg(b"slow"))
                slow.cancel()
                await asyncio.wait([slow])
                answer.set()
            async with pool.acquire(LONG) as lease:
                assert await lease.send_recv_pkg(b"fast", timeout=LONG) == b"fast"
            assert (pool.stats().closed["error"], pool.stats().idle) == (1, 1)

    run(main())


# -- established


def test_G9_both_ways_at_once(run: Run, authority: Authority) -> None:
    block, blocks = random.Random(9).randbytes(1 << 20), 8

    async def exchange(conn: gtcp.aio.Conn) -> None:
        async def send() -> None:
            for _ in range(blocks):
                await conn.send(block, timeout=LONG)

        sending = asyncio.ensure_future(send())
        for _ in range(blocks):
            assert await conn.recv(len(block), timeout=LONG) == block
        await sending

    async def main() -> None:
        async with (
            serving(exchange, tls=authority.server()) as address,
            gtcp.aio.connect(address, tls=authority.client()) as conn,
        ):
            await exchange(conn)

    run(main())


def test_one_task_opens_a_connection_also_amid_its_handshake(run: Run, authority: Authority) -> None:
    async def main() -> None:
        async def handler(conn: gtcp.aio.Conn) -> None:
            await go_on.wait()
            await conn.start_tls(authority.server(), server_side=True)
            await conn.send(b"x")

        go_on = asyncio.Event()
        async with serving(handler) as address:
            conn = gtcp.aio.connect(address, LONG, tls=authority.client())
            first = asyncio.ensure_future(conn._opened())
            await until(lambda: not conn.closed)  # it has a socket, and waits for the peer
            with pytest.raises(gtcp.ConcurrencyError, match="another task is opening"):
                await conn.__aenter__()
            go_on.set()
            async with await first:
                assert await conn.recv(1) == b"x"

    run(main())


def test_close_write_never_holds_up_the_loop(run: Run, authority: Authority) -> None:
    async def main() -> None:
        release = asyncio.Event()

        async def deaf(conn: gtcp.aio.Conn) -> None:
            await release.wait()
            with contextlib.suppress(gtcp.EOF):
                while True:
                    await conn.recv(0)
            await conn.send(b"all")

        async with (
            serving(deaf, tls=authority.server()) as address,
            gtcp.aio.connect(address, LONG, tls=authority.client()) as conn,
        ):
            sending = await begun(conn.send(bytes(32 << 20)))
            with quick(SHORT / 2), pytest.raises(gtcp.Timeout):
                conn.close_write()  # in the middle of a send
            assert not sending.done()
            release.set()
            await sending
            await until(lambda: is_half_closed(conn))
            assert await conn.recv(3, timeout=LONG) == b"all"

    run(main())


def is_half_closed(conn: gtcp.aio.Conn) -> bool:
    try:
        conn.close_write()
    except gtcp.Timeout:
        return False
    return True


@pytest.mark.parametrize("awaited", [True, False])
def test_G10_a_peer_that_never_says_goodbye_does_not_hold_up_a_close(
    run: Run, authority: Authority, awaited: bool
) -> None:
    async def main() -> None:
        over = asyncio.Event()

        async def handle(conn: gtcp.aio.Conn) -> None:
            await over.wait()

        async with serving(handle, tls=authority.server()) as address:
            conn = await gtcp.aio.connect(address, tls=authority.client())
            with quick(0.1 + SHORT):
                closing = conn.close()
                if awaited:
                    await closing
            del closing
            assert conn.closed
            over.set()

    run(main())
