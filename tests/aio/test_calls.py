"""How calls are awaited: directly, as tasks, with the tools of asyncio; and what misuse says."""

import asyncio
import contextvars
import gc
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

import gtcp
import gtcp.aio
from aio.conftest import Run
from support.aio import begun, far_read, linked
from support.loops import LoopThread
from support.peers import closed_address, echo, frame, silent
from support.timing import LONG, SHORT, takes


def test_a_connection_is_opened_by_awaiting_or_entering_it(run: Run, peer: Any) -> None:
    async def main() -> None:
        address = peer(echo).address
        for conn in (await gtcp.aio.Conn(address), await gtcp.aio.connect(address)):
            assert await conn.send_recv(b"x", 1) == b"x"
            await conn.close()
        async with gtcp.aio.Conn(address) as conn, gtcp.aio.connect(address, timeout=LONG) as other:
            assert await other.send_recv(b"x", 1) == await conn.send_recv(b"x", 1)
        assert conn.closed
        assert other.closed
        async with await gtcp.aio.connect(address) as conn:
            assert not conn.closed
        with pytest.raises(RuntimeError, match="opened already"):
            await conn

    run(main())


@pytest.mark.parametrize("kind", [gtcp.aio.Conn, gtcp.aio.PoolConn])
def test_H12_a_connection_that_was_never_made_cannot_be_opened(run: Run, kind: type[gtcp.aio.Conn]) -> None:
    async def main() -> None:
        conn = kind.__new__(kind)
        with pytest.raises(gtcp.ClosedError, match="never opened"):
            await conn
        with pytest.raises(gtcp.ClosedError, match="never opened"):
            await conn.__aenter__()

    run(main())


def test_one_task_opens_a_connection(run: Run, peer: Any) -> None:
    async def main() -> None:
        conn = gtcp.aio.Conn(peer(echo).address)
        ends = await asyncio.gather(*[conn._opened() for _ in range(3)], return_exceptions=True)
        assert [type(end) for end in ends] == [gtcp.aio.Conn, gtcp.ConcurrencyError, gtcp.ConcurrencyError]
        async with conn:
            assert await conn.send_recv(b"x", 1) == b"x"

    run(main())


def test_a_connection_that_could_not_be_opened_may_be_tried_again(run: Run, peer: Any) -> None:
    async def main(address: str) -> None:
        conn = gtcp.aio.Conn(address)
        for _ in range(2):
            with pytest.raises(gtcp.RefusedError):
                await conn

    with closed_address() as address:
        run(main(address))


def test_before_it_is_open_a_connection_is_closed(run: Run) -> None:
    async def main() -> None:
        conn = gtcp.aio.Conn("127.0.0.1:1")
        assert conn.closed
        assert repr(conn) == "<gtcp.aio.Conn closed>"
        for call in (conn.recv(), conn.send(b"x"), conn.send_recv_pkgs([b"x"])):
            with pytest.raises(gtcp.ClosedError):
                await call
        await conn.close()

    run(main())


def test_arguments_are_checked_by_the_call_itself(run: Run) -> None:
    async def main() -> None:
        async with linked() as (conn, _):
            with pytest.raises(ValueError, match="negative"):
                conn.recv(timeout=-1)
            with pytest.raises(TypeError):
                conn.send(1)  # type: ignore[arg-type]
            with pytest.raises(gtcp.LimitError):
                conn.send_pkg(bytes(70_000))
            with pytest.raises(TypeError):
                conn.recv_line(retry=3)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="port"):
            gtcp.aio.Conn("nowhere")

    run(main())


def test_a_call_is_a_coroutine(run: Run) -> None:
    async def main() -> None:
        async with linked() as (conn, far):
            call = conn.recv_pkg()
            assert asyncio.iscoroutine(call)
            task = await begun(call)
            assert not task.done()
            assert "Receive" in repr(task)
            far.sendall(frame(b"one") + frame(b"two") + frame(b"three"))
            assert await task == b"one"
            assert await asyncio.gather(conn.recv_pkg()) == [b"two"]
            assert await asyncio.wait_for(conn.recv_pkg(), LONG) == b"three"

    run(main())


