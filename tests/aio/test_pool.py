"""Pools of an event loop: here is what tasks add to them.

The books are those of the blocking pool, and so are most of the tests: those of tests/net that have a `face`. Of the
rows of pools E5 and E6 are in test_cancel.py, E19 and E20 in test_fork.py, E22 in test_finalizers.py, E23 in
test_tls.py.
"""

import asyncio
import contextlib
import gc
import inspect
import logging
import select
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

import gtcp
import gtcp.aio
from aio.conftest import Run
from gtcp.aio import _pool
from net.ends import Host
from support.aio import begun, until
from support.loops import LoopThread, new_loop
from support.peers import closed_address, echo, frame, read_frame, reset, silent
from support.timing import LONG, SHORT, quick, takes


@asynccontextmanager
async def pool_of(address: Any, **options: Any) -> AsyncIterator[gtcp.aio.Pool]:
    async with gtcp.aio.Pool(address, **options) as pool:
        yield pool
        stats = pool.stats()
        assert stats.idle + stats.in_use == stats.created - sum(stats.closed.values())


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_leases_are_awaited_or_entered(run: Run, peer: Any) -> None:
    async def main() -> None:
        async with pool_of(peer(echo).address) as pool:
            async with pool.acquire() as lease:
                assert await lease.send_recv(b"x", 1) == b"x"
            async with await pool.acquire() as again:
                assert again is not lease
                assert await again.send_recv(b"y", 1) == b"y"
            held = await pool.acquire(LONG)
            held.close()  # type: ignore[unused-coroutine]  # needs no await
            assert held.closed
            with pytest.raises(gtcp.ClosedError):
                await held.send(b"x")
            with pytest.raises(RuntimeError, match="opened already"):
                await held
            stats = pool.stats()
            assert (stats.created, stats.acquired, stats.reused) == (1, 3, 2)

    run(main())


def test_E10_a_connection_that_the_pool_did_not_lend(run: Run, peer: Any) -> None:
    async def main() -> None:
        stranger = gtcp.aio.PoolConn.__new__(gtcp.aio.PoolConn)
        await stranger.close()
        stranger.discard()
        with pytest.raises(gtcp.ClosedError):
            await stranger.send(b"x")
        address = peer(echo).address
        greeted: list[gtcp.aio.Conn] = []
        async with (
            pool_of(address) as other,
            pool_of(address, dial=lambda *_: other.acquire(), on_connect=greeted.append) as pool,
        ):
            with pytest.raises(ValueError, match=r"dial must answer .* another pool"):
                await pool.acquire(LONG)
            assert not greeted
            assert (other.stats().in_use, other.stats().closed["discarded"], pool.stats().failed) == (0, 1, 1)

    run(main())


def test_E15_a_waiter_whose_gift_went_bad_gets_what_rests_meanwhile(run: Run) -> None:
    async def main() -> None:
        async with pool_of(host.address, max_size=2) as pool:
            bad, good = await pool.acquire(), await pool.acquire()
            port = good.local_addr().port
            waiter = asyncio.ensure_future(waiting_for(pool))
            await until(lambda: pool.stats().waiting)
            host.accept().sendall(b"junk")
            select.select([bad.fileno()], [], [], LONG)
            bad.close()  # the waiter's from now on, who has not run yet
            good.close()  # nobody's
            async with await waiter as lease:
                assert lease.local_addr().port == port
            assert (pool.stats().created, pool.stats().closed["dirty"]) == (2, 1)

    with contextlib.closing(Host()) as host:
        run(main())


async def waiting_for(pool: gtcp.aio.Pool) -> gtcp.aio.PoolConn:
    return await pool.acquire(LONG)


def test_E11_a_new_connection_whose_caller_is_cancelled_rests_for_its_time(run: Run, peer: Any) -> None:
    async def main() -> None:
        async def cancel(conn: gtcp.aio.Conn) -> None:
            asyncio.get_running_loop().call_soon(waiter.cancel)

        async with pool_of(peer(silent).address, ttl=SHORT, on_connect=cancel) as pool:
            waiter = asyncio.ensure_future(waiting_for(pool))
            with pytest.raises(asyncio.CancelledError):
                await waiter
            assert pool.stats().created == 1
            await until(lambda: pool.stats().closed["ttl"])

    run(main())


