"""urllib3's connection pool: a blocking LIFO queue and a look at the socket. Its own requests do the same two calls."""

from __future__ import annotations

from urllib3 import HTTPConnectionPool

from benchmarks.peers._client import HOST, TIMEOUT, Job, Work, run_client


def acquire(job: Job) -> Work:
    pool = HTTPConnectionPool(HOST, job.port, maxsize=10, block=True)
    first = pool._get_conn(timeout=TIMEOUT)
    first.connect()
    pool._put_conn(first)

    def work(n: int) -> None:
        for _ in range(n):
            pool._put_conn(pool._get_conn(timeout=TIMEOUT))

    return work


if __name__ == "__main__":
    run_client({"acquire": acquire})
