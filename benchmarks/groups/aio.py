"""gtcp.aio beside asyncio's own ways, on both event loops."""

from __future__ import annotations

from benchmarks.groups._who import cserver, limit, ours, peer
from benchmarks.plan import Case, Goal

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


def cases() -> list[Case]:
    return [exchange(), tasks()]