def test_the_shared_pool(run: Run, peer: Any) -> None:
    async def main() -> gtcp.aio.Pool:
        address = peer(echo).address
        async with gtcp.aio.PoolConn(address) as lease:
            assert await lease.send_recv(b"x", 1) == b"x"
        pool = gtcp.aio.get_pool(address)
        assert pool.stats().acquired == 1
        assert gtcp.aio.pools() == [pool]
        with pytest.raises(ValueError, match="max_size"):
            gtcp.aio.get_pool(address, max_size=3)
        lease = await gtcp.aio.PoolConn(address, LONG)
        lease.discard()
        assert pool.stats().closed["discarded"] == 1
        async with gtcp.aio.PoolConn(address) as lease:
            pass
        return pool

    pool = run(main())
    assert pool.closed  # with the loop
    assert pool.stats().idle == 0
    with pytest.raises(RuntimeError, match="no running event loop"):
        gtcp.aio.get_pool("127.0.0.1:1")


def test_a_pool_serves_one_loop(loop_kind: str, peer: Any) -> None:
    with LoopThread(loop_kind) as one, LoopThread(loop_kind) as two:
        pool = one.call(gtcp.aio.Pool, peer(echo).address)
        lease = one.call(pool.acquire)
        with pytest.raises(RuntimeError, match="another event loop"):
            two.call(pool.acquire)
        with pytest.raises(RuntimeError, match="event loop"):
            lease.close()
        assert not lease.closed
        one.call(lease.close)
        one.call(pool.close)


@pytest.mark.parametrize("elsewhere", ["loop", "thread"])
def test_a_pool_is_changed_in_its_loop_only(loop_kind: str, peer: Any, elsewhere: str) -> None:
    def call_here(call: Any) -> None:
        if inspect.isawaitable(answer := call()):
            answer.__await__().send(None)

    with LoopThread(loop_kind) as own, LoopThread(loop_kind) as other:
        there = other.call if elsewhere == "loop" else call_here
        pool = own.call(gtcp.aio.Pool, peer(echo).address, max_size=2)
        held = own.call(pool.acquire)
        own.call(lambda: pool.prefill(1))
        before = pool.stats()
        calls: list[Any] = [pool.clear, pool.expire, partial(pool.resize, 3), pool.close, partial(pool.prefill, 2)]
        for call in calls:
            with pytest.raises(RuntimeError, match="event loop"):
                there(call)
            assert pool.stats() == before
        own.call(held.close)
        leases = [own.call(pool.acquire) for _ in range(2)]
        for lease in leases:
            assert own.call(lease.send_recv, b"x", 1) == b"x"
            own.call(lease.close)
        assert pool.stats().created == 2  # both that were there are still lent
        own.call(pool.close)


def test_after_the_end_of_its_loop_a_pool_may_be_closed_anywhere(loop_kind: str, peer: Any) -> None:
    async def use(pool: gtcp.aio.Pool) -> None:
        async with pool.acquire():
            pass

    loop = new_loop(loop_kind)
    pool = gtcp.aio.Pool(peer(silent).address, ttl=60)
    loop.run_until_complete(use(pool))
    loop.close()
    assert pool.stats().idle == 1
    pool.clear()
    assert pool.stats().idle == 0
    with LoopThread(loop_kind) as other:
        other.call(pool.close)
    assert pool.closed


@pytest.mark.parametrize("at", ["dial", "on_connect", "on_release", "on_close", "on loan"])
def test_a_pool_whose_loop_was_closed_amid_something_may_be_closed_too(loop_kind: str, peer: Any, at: str) -> None:
    """That comes to its end by it, and leaves nothing behind."""
    ends: list[str] = []
    leases: list[gtcp.aio.PoolConn] = []

    async def hook(*args: Any) -> None:
        try:
            if at in ("on_connect", "on_release"):
                await args[0].recv(1)
            await hangs()
        except asyncio.CancelledError:
            ends.append(at)
            raise

    async def use(pool: gtcp.aio.Pool) -> None:
        if at in ("dial", "on_connect"):
            with pytest.raises(gtcp.PoolTimeout):
                await pool.prefill(1, timeout=0.001)
        else:
            leases.append(await pool.acquire())
        if at == "on_release":
            leases.pop().close()  # type: ignore[unused-coroutine]
        if at == "on_close":
            leases.pop().discard()
        await settled()

    loop = new_loop(loop_kind)
    pool = gtcp.aio.Pool(peer(silent).address, **{} if at == "on loan" else {at: hook})
    loop.run_until_complete(use(pool))
    loop.close()
    with LoopThread(loop_kind) as other:
        assert other.call(pool.close, LONG) == (at == "on loan")
    for lease in leases:
        lease.close()  # type: ignore[unused-coroutine]
    stats = pool.stats()
    assert (stats.connecting, stats.in_use, stats.idle) == (0, 0, 0)
    assert ends == ([] if at == "on loan" else [at])
    gc.collect()


