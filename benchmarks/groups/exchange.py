"""A package there and a package back on a connection that is held."""

from __future__ import annotations

from benchmarks.groups._who import cserver, go, limit, ours, peer
from benchmarks.plan import Case, Command, Contender, Goal, Pinning, Role


def _blocking(server: Command, size: int, header: int) -> list[Contender]:
    """Those that can exchange packages of any size."""
    work = "exchange", size, header
    return [
        limit(server, *work),
        ours("gtcp", server, *work),
        go(server, *work),
        peer("makefile", "client_makefile", server, *work, variant="plain"),
        peer("makefile, timeout", "client_makefile", server, *work, variant="timeout"),
        peer("socket", "client_socket", server, *work, variant="plain"),
        peer("socket, timeout", "client_socket", server, *work, variant="timeout"),
        peer("asyncio streams", "client_streams", server, *work, variant="asyncio"),
        peer("uvloop streams", "client_streams", server, *work, variant="uvloop"),
        peer("uvloop Protocol", "client_protocol", server, *work, variant="uvloop"),
    ]


def small() -> Case:
    server = cserver("pkg", 2)
    work = "exchange", 64, 2
    return Case(
        id="exchange-64",
        group="exchange",
        title="64 B package exchange, one held connection",
        unit="exchanges",
        goal=Goal(0.95, 1.3),
        quick=(Pinning.ONE, Pinning.TWO),
        contenders=(
            *_blocking(server, 64, 2),
            ours("gtcp, no timeout", server, "untimed", 64),
            ours("gtcp, TCP_QUICKACK", server, *work, variant="quickack"),
            ours("gtcp, SO_BUSY_POLL", server, *work, variant="busy"),
            peer("a bare C function called from Python", "client_floor", server, *work, role=Role.NOTE),
            go(server, "timed", 64, 2, name="Go gtcp, timeout"),
            peer("asyncio Protocol", "client_protocol", server, *work, variant="asyncio"),
            peer("gevent", "client_gevent", server, *work),
            peer("Twisted Int16StringReceiver", "client_twisted", server, *work),
            peer("pyzmq REQ/REP", "client_zmq", Command("server_zmq"), *work),
        ),
        note="C and gtcp run with a timeout of 5 s on every exchange; peers also without one, which helps them. "
        "The bare C function sends, receives and makes a bytes object, nothing else: nearer to C no Python call comes. "
        "pyzmq talks to a pyzmq server, all others to the C server.",
    )


def large() -> Case:
    return Case(
        id="exchange-60000",
        group="large",
        title="60 000 B package exchange",
        unit="exchanges",
        goal=Goal(0.92, 1.4),
        contenders=tuple(_blocking(cserver("pkg", 2), 60_000, 2)),
    )


def huge() -> Case:
    return Case(
        id="exchange-1MiB",
        group="large",
        title="1 MiB package exchange, 4-byte header",
        unit="exchanges",
        goal=Goal(0.90, 1.4),
        contenders=tuple(_blocking(cserver("pkg", 4), 1 << 20, 4)),
    )


def raw(size: int) -> Case:
    server = cserver("raw")
    return Case(
        id=f"raw-{size}",
        group="raw",
        title=f"send_recv(data, -1), {size // 1024} KiB",
        unit="exchanges",
        goal=Goal(0.90),
        contenders=(
            limit(server, "raw", size),
            ours("gtcp", server, "raw", size),
            go(server, "raw", size),
            go(server, "rawn", size, name="Go gtcp, length given", role=Role.NOTE),
            peer("socket", "client_socket", server, "raw", size, variant="plain"),
            peer("socket, timeout", "client_socket", server, "raw", size, variant="timeout"),
            peer("asyncio streams", "client_streams", server, "raw", size, variant="asyncio"),
            peer("uvloop streams", "client_streams", server, "raw", size, variant="uvloop"),
        ),
        note="Everyone receives until all bytes are back. Go waits a millisecond for more; the goal is 80 times Go.",
    )


def threads() -> Case:
    server = cserver("pkg", 2)
    work = "threads", 64, 8
    return Case(
        id="threads-8",
        group="threads",
        title="8 threads, a connection each, 64 B package exchange",
        unit="exchanges",
        goal=Goal(None, 1.2),
        quantum=8,
        contenders=(
            limit(server, *work),
            ours("gtcp", server, *work),
            go(server, *work, name="Go gtcp, 8 goroutines", role=Role.NOTE),
            peer("makefile", "client_makefile", server, *work, variant="plain"),
            peer("makefile, timeout", "client_makefile", server, *work, variant="timeout"),
        ),
        note="The goal is about the best Python peer; goroutines are shown for comparison.",
    )


def cases() -> list[Case]:
    return [small(), large(), huge(), raw(1024), raw(32 * 1024), threads()]
