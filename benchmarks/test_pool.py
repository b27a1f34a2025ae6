"""pytest-benchmark: one lease, taken and given back, in this process."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import gtcp
from gtcp import _reaper

pytestmark = pytest.mark.benchmark(group="acquire and release")


@pytest.mark.parametrize("check", [True, False], ids=["check", "no check"])
def test_pool_acquire(benchmark: BenchmarkFixture, quiet_address: str, *, check: bool) -> None:
    with gtcp.Pool(quiet_address, check=check) as pool:
        benchmark(lambda: pool.acquire().close())


def test_pool_conn(benchmark: BenchmarkFixture, quiet_address: str) -> None:
    benchmark(lambda: gtcp.PoolConn(quiet_address).close())
    gtcp.get_pool(quiet_address).close()


@pytest.fixture(scope="module")
def ten_thousand() -> Iterator[list[gtcp.Pool]]:
    """Shared pools of as many addresses, of which nobody uses any."""
    pools = [gtcp.get_pool(f"127.{i >> 8 & 255}.{i & 255}.1:9") for i in range(10_000)]
    yield pools
    for pool in pools:
        pool.close()


@pytest.mark.usefixtures("ten_thousand")
def test_pool_conn_among_ten_thousand_addresses(benchmark: BenchmarkFixture, quiet_address: str) -> None:
    test_pool_conn(benchmark, quiet_address)


@pytest.mark.usefixtures("ten_thousand")
@pytest.mark.benchmark(group="ten thousand addresses")
def test_looking_after_ten_thousand_pools(benchmark: BenchmarkFixture) -> None:
    """A round of the reaper; it pauses for twenty times as long."""
    benchmark(_reaper._round)


@pytest.mark.benchmark(group="ten thousand addresses")
def test_another_address(benchmark: BenchmarkFixture) -> None:
    """Making the pool of an address and forgetting it."""
    benchmark(lambda: gtcp.get_pool("127.0.0.1:9").close())


def test_lifo_queue(benchmark: BenchmarkFixture) -> None:
    pool: queue.LifoQueue[object] = queue.LifoQueue()
    pool.put(object())
    benchmark(lambda: pool.put(pool.get(timeout=5)))


def test_deque(benchmark: BenchmarkFixture) -> None:
    pool = deque([object()])
    benchmark(lambda: pool.append(pool.pop()))
