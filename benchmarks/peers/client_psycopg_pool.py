"""psycopg_pool's acquire and release. Its connections are dummies: the pool is measured, not PostgreSQL."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psycopg
from psycopg.pq import ConnStatus, TransactionStatus
from psycopg_pool import ConnectionPool

from benchmarks.peers._client import TIMEOUT, Job, Work, run_client


class _Dummy(psycopg.Connection[Any]):
    """An idle, healthy connection that talks to nobody."""

    def __init__(self) -> None:
        self.pgconn = SimpleNamespace(  # type: ignore[assignment]
            status=ConnStatus.OK, transaction_status=TransactionStatus.IDLE, finish=lambda: None
        )

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: object) -> _Dummy:  # type: ignore[override]
        return cls()

    def __del__(self) -> None:
        """Nothing to close."""

    def close(self) -> None:
        """Nothing to close."""


def acquire(job: Job) -> Work:
    pool = ConnectionPool("", connection_class=_Dummy, min_size=4, timeout=TIMEOUT, open=True)
    pool.wait(TIMEOUT)

    def work(n: int) -> None:
        for _ in range(n):
            pool.putconn(pool.getconn())

    return work


if __name__ == "__main__":
    run_client({"acquire": acquire})
