"""gtcp, blocking. A timeout is set wherever the call takes one.

Variants: ``unchecked`` for pools without the look; ``quickack`` and ``busy`` for what the kernel can do sooner.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from threading import Thread

import gtcp
from benchmarks.peers._client import TIMEOUT, Job, Work, request, run_client

BATCH = 512
SO_BUSY_POLL = 46  # microseconds; Python has no name for it
KERNEL = {
    "quickack": (socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1),
    "busy": (socket.SOL_SOCKET, SO_BUSY_POLL, 50),
}


def _open(job: Job) -> gtcp.Conn:
    conn = gtcp.Conn(job.address, TIMEOUT)
    if job.variant in KERNEL:
        with socket.socket(fileno=os.dup(conn.fileno())) as same:
            same.setsockopt(*KERNEL[job.variant])
    return conn


def exchange(job: Job) -> Work:
    conn, data = _open(job), job.data
    if job.argument == 2:

        def work(n: int) -> None:
            for _ in range(n):
                conn.send_recv_pkg(data, timeout=TIMEOUT)

    else:
        option = gtcp.PkgOption(header_size=job.argument)

        def work(n: int) -> None:
            for _ in range(n):
                conn.send_recv_pkg(data, option, timeout=TIMEOUT)

    return work


def untimed(job: Job) -> Work:
    """The exchange without a timeout, to see what the timeout costs."""
    conn, data = _open(job), job.data

    def work(n: int) -> None:
        for _ in range(n):
            conn.send_recv_pkg(data)

    return work


def pool(job: Job) -> Work:
    """The shared pool of the address, as in the source document: ``PoolConn(addr)``."""
    address, data = job.address, job.data
    gtcp.PoolConn(address).close()  # loads what pools need: the first round is the measure for the others

    def work(n: int) -> None:
        for _ in range(n):
            conn = gtcp.PoolConn(address)
            conn.send_recv_pkg(data, timeout=TIMEOUT)
            conn.close()

    return work


def _own_pool(job: Job) -> gtcp.Pool:
    return gtcp.Pool(job.address, check=job.variant != "unchecked")


def own_pool(job: Job) -> Work:
    acquire_conn, data = _own_pool(job).acquire, job.data

    def work(n: int) -> None:
        for _ in range(n):
            conn = acquire_conn()
            conn.send_recv_pkg(data, timeout=TIMEOUT)
            conn.close()

    return work


def acquire(job: Job) -> Work:
    acquire_conn = _own_pool(job).acquire

    def work(n: int) -> None:
        for _ in range(n):
            acquire_conn().close()

    return work


def shared_acquire(job: Job) -> Work:
    address = job.address
    gtcp.PoolConn(address).close()

    def work(n: int) -> None:
        for _ in range(n):
            gtcp.PoolConn(address).close()

    return work


def contention(job: Job) -> Work:
    """``argument`` threads take from one pool and give back."""
    acquire_conn = _own_pool(job).acquire

    def take_and_give(n: int) -> None:
        for _ in range(n):
            acquire_conn().close()

    return _in_threads([take_and_give] * job.argument)


def raw(job: Job) -> Work:
    conn, data, size = _open(job), job.data, job.size

    def work(n: int) -> None:
        for _ in range(n):
            have = len(conn.send_recv(data, -1, timeout=TIMEOUT))
            while have < size:
                have += len(conn.recv(-1, timeout=TIMEOUT))

    return work


def window(job: Job) -> Work:
    conn, batch = _open(job), [job.data] * job.argument

    def work(n: int) -> None:
        for _ in range(n // len(batch)):
            conn.send_recv_pkgs(batch)

    return work


def flood(job: Job) -> Work:
    conn = _open(job)

    def work(n: int) -> None:
        conn.send(request(n))
        while n > 0:
            n -= len(conn.recv_pkgs())

    return work


def packages(job: Job) -> Work:
    conn = _open(job)

    def work(n: int) -> None:
        conn.send(request(n))
        for _, _package in zip(range(n), conn.packages(), strict=False):
            pass

    return work


def recv_pkg(job: Job) -> Work:
    conn = _open(job)

    def work(n: int) -> None:
        conn.send(request(n))
        for _ in range(n):
            conn.recv_pkg()

    return work


def recv_line(job: Job) -> Work:
    conn = _open(job)

    def work(n: int) -> None:
        conn.send(request(n))
        for _ in range(n):
            conn.recv_line()

    return work


def lines(job: Job) -> Work:
    """The iterator, consumed in C like its peer: no Python code runs for a line."""
    conn = _open(job)

    def work(n: int) -> None:
        conn.send(request(n))
        deque(zip(range(n), conn.lines(), strict=False), maxlen=0)

    return work


def sendflood(job: Job) -> Work:
    conn, data, total = _open(job), job.data, job.size + 2

    def work(n: int) -> None:
        conn.send(request(n * total))
        for start in range(0, n, BATCH):
            conn.send_pkgs([data] * min(BATCH, n - start))
        conn.recv(1)

    return work


def _in_threads(works: list[Work]) -> Work:
    def work(n: int) -> None:
        running = [Thread(target=each, args=(n // len(works),)) for each in works]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()

    return work


def threads(job: Job) -> Work:
    """``argument`` threads, each with a connection of its own."""
    single = Job(job.port, "exchange", job.size, 2, job.variant)
    return _in_threads([exchange(single) for _ in range(job.argument)])


def redis(job: Job) -> Work:
    conn = _open(job)

    def work(n: int) -> None:
        for _ in range(n):
            conn.send(b"PING\r\n")
            conn.recv_line(timeout=TIMEOUT)

    return work


WORKS = (
    exchange,
    untimed,
    pool,
    own_pool,
    acquire,
    shared_acquire,
    contention,
    raw,
    window,
    flood,
    packages,
    recv_pkg,
    recv_line,
    lines,
    sendflood,
    threads,
    redis,
)

if __name__ == "__main__":
    run_client({work.__name__: work for work in WORKS})
