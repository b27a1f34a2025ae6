"""gevent's socket, used as the blocking one is."""

from __future__ import annotations

import gevent.socket

from benchmarks.peers._client import HOST, TIMEOUT, Job, Work, frame, run_client


def _open(job: Job) -> gevent.socket.socket:
    sock = gevent.socket.create_connection((HOST, job.port), timeout=TIMEOUT)
    sock.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
    return sock


def exchange(job: Job) -> Work:
    sock, data, header = _open(job), job.data, job.argument
    file = sock.makefile("rb")

    def work(n: int) -> None:
        for _ in range(n):
            sock.sendall(frame(data, header))
            file.read(int.from_bytes(file.read(header), "big"))

    return work


if __name__ == "__main__":
    run_client({"exchange": exchange})
