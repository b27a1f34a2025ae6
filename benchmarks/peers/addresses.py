"""Shared pools of many addresses. Reads these in one line, answers [what, seconds, KiB] for each cost as JSON."""

from __future__ import annotations

import gc
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gtcp
from gtcp import _reaper

REPEATS = 5


def resident() -> int:
    """Anonymous memory in KiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1])


def timed(work: Callable[[], object]) -> float:
    """CPU seconds of the process: there is nobody it would wait for."""
    start = time.process_time()
    work()
    return time.process_time() - start


def repeated(work: Callable[[], object]) -> float:
    return statistics.median(timed(work) for _ in range(REPEATS))


def lend(addresses: list[str]) -> None:
    for address in addresses:
        gtcp.PoolConn(address).close()


def measure(addresses: list[str]) -> list[tuple[str, float, float]]:
    count = len(addresses)
    gtcp.get_pool("127.0.0.1:9").close()  # loads what pools need
    gc.collect()
    bare = resident()
    making = timed(lambda: [gtcp.get_pool(address) for address in addresses]) / count
    empty = resident()
    dialling = timed(lambda: lend(addresses)) / count
    filled = resident()
    costs = [
        ("the pool of another address", making, (empty - bare) / count),
        ("its first PoolConn(addr) and close, and the idle connection", dialling, (filled - empty) / count),
        ("PoolConn(addr) and close, of one address", repeated(lambda: lend(addresses[:1] * count)) / count, 0.0),
        ("the same, of all addresses in turn", repeated(lambda: lend(addresses)) / count, 0.0),
        ("a look of the reaper at all pools, nothing to do", repeated(_reaper._round), 0.0),
    ]
    pools = gtcp.pools()
    for pool in pools:
        pool._expire()
    costs.append(("the look that closes all their idle connections", timed(_reaper._round), 0.0))
    assert not any(pool.stats().idle for pool in pools)
    return costs


def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(json.dumps(measure(sys.stdin.readline().split())), flush=True)


if __name__ == "__main__":
    main()