def test_a_call_is_awaited_once(run: Run) -> None:
    async def main() -> None:
        async with linked() as (conn, far):
            call = conn.recv(1)
            far.sendall(b"x")
            assert await call == b"x"
            with pytest.raises(RuntimeError, match="awaited already"):
                await call
            waiting = conn.recv(1)
            task = await begun(waiting)
            with pytest.raises(RuntimeError, match="awaited already"):
                await waiting
            far.sendall(b"y")
            assert await task == b"y"

    run(main())


def test_a_call_that_is_over_keeps_nothing(run: Run) -> None:
    """It may serve again, so it is not dropped with what it had."""

    async def main() -> None:
        async with linked() as (conn, far):
            data = bytearray(b"x")
            sending, receiving = conn.send(data), conn.recv(1)
            await sending
            data += b"y"  # a view of it would forbid that
            far.sendall(b"x")
            (received,) = [await receiving]
            assert [each for each in (conn, data) if each in gc.get_referents(sending, receiving)] == []
            assert not any(isinstance(each, bytes) for each in gc.get_referents(receiving))
            assert received == b"x"

    run(main())


@pytest.mark.parametrize("end", ["done", "cancelled", "timed out", "never begun"])
def test_C7_no_export_is_left_when_a_call_is_over(run: Run, end: str) -> None:
    """Although its task is still there."""

    async def main() -> None:
        async with linked(receive_buffer=1 << 12) as (conn, far):
            size = 5 if end == "done" else 8 << 20
            timeout = SHORT / 10 if end == "timed out" else None
            calls: dict[str, Callable[[bytearray], Coroutine[Any, Any, object]]] = {
                "send": lambda buffer: conn.send(buffer, timeout=timeout),
                "exchange": lambda buffer: conn.send_recv(buffer, 5, timeout=timeout),
                "recv_into": lambda buffer: conn.recv_into(buffer, 5, timeout=timeout),
            }
            for name, call in calls.items():
                if end == "done":
                    far.sendall(b"reply")
                buffer = bytearray(size)
                task = asyncio.ensure_future(call(buffer))
                if end in {"done", "cancelled"}:
                    await asyncio.sleep(SHORT / 10)
                if end in {"cancelled", "never begun"}:
                    task.cancel()
                await asyncio.wait([task])
                assert task.cancelled() or (task.exception() is None) == (end == "done")
                buffer.append(0)
                if end == "done" and name == "send":
                    await conn.recv(5)

    run(main())


def test_only_a_call_that_nobody_holds_serves_again(run: Run) -> None:
    async def main() -> None:
        async with linked() as (conn, far):
            seen = []
            for number in range(10):
                far.sendall(frame(b"%d" % number))
                seen.append(conn.recv_pkg())
                assert await seen[-1] == b"%d" % number
            assert len({id(call) for call in seen}) == 10
            for call in seen:
                with pytest.raises(RuntimeError, match="awaited already"):
                    await call

    run(main())


def test_a_call_that_serves_again_knows_nothing_of_the_one_before(run: Run) -> None:
    async def main() -> None:
        async with linked() as (conn, far):
            conn.set_buffer_wait_recv(SHORT / 10)
            far.sendall(frame(b"one"))
            packages = conn.packages(timeout=LONG)
            assert await packages.__anext__() == b"one"  # at a clean end this call ends an iteration
            far.sendall(b"burst")
            assert await conn.recv(-1) == b"burst"  # this one is done after a silence
            with takes(SHORT), pytest.raises(gtcp.Timeout):
                await conn.recv_pkg(timeout=SHORT)
            receiving = await begun(conn.recv_pkg())  # which has no limit
            await asyncio.sleep(SHORT)
            far.sendall(frame(b"two"))
            assert await receiving == b"two"
            buffer = bytearray(3)
            far.sendall(b"abc" + frame(b"three"))
            assert await conn.recv_into(buffer, 3) == 3
            assert await conn.recv_pkg() == b"three"
            assert buffer == b"abc"
            far.shutdown(socket.SHUT_WR)
            with pytest.raises(gtcp.EOF):
                await conn.recv_pkg()

    run(main())


