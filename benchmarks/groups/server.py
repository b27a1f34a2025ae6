"""Servers under the same load: package echo, the load generator on one core and the server on the other."""

from __future__ import annotations

from benchmarks.plan import Case, Command, Contender, Goal, Pinning, Role

THREADS_AT_MOST = 1000  # more connections than this are not asked of servers with a thread for each


def _servers(conns: int, window: int) -> list[Contender]:
    load = Command("cload", (str(conns), str(window), "64"))

    def one(name: str, role: Role, program: str, *args: str) -> Contender:
        return Contender(name, role, load, Command(program, args))

    threaded = [
        one("gtcp threads", Role.OURS, "server_gtcp", "threads"),
        one("socketserver threads", Role.PEER, "server_socketserver"),
        one("C threads", Role.NOTE, "cserver", "threads", "2"),
    ]
    return [
        one("C epoll", Role.LIMIT, "cserver", "pkg", "2"),
        one("gtcp greenlets, gathered", Role.OURS, "server_gtcp", "gathered"),
        one("gtcp greenlets", Role.OURS, "server_gtcp", "greenlets"),
        one("gtcp pkg_handler", Role.OURS, "server_gtcp", "pkg_handler"),
        one("gtcp.aio on uvloop", Role.OURS, "server_gtcp_aio", "uvloop"),
        one("gtcp.aio on asyncio", Role.OURS, "server_gtcp_aio", "asyncio"),
        one("Go gtcp", Role.PEER, "gopeer", "server"),
        one("uvloop Protocol", Role.PEER, "server_protocol", "uvloop"),
        one("uvloop streams", Role.PEER, "server_streams", "uvloop"),
        one("asyncio Protocol", Role.PEER, "server_protocol", "asyncio"),
        one("asyncio streams", Role.PEER, "server_streams", "asyncio"),
        one("gevent", Role.PEER, "server_gevent"),
        one("Twisted Int16StringReceiver", Role.PEER, "server_twisted"),
        *(threaded if conns <= THREADS_AT_MOST else []),
    ]


def _case(conns: int, window: int, goal: Goal, *, quick: bool) -> Case:
    in_flight = f", {window} in flight on each" if window > 1 else ""
    return Case(
        id=f"server-{conns}x{window}",
        group="server",
        title=f"server, {conns} connections{in_flight}, 64 B packages",
        unit="packages",
        goal=goal,
        pinnings=(Pinning.TWO,),
        quick=(Pinning.TWO,) if quick else (),
        quantum=conns * window,
        contenders=tuple(_servers(conns, window)),
        note="C threads block in a thread for each connection: nearer to C epoll no threads come. "
        "Client CPU is the load generator's. When the C line is the generator's own limit, "
        "ratios to C flatter everybody else.",
    )


def cases() -> list[Case]:
    return [
        _case(1, 1, Goal(), quick=False),
        _case(64, 1, Goal(0.88), quick=True),
        _case(64, 16, Goal(0.60), quick=True),
        _case(1000, 1, Goal(0.85), quick=False),
        _case(10_000, 1, Goal(0.80), quick=False),
    ]
