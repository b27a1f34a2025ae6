"""asyncio streams. Variants: ``asyncio`` and ``uvloop``. No timeouts: they would only slow the peer down."""

from __future__ import annotations

import asyncio

from benchmarks.peers._client import HOST, AsyncWork, Job, frame, parse_job, request, run_async_client
from benchmarks.peers._loops import run_on

LIMIT = 256 * 1024  # asyncio's default of 64 KiB pauses reading early
RAW_READ = 65536
BATCH = 512


async def _open(job: Job) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(HOST, job.port, limit=LIMIT)


async def exchange(job: Job) -> AsyncWork:
    reader, writer = await _open(job)
    data, header = job.data, job.argument

    async def work(n: int) -> None:
        for _ in range(n):
            writer.write(frame(data, header))
            await writer.drain()
            await reader.readexactly(int.from_bytes(await reader.readexactly(header), "big"))

    return work


async def raw(job: Job) -> AsyncWork:
    reader, writer = await _open(job)
    data, size = job.data, job.size

    async def work(n: int) -> None:
        for _ in range(n):
            writer.write(data)
            await writer.drain()
            have = len(await reader.read(RAW_READ))
            while have < size:
                have += len(await reader.read(RAW_READ))

    return work


async def window(job: Job) -> AsyncWork:
    reader, writer = await _open(job)
    data, count = job.data, job.argument

    async def work(n: int) -> None:
        for _ in range(n // count):
            writer.write(b"".join([frame(data, 2) for _ in range(count)]))
            await writer.drain()
            for _ in range(count):
                await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))

    return work


async def flood(job: Job) -> AsyncWork:
    reader, writer = await _open(job)

    async def work(n: int) -> None:
        writer.write(request(n))
        for _ in range(n):
            await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))

    return work


async def lines(job: Job) -> AsyncWork:
    reader, writer = await _open(job)

    async def work(n: int) -> None:
        writer.write(request(n))
        for _ in range(n):
            await reader.readline()

    return work


async def sendflood(job: Job) -> AsyncWork:
    reader, writer = await _open(job)
    data, total = job.data, job.size + 2

    async def work(n: int) -> None:
        writer.write(request(n * total))
        for start in range(0, n, BATCH):
            writer.write(b"".join([frame(data, 2) for _ in range(min(BATCH, n - start))]))
            await writer.drain()
        await reader.readexactly(1)

    return work


async def tasks(job: Job) -> AsyncWork:
    """``argument`` tasks, each with a connection of its own."""
    single = Job(job.port, "exchange", job.size, 2, job.variant)
    works = [await exchange(single) for _ in range(job.argument)]

    async def work(n: int) -> None:
        await asyncio.gather(*[each(n // len(works)) for each in works])

    return work


WORKS = {
    "exchange": exchange,
    "raw": raw,
    "window": window,
    "flood": flood,
    "lines": lines,
    "sendflood": sendflood,
    "tasks": tasks,
}

if __name__ == "__main__":
    job = parse_job()
    run_on(job.variant, run_async_client(job, WORKS))
