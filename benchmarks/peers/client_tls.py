"""Python's ``ssl`` socket. Variants: ``makefile`` and ``recv``."""

from __future__ import annotations

import ssl

from benchmarks.certificates import AUTHORITY, NAME
from benchmarks.peers._client import TIMEOUT, Job, Work, connect, frame, run_client
from benchmarks.peers.client_socket import recv_package


def _open(job: Job) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=AUTHORITY)
    return context.wrap_socket(connect(job, TIMEOUT), server_hostname=NAME)


def exchange(job: Job) -> Work:
    sock, data = _open(job), job.data
    if job.variant == "recv":

        def work(n: int) -> None:
            for _ in range(n):
                sock.sendall(frame(data, 2))
                recv_package(sock, 2)

    else:
        file = sock.makefile("rb")

        def work(n: int) -> None:
            for _ in range(n):
                sock.sendall(frame(data, 2))
                file.read(int.from_bytes(file.read(2), "big"))

    return work


if __name__ == "__main__":
    run_client({"exchange": exchange})
