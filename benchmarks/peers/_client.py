"""What the Python clients share: the command line and the rounds protocol of ``wire.h``."""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass

HOST = "127.0.0.1"
TIMEOUT = 5.0

Work = Callable[[int], object]
AsyncWork = Callable[[int], Awaitable[object]]


@dataclass(frozen=True)
class Job:
    """What the harness asks of a client; ``argument`` is a header size, a window or a number of threads."""

    port: int
    work: str
    size: int
    argument: int
    variant: str

    @property
    def data(self) -> bytes:
        return b"x" * self.size

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"


def parse_job() -> Job:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("work")
    parser.add_argument("size", type=int)
    parser.add_argument("argument", type=int, nargs="?", default=2)
    parser.add_argument("--variant", default="")
    return Job(**vars(parser.parse_args()))


def _counts() -> Iterator[int]:
    print("ready", flush=True)
    for line in sys.stdin:
        yield int(line)


def run_client(works: Mapping[str, Callable[[Job], Work]]) -> None:
    """Does the work the command line names, by rounds."""
    job = parse_job()
    work = works[job.work](job)
    for n in _counts():
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        work(n)
        wall = time.perf_counter_ns() - wall
        print(wall, time.process_time_ns() - cpu, flush=True)


async def run_async_client(job: Job, works: Mapping[str, Callable[[Job], Awaitable[AsyncWork]]]) -> None:
    """The same in an event loop; between rounds the loop stands still, as there is nothing for it to do."""
    work = await works[job.work](job)
    for n in _counts():
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        await work(n)
        wall = time.perf_counter_ns() - wall
        print(wall, time.process_time_ns() - cpu, flush=True)


def connect(job: Job, timeout: float | None = TIMEOUT) -> socket.socket:
    sock = socket.create_connection((HOST, job.port), timeout=TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.settimeout(timeout)
    return sock


def frame(data: bytes, header: int) -> bytes:
    """A package: the length, big-endian in ``header`` bytes, and the data."""
    return len(data).to_bytes(header, "big") + data


def request(count: int) -> bytes:
    """The 8-byte count that starts a flood."""
    return count.to_bytes(8, "big")
