"""Pools people write themselves: connected sockets in a queue. Variants: ``lifo``, ``simple``, ``deque``.

``lifo`` is the usual one (it waits with a timeout); the other two do not look at the connection nor limit anything.
"""

from __future__ import annotations

import queue
import socket
from collections import deque
from collections.abc import Callable
from threading import Thread
from typing import BinaryIO

from benchmarks.peers._client import TIMEOUT, Job, Work, connect, frame, run_client

Item = tuple[socket.socket, BinaryIO]
Pool = tuple[Callable[[], Item], Callable[[Item], object]]


def _open(job: Job) -> Item:
    sock = connect(job, None)
    return sock, sock.makefile("rb")


def _pool(job: Job, size: int = 1) -> Pool:
    """``take`` and ``put`` of a pool that holds ``size`` connections."""
    items = [_open(job) for _ in range(size)]
    if job.variant == "deque":
        stack = deque(items)
        return stack.pop, stack.append
    if job.variant == "simple":
        simple: queue.SimpleQueue[Item] = queue.SimpleQueue()
        for item in items:
            simple.put(item)
        return simple.get, simple.put
    lifo: queue.LifoQueue[Item] = queue.LifoQueue()
    for item in items:
        lifo.put(item)
    return lambda: lifo.get(timeout=TIMEOUT), lifo.put


def acquire(job: Job) -> Work:
    take, put = _pool(job)

    def work(n: int) -> None:
        for _ in range(n):
            put(take())

    return work


def contention(job: Job) -> Work:
    """``argument`` threads take from one pool of that many connections."""
    take, put = _pool(job, job.argument)

    def take_and_give(n: int) -> None:
        for _ in range(n):
            put(take())

    def work(n: int) -> None:
        running = [Thread(target=take_and_give, args=(n // job.argument,)) for _ in range(job.argument)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()

    return work


def pool(job: Job) -> Work:
    take, put = _pool(job)
    data = job.data

    def work(n: int) -> None:
        for _ in range(n):
            item = take()
            sock, file = item
            sock.sendall(frame(data, 2))
            file.read(int.from_bytes(file.read(2), "big"))
            put(item)

    return work


if __name__ == "__main__":
    run_client({"acquire": acquire, "contention": contention, "pool": pool})
