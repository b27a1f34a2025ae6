"""``socket`` as the manual shows it: ``sendall`` and ``recv``. Variants: ``plain`` (no timeout) and ``timeout``.

A socket with a timeout is non-blocking inside: CPython polls before every receive.
"""

from __future__ import annotations

import socket

from benchmarks.peers._client import TIMEOUT, Job, Work, connect, frame, run_client

FIRST_READ = 4096  # enough for a small package; a larger read would cost an allocation each time
RAW_READ = 65536


def _open(job: Job) -> socket.socket:
    return connect(job, TIMEOUT if job.variant == "timeout" else None)


def recv_package(sock: socket.socket, header: int) -> bytes | bytearray:
    """One package; only one can be on its way, so reading more than the header at once is safe."""
    data = sock.recv(FIRST_READ)
    while len(data) < header:
        data += sock.recv(FIRST_READ)
    length = int.from_bytes(data[:header], "big")
    if len(data) == header + length:
        return data[header:]
    body = bytearray(length)
    have = len(data) - header
    body[:have] = data[header:]
    view = memoryview(body)
    while have < length:
        have += sock.recv_into(view[have:])
    return body


def exchange(job: Job) -> Work:
    sock, data, header = _open(job), job.data, job.argument

    def work(n: int) -> None:
        for _ in range(n):
            sock.sendall(frame(data, header))
            recv_package(sock, header)

    return work


def raw(job: Job) -> Work:
    sock, data, size = _open(job), job.data, job.size

    def work(n: int) -> None:
        for _ in range(n):
            sock.sendall(data)
            reply = sock.recv(RAW_READ)
            while len(reply) < size:
                reply += sock.recv(RAW_READ)

    return work


if __name__ == "__main__":
    run_client({"exchange": exchange, "raw": raw})
