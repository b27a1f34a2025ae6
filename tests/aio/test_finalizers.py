"""What finalizers and other threads do while a task is on its way to sleep: none of it is slept through."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import gtcp
import gtcp.aio
import support.loops
from aio.conftest import Run
from support.aio import begun, linked
from support.collector import at_collection
from support.peers import echo
from support.timing import LONG, SHORT, quick, takes

HUGE = bytes(8 << 20)
# The collections inside one call: at least as many as it begins before it sleeps, in C and in the loop's Python.
COLLECTIONS = range(1, 21)
PATIENCE = 10 * SHORT


@contextmanager
def interrupted(number: int, action: Callable[[], object]) -> Iterator[None]:
    """Does `action` in a collection of the block, or in its wait if there are fewer, which it must end at once."""
    late = asyncio.get_running_loop().call_later(SHORT, action)
    with quick(PATIENCE), at_collection(number, action):
        yield
    late.cancel()


@pytest.mark.parametrize("number", COLLECTIONS)
def test_E22_a_lease_that_ends_inside_acquire_is_not_waited_for(run: Run, peer: Any, number: int) -> None:
    async def main() -> None:
        async with gtcp.aio.Pool(peer(echo).address, max_size=1) as pool:
            holder = await pool.acquire(LONG)
            with interrupted(number, holder.close):
                await (await pool.acquire(LONG)).close()
            holder.close()
            assert (pool.stats().in_use, pool.stats().waiting) == (0, 0)

    run(main())


@pytest.mark.parametrize("number", COLLECTIONS)
def test_E22_a_lease_that_ends_inside_close_is_not_waited_for(run: Run, peer: Any, number: int) -> None:
    async def main() -> None:
        pool = gtcp.aio.Pool(peer(echo).address)
        lease = await pool.acquire(LONG)
        with interrupted(number, lease.close):
            await pool.close(LONG)
        lease.close()

    run(main())


@pytest.mark.parametrize("end", [gtcp.aio.Conn.close, gtcp.aio.Conn.abort])
@pytest.mark.parametrize("number", COLLECTIONS)
def test_E22_a_close_inside_send_is_not_slept_through(
    run: Run, number: int, end: Callable[[gtcp.aio.Conn], object]
) -> None:
    async def main() -> None:
        async with linked(receive_buffer=1 << 16) as (conn, _):
            first = await begun(conn.send(HUGE))  # it has the turn, and waits
            with interrupted(number, lambda: end(conn)), pytest.raises(gtcp.ClosedError):
                await conn.send(b"next", timeout=LONG)
            end(conn)
            with pytest.raises(gtcp.ClosedError):
                await first

    run(main())


@pytest.mark.parametrize("number", COLLECTIONS)
def test_E22_a_turn_that_ends_inside_send_is_not_waited_for(run: Run, number: int) -> None:
    async def main() -> None:
        async with linked(receive_buffer=1 << 16) as (conn, _):
            first = conn.send(HUGE)
            first.send(None)
            with interrupted(number, first.close), pytest.raises(gtcp.BrokenError):  # the first stopped in the middle
                await conn.send(b"next", timeout=LONG)
            first.close()

    run(main())


def test_E22_a_lease_that_ends_while_the_late_are_woken(peer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those behind them in the queue keep their moments. On asyncio, whose part of the waking is Python's."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        call_soon = loop.call_soon

        def interrupted(callback: Any, *args: Any, **options: Any) -> Any:
            if args and hasattr(args[0], "add_done_callback"):  # a caller is woken
                holder.close()  # as a finalizer would
            return call_soon(callback, *args, **options)

        async with gtcp.aio.Pool(peer(echo).address, max_size=1) as pool:
            holder = await pool.acquire(LONG)
            with takes(2 * SHORT):
                late = await begun(pool.acquire(SHORT)._opened())
                last = await begun(pool.acquire(2 * SHORT)._opened())
                with monkeypatch.context() as patched:
                    patched.setattr(loop, "call_soon", interrupted)
                    lease = await late  # it got the connection at the last moment
                with pytest.raises(gtcp.PoolTimeout):
                    await last
            await lease.close()

    support.loops.run("asyncio", main())
