"""Tasks that share a small pool and are cancelled at any moment: no place is lost, no reply is another one's."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import time
import warnings

import gtcp.aio
from support.aio import until
from support.leaks import descriptors

TASKS = 64
PLACES = 8


async def serve(conn: gtcp.aio.Conn) -> None:
    with contextlib.suppress(gtcp.Error):  # of clients that were cancelled
        async for package in conn.packages():
            if random.random() < 0.2:
                await asyncio.sleep(0)
            await conn.send_pkg(package)


async def client(pool: gtcp.aio.Pool, number: int, count: int, seed: int) -> tuple[int, int]:
    """`count` exchanges, each cancelled after a few turns of the loop if it is not done by then."""
    rng = random.Random(seed * 1000 + number)

    async def exchange(text: bytes) -> None:
        async with pool.acquire(60.0) as lease:
            if rng.random() < 0.5:
                await asyncio.sleep(0)
            assert await lease.send_recv_pkg(text) == text

    done = cancelled = 0
    for i in range(count):
        task = asyncio.ensure_future(exchange(b"%d-%d " % (number, i) * rng.choice([1, 1, 1, 300])))
        for _ in range(rng.choice([0, 1, 2, 3, 5, 8, 20, 100])):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
            done += 1
        except asyncio.CancelledError:
            cancelled += 1
    return done, cancelled


async def storm(count: int, seed: int) -> tuple[int, int]:
    async with gtcp.aio.Server("127.0.0.1:0", serve) as server:
        address = server.get_listened_address()
        assert address is not None
        async with gtcp.aio.Pool(address, max_size=PLACES) as pool:
            ends = await asyncio.gather(*[client(pool, i, count // TASKS, seed) for i in range(TASKS)])
            await until(lambda: pool.stats().connecting == 0)
            stats = pool.stats()
            assert (stats.in_use, stats.waiting) == (0, 0), stats
            assert stats.idle == stats.created - sum(stats.closed.values()), stats
            leases = [await pool.acquire(10.0) for _ in range(PLACES)]  # every place is there
            for lease in leases:
                assert await lease.send_recv_pkg(b"mine", timeout=10.0) == b"mine"
                await lease.close()
    return sum(done for done, _ in ends), sum(cancelled for _, cancelled in ends)


def all_of_them(count: int) -> None:
    """On both kinds of loops, in debug mode for a tenth of them; what is forgotten is an error."""
    import uvloop

    warnings.simplefilter("error")
    uvloop.new_event_loop().close()  # the first one opens what the process keeps
    asyncio.new_event_loop().close()
    before = descriptors()
    for name, make in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)):
        for debug, share in ((False, count * 9 // 20), (True, count // 20)):
            start = time.monotonic()
            complaints: list[object] = []
            loop = make()
            loop.set_debug(debug)
            loop.slow_callback_duration = 1e9
            loop.set_exception_handler(lambda _, context, told=complaints: told.append(context))
            done, cancelled = loop.run_until_complete(storm(max(TASKS, share), share))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
            gc.collect()
            assert complaints == [], complaints
            took = time.monotonic() - start
            print(
                f"cancellations on {name}{', debug mode' if debug else ''}: {cancelled} cancelled, {done} done "
                f"in {took:.0f} s, no place lost, no foreign reply",
                flush=True,
            )
    assert descriptors() == before, descriptors() ^ before
