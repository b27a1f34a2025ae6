"""Tasks that are cancelled at any moment, on a small pool and on shared connections: no place is lost, no reply is
another one's, no descriptor stays open."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import time
import warnings
from collections.abc import Awaitable, Callable

import gtcp.aio
from support.aio import until
from support.leaks import descriptors

TASKS = 64
PLACES = 8

Exchange = Callable[[bytes], Awaitable[None]]


async def serve(conn: gtcp.aio.Conn) -> None:
    with contextlib.suppress(gtcp.Error):  # of clients that were cancelled
        async for package in conn.packages():
            if random.random() < 0.2:
                await asyncio.sleep(0)
            await conn.send_pkg(package)


async def client(exchange: Exchange, count: int, rng: random.Random) -> int:
    """Exchanges, each cancelled after a few turns of the loop if it is not done by then, until `count` were cancelled.

    Answers how many were done in time.
    """
    me = rng.randbytes(8).hex()
    done = cancelled = 0
    while cancelled < count:
        text = f"{me}-{done + cancelled} ".encode() * rng.choice([1, 1, 1, 300])
        task = asyncio.ensure_future(exchange(text))
        for _ in range(rng.choice([0, 1, 2, 3, 5, 8, 20, 100])):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
            done += 1
        except asyncio.CancelledError:
            cancelled += 1
    return done


async def clients(exchange: Exchange, count: int, seed: str) -> int:
    done = await asyncio.gather(
        *[client(exchange, -(-count // TASKS), random.Random(f"{seed}/{number}")) for number in range(TASKS)]
    )
    return sum(done)


async def on_a_pool(address: gtcp.Address, count: int, seed: str) -> int:
    rng = random.Random(seed)
    async with gtcp.aio.Pool(address, max_size=PLACES) as pool:

        async def exchange(text: bytes) -> None:
            async with pool.acquire(60.0) as lease:
                if rng.random() < 0.5:
                    await asyncio.sleep(0)
                assert await lease.send_recv_pkg(text) == text

        done = await clients(exchange, count, seed)
        await until(lambda: pool.stats().connecting == 0)
        stats = pool.stats()
        assert (stats.in_use, stats.waiting) == (0, 0), stats
        assert stats.idle == stats.created - sum(stats.closed.values()), stats
        leases = [await pool.acquire(10.0) for _ in range(PLACES)]  # every place is there
        for lease in leases:
            assert await lease.send_recv_pkg(b"mine", timeout=10.0) == b"mine"
            await lease.close()
    return done


async def on_shared_connections(address: gtcp.Address, count: int, seed: str) -> int:
    """Whoever finds one out of step, as somebody was cancelled on it, puts a new one in its place."""
    rng = random.Random(seed)
    shared = [await gtcp.aio.connect(address) for _ in range(PLACES)]

    async def exchange(text: bytes) -> None:
        while True:
            place = rng.randrange(PLACES)
            conn = shared[place]
            try:
                assert await conn.send_recv_pkg(text) == text
                return
            except (gtcp.BrokenError, gtcp.ClosedError):
                spare = await gtcp.aio.connect(address)
                if shared[place] is conn:
                    shared[place], spare = spare, conn
                spare.abort()  # no port waits: there are fewer of them than dials

    done = await clients(exchange, count, seed)
    for conn in shared:
        await conn.close()
    return done


async def storm(scene: Callable[[gtcp.Address, int, str], Awaitable[int]], count: int, seed: str) -> int:
    async with gtcp.aio.Server("127.0.0.1:0", serve) as server:
        address = server.get_listened_address()
        assert address is not None
        return await scene(address, count, seed)


def all_of_them(count: int) -> None:
    """As many on each kind of loop, a tenth of them in debug mode; what is forgotten is an error."""
    import uvloop

    warnings.simplefilter("error")
    uvloop.new_event_loop().close()  # the first one opens what the process keeps
    asyncio.new_event_loop().close()
    before = descriptors()
    for name, make in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)):
        for scene, debug, share in (
            (on_a_pool, False, count * 6 // 10),
            (on_a_pool, True, count // 10),
            (on_shared_connections, False, count * 3 // 10),
        ):
            what = f"{scene.__name__} of {name}{', debug mode' if debug else ''}".replace("_", " ")
            start = time.monotonic()
            complaints: list[object] = []
            loop = make()
            loop.set_debug(debug)
            loop.slow_callback_duration = 1e9
            loop.set_exception_handler(lambda _, context, told=complaints: told.append(context))
            done = loop.run_until_complete(storm(scene, share, what))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
            gc.collect()
            assert complaints == [], complaints
            print(
                f"cancellations {what}: {share} cancelled, {done} done in {time.monotonic() - start:.0f} s, "
                "no place lost, no foreign reply",
                flush=True,
            )
    assert descriptors() == before, descriptors() ^ before
