"""Many packages or lines in one direction, and many in flight."""

from __future__ import annotations

from benchmarks.groups._who import cserver, go, limit, ours, peer
from benchmarks.plan import Case, Command, Contender, Goal, Role


def window() -> Case:
    server = cserver("pkg", 2)
    work = "window", 64, 32
    return Case(
        id="window-32",
        group="window",
        title="32 packages of 64 B in flight",
        unit="packages",
        goal=Goal(0.80, None),
        quantum=32,
        contenders=(
            limit(server, *work),
            ours("gtcp send_recv_pkgs", server, *work),
            go(server, "exchange", 64, 2, name="Go gtcp, one in flight"),
            peer("makefile", "client_makefile", server, *work, variant="plain"),
            peer("by hand", "client_handmade", server, *work),
            peer("asyncio streams", "client_streams", server, *work, variant="asyncio"),
            peer("uvloop streams", "client_streams", server, *work, variant="uvloop"),
            peer("asyncio Protocol", "client_protocol", server, *work, variant="asyncio"),
            peer("uvloop Protocol", "client_protocol", server, *work, variant="uvloop"),
        ),
        note="Go's gtcp has no way to keep packages in flight; the goal is 25 times its exchange.",
    )


def flood() -> Case:
    server = cserver("source", 2, 64)
    return Case(
        id="flood-packages",
        group="flood",
        title="receiving a flood of 64 B packages",
        unit="packages",
        goal=Goal(0.5, 3.0),
        contenders=(
            limit(server, "flood", 64),
            ours("gtcp recv_pkgs", server, "flood", 64),
            ours("gtcp packages()", server, "packages", 64),
            ours("gtcp recv_pkg", server, "recv_pkg", 64),
            go(server, "flood", 64, role=Role.NOTE),
            peer("makefile", "client_makefile", server, "flood", 64),
            peer("by hand", "client_handmade", server, "flood", 64),
            peer("asyncio streams", "client_streams", server, "flood", 64, variant="asyncio"),
            peer("uvloop streams", "client_streams", server, "flood", 64, variant="uvloop"),
            peer("uvloop Protocol", "client_protocol", server, "flood", 64, variant="uvloop"),
            peer("Twisted Int16StringReceiver", "client_twisted", server, "flood", 64),
        ),
        note="C copies every payload out and counts. The goal of 3 times is about Python: Go is for comparison.",
    )


def lines() -> Case:
    server = cserver("lines", 40)
    return Case(
        id="flood-lines",
        group="flood",
        title="receiving a flood of 40 B lines",
        unit="lines",
        goal=Goal(None, 1.2),
        contenders=(
            limit(server, "lines", 40),
            ours("gtcp recv_line", server, "recv_line", 40),
            ours("gtcp lines()", server, "lines", 40),
            go(server, "lines", 40, name="Go gtcp RecvLine"),
            peer("makefile iteration", "client_makefile", server, "lines", 40),
            peer("makefile readline", "client_makefile", server, "readline", 40),
            peer("by hand, split", "client_handmade", server, "lines", 40, role=Role.NOTE),
            peer("asyncio streams", "client_streams", server, "lines", 40, variant="asyncio"),
            peer("uvloop streams", "client_streams", server, "lines", 40, variant="uvloop"),
        ),
        note="The goal is about makefile iteration, which runs no Python code for a line; recv_line is called from "
        "Python each time, lines() is consumed like the makefile. bytes.split has no limits: shown for comparison.",
    )


def sendflood() -> Case:
    server = cserver("sink")
    work = "sendflood", 64
    return Case(
        id="flood-send",
        group="flood",
        title="sending a flood of 64 B packages",
        unit="packages",
        goal=Goal(0.7, 5.0),
        contenders=(
            limit(server, *work),
            Contender("C, copied", Role.NOTE, Command("cclient", ("sendcopy", "64")), server),
            ours("gtcp send_pkgs", server, *work),
            go(server, *work),
            peer("makefile write", "client_makefile", server, *work),
            peer("by hand, join", "client_handmade", server, *work),
            peer("asyncio streams", "client_streams", server, *work, variant="asyncio"),
            peer("uvloop streams", "client_streams", server, *work, variant="uvloop"),
        ),
        note="C sends header and payload from where they are, 512 to a writev; for packages this small copying "
        "them into one buffer is faster, as the second C line shows. "
        "Everyone makes the frames from payloads of 64 B.",
    )


def redis() -> Case:
    server = Command("redis-server")
    return Case(
        id="redis-ping",
        group="redis",
        title="PING and +PONG with a Redis server",
        unit="commands",
        contenders=(
            limit(server, "redis", 0),
            ours("gtcp send, recv_line", server, "redis", 0),
            peer("makefile", "client_makefile", server, "redis", 0, variant="timeout"),
            peer("redis-py, held connection", "client_redis", server, "command", 0),
            peer("redis-py ping()", "client_redis", server, "ping", 0),
        ),
        note="redis-py does more than gtcp here: it encodes the command and parses RESP (with hiredis).",
    )


def cases() -> list[Case]:
    return [window(), flood(), lines(), sendflood(), redis()]