def test_who_cannot_await_a_call_does_not_end_it(run: Run) -> None:
    """A second task for a call that the first waits in, cancelled before it began."""

    async def main() -> None:
        async with linked() as (conn, far):
            call = conn.recv_pkg()
            first = await begun(call)
            second = asyncio.ensure_future(call)
            second.cancel()
            await asyncio.wait([second])
            assert isinstance(second.exception(), RuntimeError)
            far.sendall(frame(b"for the first"))
            assert await first == b"for the first"

    run(main())


def test_a_call_that_nobody_awaits_warns(run: Run) -> None:
    async def main() -> None:
        async with linked() as (conn, _):
            with pytest.warns(RuntimeWarning, match="Send on <gtcp.aio.Conn .* was never awaited"):
                conn.send(b"x")  # type: ignore[unused-coroutine]
            unused: Any = conn.recv()
            unused.close()

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.TaskGroup")
def test_in_a_task_group(run: Run) -> None:
    async def main() -> None:
        async with linked() as (conn, far):
            with pytest.raises(BaseExceptionGroup) as failed:  # noqa: F821, PT012
                async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined]
                    receiving = group.create_task(conn.recv_pkg())
                    await asyncio.sleep(0)
                    group.create_task(conn.recv_pkg())
            assert isinstance(failed.value.exceptions[0], gtcp.ConcurrencyError)
            assert receiving.cancelled()
            far.sendall(frame(b"still there"))
            async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined]
                receiving = group.create_task(conn.recv_pkg())
            assert receiving.result() == b"still there"

    run(main())


def test_iterators(run: Run) -> None:
    async def main() -> None:
        async with linked() as (conn, far):
            far.sendall(frame(b"one") + frame(b""))
            got = []
            packages = conn.packages(timeout=LONG)
            async for package in packages:
                got.append(package)
                if len(got) == 2:
                    far.sendall(frame(b"three"))
                    far.close()
            assert got == [b"one", b"", b"three"]
        async with linked() as (conn, far):
            far.sendall(b"a\nb\nc")
            far.close()
            lines = conn.lines()
            assert await anext(lines) == b"a"
            assert await anext(lines) == b"b"
            with pytest.raises(gtcp.EOF, match="after 1 of"):
                await anext(lines)

    run(main())


def test_the_context_of_a_task_is_its_own(run: Run) -> None:
    name = contextvars.ContextVar[str]("name")

    async def main() -> None:
        async def receiver(conn: gtcp.aio.Conn, mine: str) -> None:
            name.set(mine)
            for _ in range(3):
                await conn.recv_pkg()
                assert name.get() == mine

        async with linked() as (conn, far), linked() as (other, far_other):
            tasks = [await begun(receiver(conn, "a")), await begun(receiver(other, "b"))]
            for _ in range(3):
                far.sendall(frame(b"x"))
                far_other.sendall(frame(b"x"))
                await asyncio.sleep(0.001)
            await asyncio.gather(*tasks)

    run(main())


def test_a_connection_does_not_keep_the_context_of_its_first_call(run: Run) -> None:
    class Request:
        pass

    request = contextvars.ContextVar[Request]("request")
    there: list[Any] = []

    async def main() -> None:
        async def handle(conn: gtcp.aio.Conn) -> None:
            request.set(Request())
            there.append(weakref.ref(request.get()))
            await conn.recv_pkg()

        async with linked() as (conn, far):
            task = await begun(handle(conn))
            far.sendall(frame(b"x"))
            await task
            del task
            await asyncio.sleep(0)  # the loop itself held the task until here
            gc.collect()
            assert there[0]() is None

    run(main())


def test_senders_queue_up(run: Run) -> None:
    async def main() -> None:
        async with linked(receive_buffer=4096) as (conn, far):
            option = gtcp.PkgOption(4)
            payloads = [bytes([i]) * 1_000_000 for i in range(8)]
            tasks = [await begun(conn.send_pkg(payload, option)) for payload in payloads]
            for payload in payloads:
                assert await far_read(far, 1_000_004) == frame(payload, 4)
            await asyncio.gather(*tasks)

    run(main())