@pytest.mark.filterwarnings("ignore:unclosed <gtcp:ResourceWarning")  # there may be one already, which nobody closed
def test_a_pool_is_dropped_with_callers_of_a_loop_that_was_closed(
    loop_kind: str, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    async def use() -> None:
        pool = gtcp.aio.Pool(host.address, max_size=1, on_connect=lambda conn: hangs())
        await asyncio.wait([await begun(pool.acquire()._opened())], timeout=0.001)

    loop = new_loop(loop_kind)
    loop.run_until_complete(use())
    loop.close()
    del loop
    gc.collect()  # a warning that an exception was ignored would fail the test
    assert "Event loop is closed" not in caplog.text


def test_a_loop_that_tells_nobody_of_its_end(loop_kind: str, peer: Any) -> None:
    """`run_until_complete` and `close`, without shutdown_asyncgens: no warning, and nothing left by the next loop."""
    address = peer(silent).address

    async def use() -> gtcp.aio.PoolConn:
        async with gtcp.aio.PoolConn(address):
            pass
        return await gtcp.aio.PoolConn(address)

    loop = new_loop(loop_kind)
    lease = loop.run_until_complete(use())
    loop.close()
    lease.close()  # type: ignore[unused-coroutine]
    loop = new_loop(loop_kind)
    last = loop.run_until_complete(use())
    last.discard()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    gc.collect()


def test_E16_too_many_wait(run: Run, peer: Any) -> None:
    async def main() -> None:
        async with pool_of(peer(echo).address, max_size=1, max_waiting=1) as pool:
            lease = await pool.acquire()
            waiting = await begun(pool.acquire()._opened())
            with pytest.raises(gtcp.PoolTimeout, match="waiting already"):
                await pool.acquire()
            await lease.close()
            await (await waiting).close()

    run(main())


def test_D4_who_cannot_wait_gets_what_can_be_dialled_at_once(run: Run, peer: Any) -> None:
    async def main() -> None:
        async with pool_of(peer(silent).address, max_size=1) as pool:
            lease = await pool.acquire(0)
            with pytest.raises(gtcp.PoolTimeout), quick():
                await pool.acquire(0)
            await lease.close()
        with closed_address() as address:
            async with pool_of(address) as pool:
                with pytest.raises(gtcp.RefusedError):
                    await pool.acquire(0)
        async with pool_of(peer(silent).address, on_connect=lambda conn: hangs()) as pool:
            with pytest.raises(gtcp.PoolTimeout), quick():
                await pool.acquire(0)

    run(main())


@pytest.mark.parametrize("idle", [True, False])
def test_a_lease_is_opened_by_one_task(run: Run, peer: Any, idle: bool) -> None:
    async def main() -> None:
        async with pool_of(peer(silent).address, on_acquire=(lambda lease: asyncio.sleep(0)) if idle else None) as pool:
            if idle:
                await (await pool.acquire()).close()
            lease = pool.acquire(LONG)
            first = await begun(lease._opened()) if not idle else asyncio.ensure_future(lease._opened())
            if idle:
                await asyncio.sleep(0)
            assert not first.done()
            for _ in range(2):
                with pytest.raises(gtcp.ConcurrencyError, match="another task is opening"):
                    await lease
                with pytest.raises(gtcp.ConcurrencyError, match="another task is opening"):
                    await lease.__aenter__()
            assert await first is lease
            with pytest.raises(RuntimeError, match="opened already"):
                await lease
            await lease.close()
            assert pool.stats().created == 1

    run(main())


@pytest.mark.parametrize("turns", range(8))
def test_E15_a_cancelled_waiter_costs_no_place(run: Run, peer: Any, turns: int) -> None:
    async def main() -> None:
        async with pool_of(peer(echo).address, max_size=1) as pool:
            lease = await pool.acquire()
            first, second = await begun(pool.acquire()._opened()), await begun(pool.acquire()._opened())
            lease.close()  # type: ignore[unused-coroutine]  # the first has it, and its task does not know yet
            for _ in range(turns):
                await asyncio.sleep(0)
            first.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                (await first).close()  # type: ignore[unused-coroutine]
            await (await second).close()
            assert (pool.stats().idle, pool.stats().created) == (1, 1)

    run(main())


@pytest.mark.parametrize("turns", range(8))
def test_E15_a_cancelled_dial_costs_no_place(run: Run, peer: Any, turns: int) -> None:
    async def main() -> None:
        async with pool_of(peer(echo).address, max_size=1) as pool:
            task = asyncio.ensure_future(pool.acquire())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                (await task).close()  # type: ignore[unused-coroutine]
            async with pool.acquire(LONG) as lease:
                assert await lease.send_recv(b"x", 1) == b"x"

    run(main())


def test_E6_a_cancelled_exchange_discards(run: Run, peer: Any) -> None:
    async def main() -> None:
        async with pool_of(peer(silent).address) as pool:
            for leave in ("with", "close"):
                lease = await pool.acquire()
                task = await begun(lease.send_recv(b"x", 1))
                task.cancel()
                await settled()
                assert task.cancelled()
                if leave == "with":
                    async with lease:
                        pass
                else:
                    await lease.close()
            assert pool.stats().closed["error"] == 2
            assert pool.stats().idle == 0

    run(main())


def test_E1_a_stale_connection_is_replaced_when_sending(run: Run, host: Host) -> None:
    async def main() -> None:
        async with pool_of(host.address, check=False) as pool:
            async with pool.acquire():
                reset(host.accept())
            await asyncio.sleep(SHORT / 5)
            async with pool.acquire() as lease:
                exchange = await begun(lease.send_recv_pkg(b"hello", timeout=LONG))
                far = await asyncio.to_thread(host.accept)
                assert await asyncio.to_thread(read_frame, far) == b"hello"
                far.sendall(frame(b"you"))
                assert await exchange == b"you"
            assert (pool.stats().created, pool.stats().closed["peer_closed"], pool.stats().idle) == (2, 1, 1)
            async with pool.acquire():
                reset(far)
            host.close()
            await asyncio.sleep(SHORT / 5)
            async with pool.acquire() as lease:
                with pytest.raises(gtcp.RefusedError):
                    await lease.send_recv_pkg(b"hello", timeout=LONG)
            assert (pool.stats().idle, pool.stats().in_use) == (0, 0)

    run(main())


def test_E1_a_stale_connection_is_replaced_when_a_batch_is_sent(run: Run, host: Host) -> None:
    async def main() -> None:
        async with pool_of(host.address) as pool:
            far = None
            for replies in (False, True):
                async with pool.acquire():
                    far = far or host.accept()
                async with pool.acquire() as lease:
                    reset(far)
                    batch = (
                        lease.send_recv_pkgs([b"a", b"b"], timeout=LONG) if replies else lease.send_pkgs([b"a", b"b"])
                    )
                    sending = await begun(batch)
                    far = await asyncio.to_thread(host.accept)
                    assert [await asyncio.to_thread(read_frame, far) for _ in range(2)] == [b"a", b"b"]
                    far.sendall(frame(b"c") + frame(b"d"))
                    assert (await sending or await lease.recv_pkgs(2, timeout=LONG)) == [b"c", b"d"]
            assert (pool.stats().created, pool.stats().closed["peer_closed"], pool.stats().idle) == (3, 2, 1)

    run(main())


def test_E1_what_on_acquire_has_set_up_is_not_replaced(run: Run, host: Host) -> None:
    async def main() -> None:
        def set_up(lease: gtcp.aio.PoolConn) -> Any:
            return lease.send_pkg(b"tenant A")

        async with pool_of(host.address, on_acquire=set_up, one_way=True) as pool:
            async with pool.acquire():
                far = host.accept()
            async with pool.acquire() as lease:
                reset(far)
                with pytest.raises((gtcp.ResetError, gtcp.PipeError)):
                    await lease.send_pkg(b"hello")
            assert host.nobody_came()

    run(main())


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_hooks(run: Run, peer: Any, kind: str) -> None:
    told: list[str] = []

    def hook(name: str, value: object = None) -> Any:
        def plain(*args: object) -> object:
            told.append(name)
            return value

        async def slow(*args: object) -> object:
            await asyncio.sleep(0)
            return plain()

        return plain if kind == "plain" else slow

    async def dial(address: gtcp.Address, timeout: float | None) -> gtcp.aio.Conn:
        told.append("dial")
        return await gtcp.aio.connect(address, timeout)

    async def main() -> None:
        verdict: list[bool] = []

        def check(lease: gtcp.aio.PoolConn) -> object:
            return hook("check", verdict.pop() if verdict else None)(lease)

        names = ("on_connect", "on_acquire", "on_release", "on_close")
        async with pool_of(peer(echo).address, check=check, dial=dial, **{name: hook(name) for name in names}) as pool:
            async with pool.acquire() as lease:
                assert told == ["dial", "on_connect", "on_acquire"]
            assert lease.closed
            assert told[3:] == ["on_release"]
            assert pool.stats().idle == 1
            verdict.append(False)
            async with pool.acquire() as lease:
                await settled()
                assert sorted(told[4:]) == sorted(["check", "on_close", "dial", "on_connect", "on_acquire"])
                lease.close()  # type: ignore[unused-coroutine]  # the hook goes on by itself
            await settled()
            assert told[-1] == "on_release"
            assert (pool.stats().idle, pool.stats().in_use, pool.stats().closed["check"]) == (1, 0, 1)

    run(main())


def test_hooks_that_fail_or_are_cancelled(run: Run, peer: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        failing = True

        async def on_acquire(lease: gtcp.aio.PoolConn) -> None:
            await asyncio.sleep(0)
            if failing:
                raise KeyError("acquire")

        async def on_release(lease: gtcp.aio.PoolConn) -> None:
            await asyncio.sleep(0)
            raise KeyError("release")

        async with pool_of(peer(echo).address, max_size=1, on_acquire=on_acquire, on_release=on_release) as pool:
            with pytest.raises(KeyError, match="acquire"):
                await pool.acquire()
            failing = False
            async with pool.acquire():
                pass
            assert pool.stats().closed["error"] == 2
            lease = await pool.acquire()
            leaving = await begun(lease.close())
            leaving.cancel()
            await asyncio.wait([leaving])
            await settled()
            assert (pool.stats().in_use, pool.stats().closed["error"]) == (0, 3)
            for turns in range(4):
                task = asyncio.ensure_future(pool.acquire())
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                if not task.cancelled():
                    await task.result().close()
            async with pool.acquire(LONG):
                pass

    run(main())
    assert "on_release" in caplog.text


class Stop(BaseException):
    """What no handler of ordinary errors catches."""


@pytest.mark.parametrize("raised", [Stop, GeneratorExit, asyncio.CancelledError])
def test_whatever_on_release_raises_the_lease_ends(
    run: Run, peer: Any, caplog: pytest.LogCaptureFixture, raised: type[BaseException]
) -> None:
    async def on_release(lease: gtcp.aio.PoolConn) -> None:
        await asyncio.sleep(0)
        raise raised

    async def main() -> None:
        async with pool_of(peer(echo).address, max_size=1, on_release=on_release) as pool:
            for _ in range(2):
                async with pool.acquire(LONG) as lease:
                    pass
                assert lease.closed
                assert (pool.stats().in_use, pool.stats().idle) == (0, 0)
            assert pool.stats().closed["error"] == 2
            assert await pool.close(LONG) == 0

    run(main())
    assert ("on_release" in caplog.text) == (raised is not asyncio.CancelledError)


async def talks(conn: gtcp.aio.Conn) -> None:
    await conn.recv(1)


async def hangs(*args: object) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("waiting", [talks, hangs])
def test_on_acquire_ends_with_the_time_of_its_acquire(run: Run, peer: Any, waiting: Any) -> None:
    async def main() -> None:
        async with pool_of(peer(silent).address, max_size=1, on_acquire=waiting) as pool:
            with takes(SHORT), pytest.raises(gtcp.PoolTimeout, match="on_acquire"):
                await pool.acquire(SHORT)
            assert (pool.stats().in_use, pool.stats().closed["error"]) == (0, 1)

    run(main())


def test_a_hook_may_have_a_limit_of_its_own(run: Run, peer: Any) -> None:
    async def impatient(conn: gtcp.aio.Conn) -> None:
        await conn.recv(1, timeout=0)

    async def main() -> None:
        for hook in ("on_connect", "on_acquire"):
            async with pool_of(peer(silent).address, **{hook: impatient}) as pool:
                with pytest.raises(gtcp.Timeout) as caught:
                    await pool.acquire(LONG)
                assert not isinstance(caught.value, gtcp.PoolTimeout)

    run(main())


@pytest.mark.parametrize("waiting", [talks, hangs])
def test_on_release_ends_with_check_timeout(
    run: Run, peer: Any, caplog: pytest.LogCaptureFixture, waiting: Any
) -> None:
    async def main() -> None:
        async with pool_of(peer(silent).address, max_size=1, on_release=waiting, check_timeout=SHORT) as pool:
            lease = await pool.acquire()
            with takes(SHORT):
                await lease.close()
            assert (pool.stats().in_use, pool.stats().closed["error"]) == (0, 1)

    run(main())
    assert "on_release" in caplog.text


@pytest.mark.parametrize("waiting", [talks, hangs])
def test_check_ends_with_check_timeout(run: Run, peer: Any, waiting: Any) -> None:
    async def main() -> None:
        async with pool_of(peer(silent).address, max_size=1, check=waiting, check_timeout=SHORT) as pool:
            async with pool.acquire():
                pass
            with takes(SHORT):
                await (await pool.acquire(LONG)).close()
            assert (pool.stats().created, pool.stats().closed["check"]) == (2, 1)
        async with pool_of(peer(silent).address, max_size=1, check=waiting) as pool:
            async with pool.acquire():
                pass
            with takes(SHORT), pytest.raises(gtcp.PoolTimeout):
                await pool.acquire(SHORT)

    run(main())


def test_the_deadline_of_check_ends_with_it(run: Run, peer: Any) -> None:
    async def on_acquire(lease: gtcp.aio.PoolConn) -> None:
        await asyncio.sleep(2 * SHORT)
        assert await lease.send_recv(b"x", 1) == b"x"

    async def main() -> None:
        options: Any = {"check": lambda lease: True, "check_timeout": SHORT, "on_acquire": on_acquire}
        async with pool_of(peer(echo).address, **options) as pool:
            for _ in range(2):
                async with pool.acquire(LONG) as lease:
                    assert await lease.send_recv(b"y", 1) == b"y"
            assert pool.stats().reused == 1

    run(main())


@pytest.mark.parametrize(("hook", "waiting"), [("dial", hangs), ("on_connect", talks), ("on_connect", hangs)])
def test_dial_and_on_connect_end_with_connect_timeout(run: Run, peer: Any, hook: str, waiting: Any) -> None:
    """Also when nobody waits for them any more: their place becomes free."""

    async def main() -> None:
        options: Any = {hook: waiting, "max_size": 1, "connect_timeout": SHORT}
        async with pool_of(peer(silent).address, **options) as pool:
            with takes(SHORT), pytest.raises(gtcp.PoolTimeout, match="connect"):
                await pool.acquire(LONG)
            assert pool.stats().connecting == 0
            given_up = await begun(pool.acquire(None)._opened())
            other = await begun(pool.acquire(LONG)._opened())
            given_up.cancel()
            with takes(SHORT / 2, late=LONG / 2):
                await asyncio.wait([given_up])
                await until(lambda: pool.stats().failed == 2)
            other.cancel()
            await asyncio.wait([other])
            await until(lambda: pool.stats().connecting == 0)

    run(main())


@pytest.mark.parametrize("end", ["closed", "left to the loop"])
def test_hooks_end_before_their_pool(run: Run, peer: Any, end: str) -> None:
    told: list[str] = []

    async def on_release(lease: gtcp.aio.PoolConn) -> None:
        told.append("release")
        await asyncio.sleep(SHORT / 10)
        told.append("released")

    async def on_close(conn: gtcp.aio.Conn, reason: str) -> None:
        told.append(reason)
        await asyncio.sleep(SHORT / 10)
        told.append("told")

    async def main() -> gtcp.aio.Pool:
        pool = gtcp.aio.Pool(peer(silent).address, on_release=on_release, on_close=on_close)
        lease = await pool.acquire()
        if end == "closed":
            lease.close()  # type: ignore[unused-coroutine]  # the hook goes on by itself
            await pool.close()
            assert told == ["release", "released", "cleared", "told"]
        else:
            await lease.close()
        return pool

    pool = run(main())
    assert pool.closed
    assert told == ["release", "released", "cleared", "told"]


@pytest.mark.parametrize("end", ["closed", "closed in time", "left to the loop"])
def test_a_pool_does_not_wait_for_ever_for_its_hooks(run: Run, peer: Any, end: str) -> None:
    ends: list[str] = []

    async def on_close(conn: gtcp.aio.Conn, reason: str) -> None:
        try:
            await hangs()
        finally:
            ends.append(reason)

    async def main() -> gtcp.aio.Pool:
        pool = gtcp.aio.Pool(peer(silent).address, on_close=on_close, check_timeout=SHORT)
        async with pool.acquire():
            pass
        if end != "left to the loop":
            with takes(SHORT):
                await (pool.close() if end == "closed" else pool.close(SHORT))
            assert not ends
        return pool

    run(main())
    assert ends == ["cleared"]


@pytest.mark.parametrize("end", ["closed", "closed in time", "left to the loop"])
def test_a_pool_does_not_wait_for_ever_for_its_dials(run: Run, peer: Any, end: str) -> None:
    """Nor for one that does not let itself be cancelled once."""
    ends = 0

    async def on_connect(conn: gtcp.aio.Conn) -> None:
        nonlocal ends
        with contextlib.suppress(asyncio.CancelledError):
            await hangs()
        try:
            await hangs()
        finally:
            ends += 1

    async def main() -> gtcp.aio.Pool:
        pool = gtcp.aio.Pool(peer(silent).address, on_connect=on_connect, check_timeout=SHORT)
        waiting = await begun(pool.acquire()._opened())
        await asyncio.sleep(SHORT / 2)
        if end != "left to the loop":
            with takes(SHORT):
                await (pool.close() if end == "closed" else pool.close(SHORT))
            with quick(), pytest.raises(gtcp.PoolClosed):
                await waiting
        else:
            waiting.cancel()
        assert ends == 0
        return pool

    pool = run(main())
    assert ends == 1
    assert (pool.stats().connecting, pool.stats().in_use) == (0, 0)


def test_the_end_of_a_loop_has_an_end(run: Run, peer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where hooks have no limit: they may not ask for another one when it is too late for that."""
    monkeypatch.setattr(_pool, "_FAREWELL", SHORT)
    ends: list[str] = []

    async def on_close(conn: gtcp.aio.Conn, reason: str) -> None:
        try:
            await hangs()
        finally:
            ends.append(reason)

    async def main() -> None:
        pool = gtcp.aio.Pool(peer(silent).address, on_close=on_close, check_timeout=None)
        async with pool.acquire():
            pools.append(pool)

    pools: list[gtcp.aio.Pool] = []
    run(main())
    assert ends == ["cleared"]


def test_hooks_may_close_their_pool(run: Run, peer: Any) -> None:
    async def main() -> None:
        for name in ("on_release", "on_close"):

            async def hook(*args: object) -> None:
                await pool.close()  # noqa: B023

            pool = gtcp.aio.Pool(peer(silent).address, **{name: hook})
            lease = await pool.acquire()
            with quick():
                lease.discard() if name == "on_close" else await lease.close()
                assert await pool.close(LONG) == 0
            assert pool.stats().in_use == 0

    run(main())


def test_on_connect_may_close_its_pool(run: Run, peer: Any) -> None:
    async def main() -> None:
        async def on_connect(conn: gtcp.aio.Conn) -> None:
            await pool.close()
            closed.set()

        closed = asyncio.Event()
        pool = gtcp.aio.Pool(peer(silent).address, on_connect=on_connect)
        with quick(), pytest.raises(gtcp.PoolClosed):
            await pool.acquire(LONG)
        await asyncio.wait_for(closed.wait(), LONG)

    run(main())


@pytest.mark.parametrize("turns", range(5))
@pytest.mark.parametrize("hook", ["check", "on_acquire"])
def test_E15_a_cancellation_in_the_turns_in_which_a_hook_ends_is_not_lost(
    run: Run, peer: Any, hook: str, turns: int
) -> None:
    async def main() -> None:
        async def wait(lease: gtcp.aio.PoolConn) -> None:
            began.set()
            await go_on.wait()

        async def use() -> None:
            async with pool.acquire(LONG):
                await hangs()

        began, go_on = asyncio.Event(), asyncio.Event()
        pool = gtcp.aio.Pool(peer(silent).address, **{hook: wait})
        if hook == "check":
            await pool.prefill(1)
        using = asyncio.ensure_future(use())
        await began.wait()
        go_on.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        using.cancel()
        await asyncio.wait([using], timeout=LONG)
        assert using.cancelled()
        await pool.close()
        assert pool.stats().in_use == 0

    run(main())


def test_A1_a_dial_that_fails(run: Run) -> None:
    async def main(address: str) -> None:
        async with pool_of(address, max_size=2) as pool:
            for _ in range(3):
                with pytest.raises(gtcp.RefusedError):
                    await pool.acquire(LONG)
            assert (pool.stats().connecting, pool.stats().failed) == (0, 3)
            with pytest.raises(gtcp.RefusedError):
                await pool.prefill(1)

    with closed_address() as address:
        run(main(address))


def test_prefill_min_idle_and_resize(run: Run, peer: Any) -> None:
    async def main() -> None:
        async with pool_of(peer(silent).address, max_size=5) as pool:
            await pool.prefill(9, LONG)
            assert pool.stats().idle == 5
            pool.resize(2)
            assert pool.stats().idle == 2
            pool.clear()
            assert pool.stats().idle == 0
        async with pool_of(peer(silent).address, min_idle=2) as pool, pool.acquire():
            await until(lambda: pool.stats().idle == 2)

    run(main())


def test_prefill_makes_few_dials_at_once(run: Run, peer: Any) -> None:
    under_way: list[int] = []

    async def main() -> None:
        async def dial(address: gtcp.Address, timeout: float | None) -> gtcp.aio.Conn:
            under_way.append(pool.stats().connecting)
            await asyncio.sleep(0)
            return await gtcp.aio.connect(address, timeout)

        async with pool_of(peer(silent).address, dial=dial) as pool:
            await pool.prefill(40, LONG)
            assert pool.stats().idle == 40

    run(main())
    assert max(under_way) == 16


def test_E17_close(run: Run, peer: Any) -> None:
    async def main() -> None:
        pool = gtcp.aio.Pool(peer(silent).address, max_size=1)
        lease = await pool.acquire()
        waiting = await begun(pool.acquire()._opened())
        receiving = await begun(lease.recv(1))
        with takes(SHORT / 2):
            assert await pool.close(SHORT / 2) == 1
        with pytest.raises(gtcp.PoolClosed):
            await waiting
        with pytest.raises(gtcp.ClosedError):
            await receiving
        await lease.close()
        assert await pool.close(None) == 0
        with pytest.raises(gtcp.PoolClosed):
            await pool.acquire()
        other = gtcp.aio.Pool(peer(silent).address)
        lease = await other.acquire()
        closing = await begun(other.close(LONG))
        assert not closing.done()
        await lease.close()
        assert await closing == 0

    run(main())


def test_E21_a_forgotten_lease_warns_and_frees_its_place(run: Run, peer: Any) -> None:
    async def main() -> None:
        async with pool_of(peer(silent).address, max_size=1) as pool:
            held = [await pool.acquire()]
            waiting = await begun(pool.acquire()._opened())

            def drop() -> None:
                held.clear()
                gc.collect()

            with pytest.warns(ResourceWarning, match="lease not closed") as caught:
                await asyncio.to_thread(drop)  # finalizers run in any thread
            assert len(caught) == 1
            await (await asyncio.wait_for(waiting, LONG)).close()
            assert pool.stats().closed["leaked"] == 1

    run(main())


async def take_it(pool: gtcp.aio.Pool) -> gtcp.aio.PoolConn:
    return await pool.acquire()


@pytest.mark.parametrize("how", ["at once", "after a wait"])
def test_E21_a_lease_that_is_held_too_long_is_reported_once(
    run: Run, peer: Any, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    def reports() -> list[logging.LogRecord]:
        return [record for record in caplog.records if record.name == "gtcp"]

    async def main() -> None:
        address = peer(silent).address
        async with pool_of(address, leak_threshold=SHORT / 2, max_size=1) as pool:
            lease = await pool.acquire()
            taking = await begun(take_it(pool)) if how == "after a wait" else None
            await lease.close()  # this one is not held long
            async with await (take_it(pool) if taking is None else taking):
                await until(reports)
                await asyncio.sleep(SHORT)  # no second report in this time
        (record,) = reports()
        assert record.levelno == logging.WARNING
        assert f"a connection to {address} has been on loan for" in record.message
        assert "in take_it\n    return await pool.acquire()\n" in record.message

    run(main())


def test_a_dropped_pool_is_not_kept_by_its_loop(run: Run, peer: Any) -> None:
    async def main() -> None:
        pool = gtcp.aio.Pool(peer(silent).address, ttl=60)
        async with pool.acquire():
            pass
        there = weakref.ref(pool)
        del pool
        await settled()  # the loop holds what it ran last
        gc.collect()
        assert there() is None  # and its connections are closed: `leaves_no_trace` looks

    run(main())


def test_threads_may_read_the_numbers(run: Run, peer: Any) -> None:
    async def main() -> None:
        async with pool_of(peer(silent).address) as pool:
            async with pool.acquire():
                pass
            assert (await asyncio.to_thread(pool.stats)).idle == 1
            assert "idle 1" in await asyncio.to_thread(repr, pool)

    run(main())
