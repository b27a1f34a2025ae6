"""asyncio streams over TLS. Variants: ``asyncio`` and ``uvloop``."""

from __future__ import annotations

import asyncio
import ssl

from benchmarks.certificates import AUTHORITY, NAME
from benchmarks.peers._client import HOST, AsyncWork, Job, frame, parse_job, run_async_client
from benchmarks.peers._loops import run_on


async def exchange(job: Job) -> AsyncWork:
    context = ssl.create_default_context(cafile=AUTHORITY)
    reader, writer = await asyncio.open_connection(HOST, job.port, ssl=context, server_hostname=NAME)
    data = job.data

    async def work(n: int) -> None:
        for _ in range(n):
            writer.write(frame(data, 2))
            await writer.drain()
            await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))

    return work


if __name__ == "__main__":
    job = parse_job()
    run_on(job.variant, run_async_client(job, {"exchange": exchange}))
