"""asyncio ``Protocol``: callbacks without streams, the fastest asyncio. Variants: ``asyncio`` and ``uvloop``."""

from __future__ import annotations

import asyncio
from typing import cast

from benchmarks.peers._client import HOST, AsyncWork, Job, frame, parse_job, request, run_async_client
from benchmarks.peers._loops import run_on
from benchmarks.peers.client_handmade import split_packages


class _Client(asyncio.Protocol):
    """Counts packages; sends ``burst`` when one burst is answered; tells ``done`` when ``left`` reaches zero."""

    transport: asyncio.Transport

    def __init__(self, header: int) -> None:
        self.header = header
        self.pieces = bytearray()
        self.burst, self.in_flight, self.left = b"", 0, 0
        self.burst_size = 1
        self.done: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def start(self, n: int, burst: bytes, burst_size: int) -> asyncio.Future[None]:
        self.done = asyncio.get_running_loop().create_future()
        self.left, self.burst, self.burst_size = n, burst, burst_size
        self.in_flight = burst_size
        self.transport.write(burst)
        return self.done


class _ExchangeClient(_Client):
    """One package in flight; it may arrive in pieces. ``payload`` is the last one."""

    payload = b""

    def data_received(self, data: bytes) -> None:
        header = self.header
        if not self.pieces and len(data) == header + int.from_bytes(data[:header], "big"):
            self.payload = data[header:]
        else:
            self.pieces += data
            if len(self.pieces) < header + int.from_bytes(self.pieces[:header], "big"):
                return
            with memoryview(self.pieces) as view:
                self.payload = bytes(view[header:])
            self.pieces = bytearray()
        self.left -= 1
        if self.left > 0:
            self.transport.write(self.burst)
        elif self.done is not None:
            self.done.set_result(None)


class _ManyClient(_Client):
    """Many packages in a read. ``burst`` may be empty: then only packages are counted."""

    rest = b""

    def data_received(self, data: bytes) -> None:
        packages, self.rest = split_packages(self.rest + data)
        self.left -= len(packages)
        self.in_flight -= len(packages)
        if self.left <= 0:
            if self.done is not None:
                self.done.set_result(None)
        elif self.in_flight <= 0 and self.burst_size > 1:
            self.in_flight = self.burst_size
            self.transport.write(self.burst)


async def _open(job: Job, kind: type[_Client], header: int) -> _Client:
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(lambda: kind(header), HOST, job.port)
    return protocol


async def exchange(job: Job) -> AsyncWork:
    client = await _open(job, _ExchangeClient, job.argument)
    burst = frame(job.data, job.argument)

    def work(n: int) -> asyncio.Future[None]:
        return client.start(n, burst, 1)

    return work


async def window(job: Job) -> AsyncWork:
    client = await _open(job, _ManyClient, 2)
    burst = frame(job.data, 2) * job.argument

    def work(n: int) -> asyncio.Future[None]:
        return client.start(n, burst, job.argument)

    return work


async def flood(job: Job) -> AsyncWork:
    client = await _open(job, _ManyClient, 2)

    def work(n: int) -> asyncio.Future[None]:
        return client.start(n, request(n), 1)

    return work


if __name__ == "__main__":
    job = parse_job()
    run_on(job.variant, run_async_client(job, {"exchange": exchange, "window": window, "flood": flood}))