def test_the_wait_for_a_turn_counts_into_the_timeout(run: Run) -> None:
    async def main() -> None:
        async with linked(receive_buffer=4096) as (conn, far):
            first = await begun(conn.send(bytes(8 << 20)))
            with takes(SHORT), pytest.raises(gtcp.Timeout, match="another call"):
                await conn.send(b"x", timeout=SHORT)
            last = await begun(conn.send(b"last"))
            await far_read(far, 8 << 20)
            await first
            assert await far_read(far, 4) == b"last"
            await last

    run(main())


def test_a_second_receiver_is_refused_and_exchanges_queue_up(run: Run) -> None:
    async def main() -> None:
        async with linked() as (conn, far):
            first = await begun(conn.send_recv_pkg(b"one"))
            second = await begun(conn.send_recv_pkg(b"two"))
            with pytest.raises(gtcp.ConcurrencyError):
                await conn.recv(1)
            assert await far_read(far, 5) == frame(b"one")
            far.sendall(frame(b"1"))
            assert await first == b"1"
            assert await far_read(far, 5) == frame(b"two")
            far.sendall(frame(b"2"))
            assert await second == b"2"

    run(main())


def test_close_wakes_everybody(run: Run) -> None:
    async def main() -> None:
        async with linked(receive_buffer=4096) as (conn, _):
            waiting = [
                await begun(conn.recv(1)),
                await begun(conn.send(bytes(8 << 20))),
                await begun(conn.send(b"x")),
                await begun(conn.send_recv(b"x", 1)),
            ]
            await conn.close()
            assert conn.closed
            assert conn.fileno() == -1
            ended = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(error) for error in ended] == [gtcp.ClosedError] * 2 + [
                gtcp.ClosedError,
                gtcp.ConcurrencyError,
            ]

    run(main())


def test_close_needs_no_await(run: Run) -> None:
    async def main() -> None:
        async with linked() as (conn, far):
            conn.close()  # type: ignore[unused-coroutine]
            assert conn.closed
            assert far.recv(1) == b""

    run(main())


def test_a_connection_belongs_to_its_loop(loop_kind: str, peer: Any) -> None:
    with LoopThread(loop_kind) as one, LoopThread(loop_kind) as two:
        conn = one.call(gtcp.aio.Conn, peer(echo).address)
        calls: list[Any] = [conn.recv, conn.close, conn.abort, partial(conn.send, b"x"), partial(conn.recv, 1)]
        for call in calls:
            with pytest.raises(RuntimeError, match="another event loop"):
                two.call(call)
        for end in (conn.close, conn.abort):
            with pytest.raises(RuntimeError, match="event loop"):
                end()  # in a thread without a loop
        assert one.call(conn.send_recv, b"y", 1) == b"y"  # and nothing of what was refused
        one.call(conn.close)


def test_outside_of_a_loop_there_is_no_waiting(loop_kind: str) -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        gtcp.aio.Conn("127.0.0.1:1").__await__().send(None)


def test_dropped_connections_warn_and_close(run: Run, peer: Any) -> None:
    async def main() -> None:
        conn = await gtcp.aio.connect(peer(silent).address)
        with pytest.raises(gtcp.Timeout):
            await conn.recv(1, timeout=0.001)
        with pytest.warns(ResourceWarning, match=r"unclosed <gtcp\.aio\.Conn"):  # noqa: PT031
            del conn
            gc.collect()

    run(main())


def test_dropped_in_another_thread_the_loop_closes(run: Run, peer: Any) -> None:
    async def main() -> None:
        address = peer(silent).address
        held = [await gtcp.aio.connect(address)]
        with pytest.raises(gtcp.Timeout):
            await held[0].recv(1, timeout=0.001)  # the loop watches it now

        def drop() -> None:
            held.clear()
            gc.collect()

        with pytest.warns(ResourceWarning, match="unclosed"):
            await asyncio.to_thread(drop)
        # Its number is free for others only when the loop has let it go.
        async with gtcp.aio.connect(address) as conn:
            with pytest.raises(gtcp.Timeout):
                await conn.recv(1, timeout=0.01)

    run(main())


def test_closed_in_another_thread(run: Run) -> None:
    async def main() -> None:
        async with linked() as (conn, far):
            task = await begun(conn.recv(1))
            thread = threading.Thread(target=conn._discard)
            thread.start()
            await asyncio.to_thread(thread.join)
            with pytest.raises(gtcp.ClosedError):
                await task
            assert far.recv(1) == b""

    run(main())


