"""Dials whose callers are gone, as tasks: of use as long as somebody may be served by them (E13, E14, E15)."""

import asyncio
import contextlib

import pytest

import gtcp
import gtcp.aio
from aio.conftest import Run
from net.ends import Host
from support.aio import begun, until
from support.timing import LONG, SHORT, quick

PATIENCE = 0.25
"""What the pool waits for a dial whose caller is gone, in seconds."""


class Hanging:
    """A dial of which some hang, by number; it notes which of them were cancelled."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers
        self.count = 0
        self.cancelled: list[int] = []

    async def __call__(self, address: gtcp.Address, seconds: float | None) -> gtcp.aio.Conn:
        self.count += 1
        number = self.count
        if number in self.numbers:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.append(number)
                raise
        return await gtcp.aio.connect(address, LONG)


async def gone(*tasks: asyncio.Task[gtcp.aio.PoolConn]) -> None:
    """Callers that give up together."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def leave_a_dial_behind(pool: gtcp.aio.Pool) -> gtcp.aio.PoolConn:
    """A second dial hangs and its caller is served otherwise: the one lease of the pool."""
    first = await pool.acquire(LONG)
    second = await begun(pool.acquire(LONG)._opened())
    assert (pool.stats().in_use, pool.stats().connecting) == (1, 1)
    await first.close()
    return await second


@pytest.mark.parametrize("callers", [1, 2, 5])
def test_E15_callers_that_are_cancelled_leave_no_dial_behind(run: Run, host: Host, callers: int) -> None:
    """One of them dials, the others wait for its place."""

    async def main() -> None:
        dial = Hanging(1)
        async with gtcp.aio.Pool(host.address, dial=dial, max_size=1, connect_timeout=None) as pool:
            await gone(*[await begun(pool.acquire(None)._opened()) for _ in range(callers)])
            assert (pool.stats().connecting, pool.stats().waiting) == (0, 0)
            with quick():
                await (await pool.acquire(LONG)).close()
            assert dial.cancelled == [1]
            assert (pool.stats().created, pool.stats().failed, pool.stats().idle) == (1, 1, 1)

    run(main())


def test_E15_a_dial_goes_on_for_those_who_wait(run: Run, host: Host) -> None:
    async def main() -> None:
        go_on = asyncio.Event()

        async def dial(address: gtcp.Address, seconds: float | None) -> gtcp.aio.Conn:
            await go_on.wait()
            return await gtcp.aio.connect(address, LONG)

        async with gtcp.aio.Pool(host.address, dial=dial, max_size=1) as pool:
            first = await begun(pool.acquire(LONG)._opened())
            second = await begun(pool.acquire(LONG)._opened())
            await gone(first)
            assert pool.stats().connecting == 1
            go_on.set()
            await (await second).close()
            assert (pool.stats().created, pool.stats().failed) == (1, 0)

    run(main())


@pytest.mark.parametrize("wait", [0.0, 1.2 * PATIENCE], ids=["young", "old"])
def test_E14_a_dial_that_nobody_waits_for_makes_room(run: Run, host: Host, wait: float) -> None:
    async def main() -> None:
        dial = Hanging(2)
        async with gtcp.aio.Pool(host.address, dial=dial, max_size=2) as pool:
            held = await leave_a_dial_behind(pool)
            await asyncio.sleep(wait)
            with quick(SHORT if wait else PATIENCE + SHORT):
                lease = await pool.acquire(LONG)
            await until(lambda: dial.cancelled == [2])
            await lease.close()
            await held.close()
            assert (pool.stats().created, pool.stats().failed, pool.stats().connecting) == (2, 1, 0)

    run(main())


def test_E16_where_nobody_may_wait_it_makes_room_at_once(run: Run, host: Host) -> None:
    async def main() -> None:
        dial = Hanging(2)
        async with gtcp.aio.Pool(host.address, dial=dial, max_size=2, max_waiting=0) as pool:
            held = await leave_a_dial_behind(pool)
            with pytest.raises(gtcp.PoolTimeout, match="nobody may wait"):
                await pool.acquire(LONG)
            await asyncio.sleep(1.2 * PATIENCE)
            await (await pool.acquire(LONG)).close()
            assert dial.cancelled == [2]
            await held.close()

    run(main())


def test_E14_who_has_little_time_does_not_count_on_it(run: Run, host: Host) -> None:
    async def main() -> None:
        dial = Hanging(2)
        async with gtcp.aio.Pool(host.address, dial=dial) as pool:
            held = await leave_a_dial_behind(pool)
            await (await pool.acquire(0.6 * PATIENCE)).close()
            assert (dial.count, dial.cancelled) == (3, [])  # there was room for both
            await held.close()

    run(main())


def test_E13_a_busy_pool_lets_a_slow_dial_come_to_its_end(run: Run, host: Host) -> None:
    """However slow: each dial that was ended for another one gives the next twice the time."""

    async def main() -> None:
        moments: list[float] = []

        async def dial(address: gtcp.Address, seconds: float | None) -> gtcp.aio.Conn:
            moments.append(asyncio.get_running_loop().time())
            if len(moments) > 1:
                await asyncio.sleep(3 * PATIENCE)
            return await gtcp.aio.connect(address, LONG)

        async def use() -> None:
            while pool.stats().created < 2:
                async with pool.acquire(LONG):
                    await asyncio.sleep(0)

        async with gtcp.aio.Pool(host.address, dial=dial, max_size=2) as pool:
            await asyncio.wait_for(asyncio.gather(*[use() for _ in range(3)]), LONG)
            assert len(moments) <= 4

    run(main())


def test_E14_a_dial_ahead_of_need_makes_room_too(run: Run, host: Host) -> None:
    async def main() -> None:
        dial = Hanging(1)
        async with gtcp.aio.Pool(host.address, dial=dial, max_size=1) as pool:
            filling = asyncio.ensure_future(pool.prefill(1, LONG))
            await until(lambda: dial.count == 1)
            async with pool.acquire(LONG):
                await filling
            assert dial.cancelled == [1]

    run(main())


def test_E17_closing_ends_what_nobody_waits_for(run: Run, host: Host) -> None:
    async def main() -> None:
        dial = Hanging(2)
        pool = gtcp.aio.Pool(host.address, dial=dial, max_size=2)
        held = await leave_a_dial_behind(pool)
        with quick(), contextlib.suppress(gtcp.PoolClosed):
            await pool.close()
        assert dial.cancelled == [2]
        await held.close()
        assert pool.stats().connecting == 0

    run(main())
