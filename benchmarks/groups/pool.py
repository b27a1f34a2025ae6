"""Taking a connection from a pool and giving it back, with an exchange in between and without."""

from __future__ import annotations

from benchmarks.groups._who import cserver, go, limit, ours, peer
from benchmarks.plan import Case, Command, Goal, Pinning, Role

REDIS = Command("redis-server")


def pooled_exchange() -> Case:
    server = cserver("pkg", 2)
    return Case(
        id="pool-exchange",
        group="pool",
        title="acquire, 64 B package exchange, release",
        unit="exchanges",
        goal=Goal(0.88, 1.2),
        contenders=(
            limit(server, "exchange", 64, 2),
            ours("gtcp PoolConn(addr)", server, "pool", 64),
            ours("gtcp Pool.acquire()", server, "own_pool", 64),
            go(server, "pool", 64, name="Go gtcp PoolConn"),
            peer("LifoQueue of makefile", "client_queue", server, "pool", 64, variant="lifo"),
            peer("deque of makefile", "client_queue", server, "pool", 64, variant="deque", role=Role.NOTE),
            peer("redis-py ping()", "client_redis", REDIS, "ping", 0, role=Role.NOTE),
        ),
        note="C has no pool: its held connection is the limit. The deque neither waits, limits nor checks, and "
        "redis-py talks to Redis: both are shown for comparison only.",
    )


def acquire() -> Case:
    server = cserver("raw")
    return Case(
        id="pool-acquire",
        group="pool",
        title="acquire and release, nothing in between",
        unit="leases",
        pinnings=(Pinning.ONE,),
        contenders=(
            ours("gtcp Pool.acquire()", server, "acquire", 0),
            ours("gtcp PoolConn(addr)", server, "shared_acquire", 0),
            ours("gtcp, check=False", server, "acquire", 0, variant="unchecked"),
            go(server, "acquire", 0, name="Go gtcp PoolConn, empty Send"),
            peer("redis-py ConnectionPool", "client_redis", REDIS, "acquire", 0),
            peer("psycopg_pool", "client_psycopg_pool", server, "acquire", 0),
            peer("urllib3 pool", "client_urllib3", server, "acquire", 0),
            peer("queue.LifoQueue", "client_queue", server, "acquire", 0, variant="lifo"),
            peer("queue.SimpleQueue", "client_queue", server, "acquire", 0, variant="simple", role=Role.NOTE),
            peer("deque", "client_queue", server, "acquire", 0, variant="deque", role=Role.NOTE),
        ),
        note="Goals: 900 ns with the look at the socket, 300 ns with check=False. SimpleQueue and deque are no pools "
        "(no limit, no wait with a timeout, no check): they show what two calls cost. "
        "Go keeps only connections that were used: an empty Send (a syscall) is the least use there is.",
    )


def contention(count: int) -> Case:
    server = cserver("raw")
    return Case(
        id=f"pool-contention-{count}",
        group="pool",
        title=f"acquire and release, {count} threads on one pool",
        unit="leases",
        pinnings=(Pinning.TWO,),
        quick=(Pinning.TWO,) if count == 8 else (),
        quantum=count,
        contenders=(
            ours("gtcp", server, "contention", 0, count),
            ours("gtcp, check=False", server, "contention", 0, count, variant="unchecked"),
            peer("redis-py ConnectionPool", "client_redis", REDIS, "contention", 0, count),
            peer("queue.LifoQueue", "client_queue", server, "contention", 0, count, variant="lifo"),
        ),
    )


def cases() -> list[Case]:
    return [pooled_exchange(), acquire(), contention(2), contention(8), contention(64)]
