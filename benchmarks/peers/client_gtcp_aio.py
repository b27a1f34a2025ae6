"""gtcp in an event loop. Variants: ``asyncio`` and ``uvloop``."""

from __future__ import annotations

import asyncio

import gtcp.aio
from benchmarks.peers._client import AsyncWork, Job, parse_job, request, run_async_client
from benchmarks.peers._loops import run_on


async def exchange(job: Job) -> AsyncWork:
    conn, data = await gtcp.aio.connect(job.address), job.data
    option = gtcp.PkgOption(header_size=job.argument)

    async def work(n: int) -> None:
        for _ in range(n):
            await conn.send_recv_pkg(data, option)

    return work


async def window(job: Job) -> AsyncWork:
    conn, batch = await gtcp.aio.connect(job.address), [job.data] * job.argument

    async def work(n: int) -> None:
        for _ in range(n // len(batch)):
            await conn.send_recv_pkgs(batch)

    return work


async def flood(job: Job) -> AsyncWork:
    conn = await gtcp.aio.connect(job.address)

    async def work(n: int) -> None:
        await conn.send(request(n))
        while n > 0:
            n -= len(await conn.recv_pkgs())

    return work


async def lines(job: Job) -> AsyncWork:
    conn = await gtcp.aio.connect(job.address)

    async def work(n: int) -> None:
        await conn.send(request(n))
        for _ in range(n):
            await conn.recv_line()

    return work


async def tasks(job: Job) -> AsyncWork:
    """``argument`` tasks, each with a connection of its own."""
    single = Job(job.port, "exchange", job.size, 2, job.variant)
    works = [await exchange(single) for _ in range(job.argument)]

    async def work(n: int) -> None:
        await asyncio.gather(*[each(n // len(works)) for each in works])

    return work


async def pool_tasks(job: Job) -> AsyncWork:
    """``argument`` tasks that take a connection of the shared pool for each exchange."""
    data, count, pool = job.data, job.argument, gtcp.aio.get_pool(job.address)

    async def one(n: int) -> None:
        for _ in range(n):
            async with await pool.acquire() as conn:
                await conn.send_recv_pkg(data)

    async def work(n: int) -> None:
        await asyncio.gather(*[one(n // count) for _ in range(count)])

    return work


async def pool_ping(job: Job) -> AsyncWork:
    """``argument`` tasks that share 16 connections to a Redis server: take one, PING, give it back."""
    pool = gtcp.aio.Pool(job.address, max_size=16)

    async def one(n: int) -> None:
        for _ in range(n):
            async with pool.acquire() as conn:
                await conn.send(b"*1\r\n$4\r\nPING\r\n")
                assert await conn.recv_line() == b"+PONG\r"

    async def work(n: int) -> None:
        await asyncio.gather(*[one(n // job.argument) for _ in range(job.argument)])

    return work


WORKS = {
    "exchange": exchange,
    "window": window,
    "flood": flood,
    "lines": lines,
    "tasks": tasks,
    "pool_tasks": pool_tasks,
    "pool_ping": pool_ping,
}

if __name__ == "__main__":
    job = parse_job()
    run_on(job.variant, run_async_client(job, WORKS))
