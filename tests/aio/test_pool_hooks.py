"""What a user's functions may do to a pool of an event loop: anything but harm (E8, E17)."""

import asyncio
import socket
from typing import Any

import pytest

import gtcp
import gtcp.aio
from aio.conftest import Run
from net.ends import Host
from support.peers import listen, silent
from support.timing import LONG, SHORT, quick, takes


def balanced(pool: gtcp.aio.Pool) -> bool:
    """The books of a pool that nobody uses."""
    stats = pool.stats()
    assert (stats.in_use, stats.connecting, stats.waiting) == (0, 0, 0)
    return stats.idle == stats.created - sum(stats.closed.values())


@pytest.mark.parametrize("hook", ["on_acquire", "check"])
@pytest.mark.parametrize("end", ["close", "discard"])
def test_E8_a_hook_that_always_ends_the_lease_is_an_error(run: Run, host: Host, hook: str, end: str) -> None:
    """A check sees old connections only: what it discards is replaced by a new one, which nobody asks it about."""

    async def ends(lease: gtcp.aio.PoolConn) -> None:
        getattr(lease, end)()
        await asyncio.sleep(0)

    async def main() -> None:
        async with gtcp.aio.Pool(host.address, **{hook: ends}) as pool:
            with quick(LONG / 2):
                if hook == "check":
                    await pool.prefill(1)
                if (hook, end) == ("check", "discard"):
                    await (await pool.acquire(None)).close()
                else:
                    with pytest.raises(RuntimeError, match=f"{hook} ended 8 leases in a row"):
                        await pool.acquire(None)
            assert pool.stats().created <= 8
            assert balanced(pool)

    run(main())


@pytest.mark.parametrize("hook", ["dial", "on_connect"])
def test_E17_a_hook_that_always_clears_the_pool_is_an_error(run: Run, host: Host, hook: str) -> None:
    async def main() -> None:
        async def dial(address: gtcp.Address, seconds: float | None) -> gtcp.aio.Conn:
            conn = await gtcp.aio.connect(address, LONG)
            pool.clear()
            return conn

        options: dict[str, Any] = {"dial": dial} if hook == "dial" else {"on_connect": lambda conn: pool.clear()}
        async with gtcp.aio.Pool(host.address, **options) as pool:
            with quick(LONG / 2), pytest.raises(RuntimeError, match="8 new connections in a row were cleared"):
                await pool.acquire(None)
            assert (pool.stats().created, pool.stats().closed["cleared"]) == (8, 8)
            assert balanced(pool)

    run(main())


def test_on_acquire_has_the_time_of_its_acquire(run: Run, host: Host) -> None:
    """What it does not end in time is counted as any other time-out of the pool's."""

    async def main() -> None:
        async with gtcp.aio.Pool(host.address, on_acquire=lambda lease: lease.recv(1)) as pool:
            with takes(SHORT), pytest.raises(gtcp.PoolTimeout, match="on_acquire") as caught:
                await pool.acquire(SHORT)
            assert caught.value.stats is not None
            assert (caught.value.stats.timeouts, pool.stats().timeouts) == (1, 1)
            assert balanced(pool)

    run(main())


def closed_socket() -> socket.socket:
    sock = socket.socket()
    sock.close()
    return sock


def test_a_plain_function_may_answer_its_connection(run: Run, peer: Any) -> None:
    """Which could be awaited once, before it was open."""

    async def main() -> None:
        hooks: Any = {name: (lambda conn: conn) for name in ("on_connect", "on_acquire", "on_release", "check")}

        def dial(addr: gtcp.Address, timeout: float | None) -> gtcp.aio.Conn:
            return gtcp.aio.Conn.from_socket(socket.create_connection((addr.host, addr.port), LONG))

        async with gtcp.aio.Pool(peer(silent).address, dial=dial, **hooks) as pool:
            for _ in range(3):
                async with pool.acquire(LONG):
                    pass
            assert pool.stats().created == 1

    run(main())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (closed_socket, "this one is closed"),
        (listen, "this one listens at 127.0.0.1:"),
        (socket.socket, "this one has no peer"),
    ],
    ids=["closed", "listening", "not connected"],
)
def test_a_dial_that_answers_no_connection(run: Run, host: Host, make: Any, words: str) -> None:
    async def main() -> None:
        made = []

        def dial(address: gtcp.Address, seconds: float | None) -> socket.socket:
            made.append(make())
            return made[-1]

        async with gtcp.aio.Pool(host.address, dial=dial) as pool:
            with pytest.raises(ValueError, match=f"dial must answer a connected socket or gtcp.aio.Conn: .*{words}"):
                await pool.acquire(LONG)
            assert made[0].fileno() == -1
            assert balanced(pool)

    run(main())


def test_socket_options_are_not_for_a_dial_of_the_users() -> None:
    options: Any = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)]
    with pytest.raises(ValueError, match=r"socket_options.*dial"):
        gtcp.aio.Pool("h:80", dial=gtcp.aio.dial, socket_options=options)
