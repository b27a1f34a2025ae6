"""redis-py with hiredis against a Redis server: the line protocol's usual client, and its pool."""

from __future__ import annotations

from threading import Thread

import hiredis  # noqa: F401  (redis-py uses it when it is there; without it this peer would be another one)
import redis

from benchmarks.peers._client import HOST, TIMEOUT, Job, Work, run_client


def _pool(job: Job) -> redis.ConnectionPool:
    return redis.ConnectionPool(host=HOST, port=job.port, socket_timeout=TIMEOUT)


def command(job: Job) -> Work:
    """One command and its reply on a connection that is held: redis-py's shortest way."""
    conn = _pool(job).get_connection()

    def work(n: int) -> None:
        for _ in range(n):
            conn.send_command("PING")
            conn.read_response()

    return work


def ping(job: Job) -> Work:
    """The call that programs make; it takes a connection from the pool and gives it back."""
    client = redis.Redis(connection_pool=_pool(job))

    def work(n: int) -> None:
        for _ in range(n):
            client.ping()

    return work


def acquire(job: Job) -> Work:
    pool = _pool(job)

    def work(n: int) -> None:
        for _ in range(n):
            pool.release(pool.get_connection())

    return work


def contention(job: Job) -> Work:
    """``argument`` threads take from one pool."""
    pool = _pool(job)

    def take_and_give(n: int) -> None:
        for _ in range(n):
            pool.release(pool.get_connection())

    def work(n: int) -> None:
        running = [Thread(target=take_and_give, args=(n // job.argument,)) for _ in range(job.argument)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()

    return work


if __name__ == "__main__":
    run_client({"command": command, "ping": ping, "acquire": acquire, "contention": contention})
