"""redis-py's asyncio client and its pool, against a Redis server. Variants: ``asyncio`` and ``uvloop``."""

from __future__ import annotations

import asyncio

import hiredis  # noqa: F401  (redis-py uses it when it is there; without it this peer would be another one)
import redis.asyncio

from benchmarks.peers._client import HOST, TIMEOUT, AsyncWork, Job, parse_job, run_async_client
from benchmarks.peers._loops import run_on

CONNECTIONS = 16


async def pool_ping(job: Job) -> AsyncWork:
    """``argument`` tasks that share 16 connections: take one, PING, give it back."""
    pool = redis.asyncio.BlockingConnectionPool(host=HOST, port=job.port, max_connections=CONNECTIONS, timeout=TIMEOUT)
    client = redis.asyncio.Redis(connection_pool=pool)

    async def one(n: int) -> None:
        for _ in range(n):
            await client.ping()

    async def work(n: int) -> None:
        await asyncio.gather(*[one(n // job.argument) for _ in range(job.argument)])

    return work


if __name__ == "__main__":
    job = parse_job()
    run_on(job.variant, run_async_client(job, {"pool_ping": pool_ping}))
