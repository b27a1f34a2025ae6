"""pytest-benchmark: one lease, taken and given back, in this process."""

from __future__ import annotations

import queue
from collections import deque

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import gtcp

pytestmark = pytest.mark.benchmark(group="acquire and release")


@pytest.mark.parametrize("check", [True, False], ids=["check", "no check"])
def test_pool_acquire(benchmark: BenchmarkFixture, quiet_address: str, *, check: bool) -> None:
    with gtcp.Pool(quiet_address, check=check) as pool:
        benchmark(lambda: pool.acquire().close())


def test_pool_conn(benchmark: BenchmarkFixture, quiet_address: str) -> None:
    benchmark(lambda: gtcp.PoolConn(quiet_address).close())
    gtcp.get_pool(quiet_address).close()


def test_lifo_queue(benchmark: BenchmarkFixture) -> None:
    pool: queue.LifoQueue[object] = queue.LifoQueue()
    pool.put(object())
    benchmark(lambda: pool.put(pool.get(timeout=5)))


def test_deque(benchmark: BenchmarkFixture) -> None:
    pool = deque([object()])
    benchmark(lambda: pool.append(pool.pop()))
