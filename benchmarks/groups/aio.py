"""gtcp.aio beside asyncio's own ways, on both event loops."""

from __future__ import annotations

from benchmarks.groups._who import cserver, limit, ours, peer
from benchmarks.plan import Case, Command, Goal

AIO = "client_gtcp_aio"


def exchange() -> Case:
    server = cserver("pkg", 2)
    work = "exchange", 64, 2
    return Case(
        id="aio-exchange",
        group="aio",
        title="asyncio: 64 B package exchange",
        unit="exchanges",
        contenders=(
            limit(server, *work),
            ours("gtcp.aio on uvloop", server, *work, module=AIO, variant="uvloop"),
            ours("gtcp.aio on asyncio", server, *work, module=AIO, variant="asyncio"),
            peer("uvloop streams", "client_streams", server, *work, variant="uvloop"),
            peer("asyncio streams", "client_streams", server, *work, variant="asyncio"),
            peer("uvloop Protocol", "client_protocol", server, *work, variant="uvloop"),
            peer("asyncio Protocol", "client_protocol", server, *work, variant="asyncio"),
        ),
        note="Goals: 2.5 times asyncio streams on asyncio, 1.25 times streams on uvloop.",
    )


def tasks() -> Case:
    server = cserver("pkg", 2)
    work = "tasks", 64, 64
    return Case(
        id="aio-tasks-64",
        group="aio",
        title="asyncio: 64 tasks, a connection each, 64 B package exchange",
        unit="exchanges",
        goal=Goal(None, 1.25),
        quick=(),
        quantum=64,
        contenders=(
            ours("gtcp.aio on uvloop", server, *work, module=AIO, variant="uvloop"),
            ours("gtcp.aio on asyncio", server, *work, module=AIO, variant="asyncio"),
            ours("gtcp.aio pool on uvloop", server, "pool_tasks", 64, 64, module=AIO, variant="uvloop"),
            peer("uvloop streams", "client_streams", server, *work, variant="uvloop"),
            peer("asyncio streams", "client_streams", server, *work, variant="asyncio"),
        ),
    )


def pool() -> Case:
    server = Command("redis-server")
    work = "pool_ping", 0, 64
    return Case(
        id="aio-pool-64",
        group="aio",
        title="asyncio: 64 tasks share 16 connections, PING to Redis",
        unit="commands",
        goal=Goal(None, 1.0),
        quick=(),
        quantum=64,
        contenders=(
            ours("gtcp.aio pool on uvloop", server, *work, module=AIO, variant="uvloop"),
            ours("gtcp.aio pool on asyncio", server, *work, module=AIO, variant="asyncio"),
            peer("redis.asyncio on uvloop", "client_redis_aio", server, *work, variant="uvloop"),
            peer("redis.asyncio on asyncio", "client_redis_aio", server, *work, variant="asyncio"),
        ),
        note="gtcp speaks the protocol by hand; redis-py does more for each command. "
        "Servers in event loops are in the group server, at 64 and at 1 000 connections.",
    )


def cases() -> list[Case]:
    return [exchange(), tasks(), pool()]
