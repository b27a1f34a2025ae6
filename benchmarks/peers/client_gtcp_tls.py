"""gtcp over TLS."""

from __future__ import annotations

import ssl

import gtcp
from benchmarks.certificates import AUTHORITY, NAME
from benchmarks.peers._client import TIMEOUT, Job, Work, run_client


def exchange(job: Job) -> Work:
    context = ssl.create_default_context(cafile=AUTHORITY)
    conn = gtcp.Conn(job.address, TIMEOUT, tls=context, server_hostname=NAME)
    data = job.data

    def work(n: int) -> None:
        for _ in range(n):
            conn.send_recv_pkg(data, timeout=TIMEOUT)

    return work


if __name__ == "__main__":
    run_client({"exchange": exchange})
