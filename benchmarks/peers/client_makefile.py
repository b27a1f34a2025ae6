"""``socket.makefile``: the standard library's C buffered reader, its fastest way. Variants: ``plain``, ``timeout``."""

from __future__ import annotations

import socket
from collections import deque
from itertools import islice
from threading import Thread
from typing import BinaryIO

from benchmarks.peers._client import TIMEOUT, Job, Work, connect, frame, request, run_client

FLOOD_BUFFER = 256 * 1024  # as large as the C client's


def _open(job: Job) -> tuple[socket.socket, BinaryIO]:
    sock = connect(job, TIMEOUT if job.variant == "timeout" else None)
    return sock, sock.makefile("rb")


def exchange(job: Job) -> Work:
    sock, file = _open(job)
    data, header = job.data, job.argument

    def work(n: int) -> None:
        for _ in range(n):
            sock.sendall(frame(data, header))
            file.read(int.from_bytes(file.read(header), "big"))

    return work


def window(job: Job) -> Work:
    """The packages of a window leave in one ``sendall``."""
    sock, file = _open(job)
    data, count = job.data, job.argument

    def work(n: int) -> None:
        for _ in range(n // count):
            sock.sendall(b"".join([frame(data, 2) for _ in range(count)]))
            [file.read(int.from_bytes(file.read(2), "big")) for _ in range(count)]

    return work


def flood(job: Job) -> Work:
    sock = connect(job, None)
    file = sock.makefile("rb", buffering=FLOOD_BUFFER)

    def work(n: int) -> None:
        sock.sendall(request(n))
        for _ in range(n):
            file.read(int.from_bytes(file.read(2), "big"))

    return work


def lines(job: Job) -> Work:
    """Iteration, consumed in C: no Python code runs for a line."""
    sock = connect(job, None)
    file = sock.makefile("rb", buffering=FLOOD_BUFFER)

    def work(n: int) -> None:
        sock.sendall(request(n))
        deque(islice(file, n), maxlen=0)

    return work


def readline(job: Job) -> Work:
    sock = connect(job, None)
    file = sock.makefile("rb", buffering=FLOOD_BUFFER)

    def work(n: int) -> None:
        sock.sendall(request(n))
        for _ in range(n):
            file.readline()

    return work


def sendflood(job: Job) -> Work:
    sock = connect(job, None)
    file = sock.makefile("wb", buffering=FLOOD_BUFFER)
    data, total = job.data, job.size + 2

    def work(n: int) -> None:
        file.write(request(n * total))
        for _ in range(n):
            file.write(frame(data, 2))
        file.flush()
        sock.recv(1)

    return work


def threads(job: Job) -> Work:
    """``argument`` threads, each with a connection of its own."""
    single = Job(job.port, "exchange", job.size, 2, job.variant)
    works = [exchange(single) for _ in range(job.argument)]

    def work(n: int) -> None:
        running = [Thread(target=each, args=(n // len(works),)) for each in works]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()

    return work


def redis(job: Job) -> Work:
    sock, file = _open(job)

    def work(n: int) -> None:
        for _ in range(n):
            sock.sendall(b"PING\r\n")
            file.readline()

    return work


if __name__ == "__main__":
    run_client(
        {
            "exchange": exchange,
            "window": window,
            "flood": flood,
            "lines": lines,
            "readline": readline,
            "sendflood": sendflood,
            "threads": threads,
            "redis": redis,
        }
    )