def test_a_full_read_does_not_starve_others(run: Run) -> None:
    """A peer that never pauses, and a task that never waits for anything else, leave the loop to others."""

    async def main() -> None:
        async with linked() as (conn, far):
            stop = threading.Event()

            def flood() -> None:
                block = frame(b"x" * 1000) * 64
                try:
                    while not stop.is_set():
                        far.sendall(block)
                except OSError:
                    pass

            thread = threading.Thread(target=flood)
            thread.start()
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    await asyncio.sleep(0)
                    ticks += 1

            ticking = await begun(tick())
            for _ in range(5000):
                await conn.recv_pkg()
            assert ticks > 5
            stop.set()
            ticking.cancel()
            conn.abort()
            await asyncio.to_thread(thread.join)

    run(main())


@pytest.mark.parametrize("how", ["recv_pkg", "recv", "recv_pkgs", "packages"])
def test_small_units_that_came_together_do_not_starve_others(run: Run, how: str) -> None:
    count, fair = 5000, 768
    handled = 0

    async def take(conn: gtcp.aio.Conn) -> None:
        if how == "packages":
            async for _ in conn.packages():
                handle(1)
        while handled < count:
            if how == "recv_pkgs":
                handle(len(await conn.recv_pkgs(10)))
            else:
                await (conn.recv(3) if how == "recv" else conn.recv_pkg())
                handle(1)

    def handle(units: int) -> None:
        nonlocal handled
        handled += units
        if handled == count // 5:
            far.sendall(frame(b"now"))

    async def ask(conn: gtcp.aio.Conn) -> int:
        assert await conn.recv_pkg(timeout=LONG) == b"now"
        return handled - count // 5

    async def main() -> None:
        nonlocal far
        async with linked() as (conn, far), linked() as (flooded, flooding):
            asking = await begun(ask(conn))
            flooding.sendall(frame(b"x") * count)
            flooding.shutdown(socket.SHUT_WR)
            await take(flooded)
            assert await asking <= fair

    far: socket.socket
    run(main())
    assert handled == count


def test_a_sender_does_not_starve_others(run: Run, peer: Any) -> None:
    async def main() -> None:
        async with gtcp.aio.connect(peer(silent).address) as conn:
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    await asyncio.sleep(0)
                    ticks += 1

            ticking = await begun(tick())
            for _ in range(2000):
                await conn.send(b"x")
            assert ticks > 10
            ticking.cancel()

    run(main())


def test_the_last_moment_counts(run: Run) -> None:
    async def main() -> None:
        async with linked() as (conn, far):
            with takes(0), pytest.raises(gtcp.Timeout):
                await conn.recv(1, timeout=0)
            far.sendall(b"x")
            assert await conn.recv(1, timeout=0) == b"x"
            with takes(SHORT), pytest.raises(gtcp.Timeout):
                await conn.recv(1, timeout=SHORT)
            conn.set_deadline(0)
            with pytest.raises(gtcp.Timeout):
                await conn.recv(1)
            conn.set_deadline(None)
            far.sendall(b"y")
            assert await conn.recv(1) == b"y"

    run(main())


def test_one_timer_for_many_timeouts(run: Run) -> None:
    async def main() -> None:
        async with linked(receive_buffer=4096) as (conn, far):
            sending = await begun(conn.send(bytes(8 << 20), timeout=5 * SHORT))
            late = await begun(conn.send(b"x", timeout=2 * SHORT))
            with takes(SHORT), pytest.raises(gtcp.Timeout):
                await conn.recv(1, timeout=SHORT)
            with takes(SHORT / 2), pytest.raises(gtcp.Timeout):
                await conn.recv(1, timeout=SHORT / 2)
            far.sendall(b"x")
            assert await conn.recv(1, timeout=SHORT) == b"x"
            with pytest.raises(gtcp.Timeout):
                await late
            with pytest.raises(gtcp.Timeout) as timed_out:
                await sending
            assert timed_out.value.sent

    run(main())


def test_refused(run: Run) -> None:
    async def main() -> None:
        with closed_address() as address, pytest.raises(gtcp.RefusedError):
            await gtcp.aio.connect(address)

    run(main())
