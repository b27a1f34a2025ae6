"""A cancelled call leaves the connection as a call that timed out: nothing lost, nothing sent twice, no turn kept."""

import asyncio
import random
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest

import gtcp
import gtcp.aio
from aio.conftest import Run
from support.aio import begun, far_read, linked
from support.peers import deaf_address, frame
from support.timing import SHORT

RECEIVES: dict[str, tuple[Callable[[gtcp.aio.Conn], Any], bytes, Any]] = {
    "recv": (lambda conn: conn.recv(5), b"hello", b"hello"),
    "recv_line": (lambda conn: conn.recv_line(), b"hello\n", b"hello"),
    "recv_till": (lambda conn: conn.recv_till(b"--"), b"hello--", b"hello--"),
    "recv_pkg": (lambda conn: conn.recv_pkg(), frame(b"hello"), b"hello"),
    "recv_pkgs": (lambda conn: conn.recv_pkgs(2), frame(b"hello") + frame(b"you"), [b"hello", b"you"]),
    "recv_into": (lambda conn: into(conn, 5), b"hello", b"hello"),
    "packages": (lambda conn: conn.packages().__anext__(), frame(b"hello"), b"hello"),
}


async def into(conn: gtcp.aio.Conn, n: int) -> bytes:
    buffer = bytearray(n)
    await conn.recv_into(buffer, n)
    return bytes(buffer)


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel the task and see that it ends at once."""
    assert task.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert task.cancelled()


@pytest.mark.parametrize("name", RECEIVES)
def test_a_cancelled_receive_loses_nothing(run: Run, name: str) -> None:
    call, wire, result = RECEIVES[name]

    async def main() -> None:
        async with linked() as (conn, far):
            for at in range(len(wire)):
                task = await begun(call(conn))
                far.sendall(wire[:at])
                await asyncio.sleep(0.002)
                await cancelled(task)
                far.sendall(wire[at:] + b"rest")
                assert await call(conn) == result
                assert await conn.recv(4) == b"rest"

    run(main())


@pytest.mark.parametrize("name", RECEIVES)
def test_cancelled_in_the_turn_in_which_the_bytes_come(run: Run, name: str) -> None:
    call, wire, result = RECEIVES[name]

    async def main() -> None:
        async with linked() as (conn, far):
            for delay in range(6):
                task = await begun(call(conn))
                far.sendall(wire)
                for _ in range(delay):
                    await asyncio.sleep(0)
                got = None
                task.cancel()
                try:
                    got = await task
                except asyncio.CancelledError:
                    got = await call(conn)
                assert got == result
                assert conn.buffered == 0

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout")
def test_asyncio_timeout(run: Run) -> None:
    async def main() -> None:
        async with linked() as (conn, far):
            far.sendall(frame(b"x" * 100_000, 4)[:50_000])
            for _ in range(3):
                with pytest.raises(asyncio.TimeoutError):
                    async with asyncio.timeout(SHORT / 5):
                        await conn.recv_pkg(gtcp.PkgOption(4))
            far.sendall(frame(b"x" * 100_000, 4)[50_000:])
            async with asyncio.timeout(None):
                assert len(await conn.recv_pkg(gtcp.PkgOption(4))) == 100_000

    run(main())


def test_a_package_cut_in_two_breaks_the_connection(run: Run) -> None:
    async def main() -> None:
        async with linked(receive_buffer=4096) as (conn, _):
            task = await begun(conn.send_pkg(bytes(8 << 20), gtcp.PkgOption(4)))
            await cancelled(task)
            for call in (conn.send(b"x"), conn.recv(1)):
                with pytest.raises(gtcp.BrokenError, match="stopped in the middle"):
                    await call

    run(main())


def test_a_cancelled_wait_for_a_turn_costs_nothing(run: Run) -> None:
    async def main() -> None:
        async with linked(receive_buffer=4096) as (conn, far):
            size = 4 << 20
            first = await begun(conn.send(bytes(size)))
            waiting = [await begun(conn.send(bytes([i]))) for i in range(5)]
            await cancelled(waiting[0])
            await cancelled(waiting[3])
            await far_read(far, size)
            await first
            assert await far_read(far, 3) == b"\1\2\4"
            await asyncio.gather(waiting[1], waiting[2], waiting[4])

    run(main())


def test_cancelled_in_the_moment_of_the_turn(run: Run) -> None:
    """The turn has been handed over and its new owner's task has not run yet."""

    async def main() -> None:
        async with linked(receive_buffer=4096) as (conn, far):
            first = await begun(conn.send(bytes(8 << 20)))
            second, third = await begun(conn.send(b"second")), await begun(conn.send(b"third"))
            first.cancel()  # its end hands the turn to the second
            second.cancel()
            with pytest.raises(gtcp.BrokenError):
                await third
            assert first.cancelled()
            assert second.cancelled()
            assert far.fileno() >= 0

        async with linked() as (conn, far):
            one, two = await begun(conn.send_recv_pkg(b"1")), await begun(conn.send_recv_pkg(b"2"))
            three = await begun(conn.send_recv_pkg(b"3"))
            one.cancel()
            two.cancel()
            with pytest.raises(gtcp.BrokenError, match="owed its reply"):
                await three  # the reply that comes next is the first one's
            far.sendall(frame(b"one"))
            assert await conn.recv_pkg() == b"one"
            four = await begun(conn.send_recv_pkg(b"4"))
            assert await far_read(far, 6) == frame(b"1") + frame(b"4")
            far.sendall(frame(b"four"))
            assert await four == b"four"


EXCHANGES: dict[str, Callable[[gtcp.aio.Conn, bytes], Any]] = {
    "send_recv": lambda conn, data: conn.send_recv(frame(data), 3),
    "send_recv_pkg": lambda conn, data: conn.send_recv_pkg(data),
    "send_recv_pkgs": lambda conn, data: conn.send_recv_pkgs([data]),
}


@pytest.mark.parametrize("name", EXCHANGES)
def test_E6_a_cancelled_exchange_leaves_its_reply_to_no_other(run: Run, name: str) -> None:
    async def main() -> None:
        async with linked() as (conn, far):
            first = await begun(EXCHANGES[name](conn, b"1"))
            queued = [await begun(exchange(conn, b"?")) for exchange in EXCHANGES.values()]
            await cancelled(queued.pop(1))
            await cancelled(first)
            for exchange in [*queued, *[call(conn, b"?") for call in EXCHANGES.values()]]:
                with pytest.raises(gtcp.BrokenError, match="owed its reply"):
                    await exchange
            far.sendall(frame(b"a"))
            assert await (conn.recv(3) if name == "send_recv" else conn.recv_pkg()) in (b"a", frame(b"a"))
            last = await begun(EXCHANGES[name](conn, b"2"))
            assert await far_read(far, 6) == frame(b"1") + frame(b"2")
            far.sendall(frame(b"b"))
            assert await last in (b"b", [b"b"], frame(b"b"))

    run(main())


@pytest.mark.parametrize("name", ["send_recv", "send_recv_pkg"])
def test_E6_an_exchange_cancelled_in_the_turn_in_which_its_reply_comes(run: Run, name: str) -> None:
    """It has its reply, or that can be received: nothing in between."""

    async def main() -> None:
        async with linked() as (conn, far):
            ends = set()
            for delay in range(8):
                task = await begun(EXCHANGES[name](conn, b"?"))
                assert await far_read(far, 3) == frame(b"?")
                far.sendall(frame(b"a"))
                for _ in range(delay):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    got = await task
                except asyncio.CancelledError:
                    with pytest.raises(gtcp.BrokenError):
                        await EXCHANGES[name](conn, b"?")
                    got = await (conn.recv(3) if name == "send_recv" else conn.recv_pkg())
                ends.add(task.cancelled())
                assert got in (b"a", frame(b"a"))
                assert conn.buffered == 0
            assert ends == {True, False}

    run(main())


def test_E6_tasks_that_share_a_connection_and_are_cancelled_at_random(run: Run) -> None:
    """Who finds the connection out of step opens another one for all; nobody ever has another one's reply."""
    tasks, rounds = 8, 60

    async def serve(conn: gtcp.aio.Conn) -> None:
        async for package in conn.packages():
            await conn.send_pkg(package)

    async def main() -> None:
        rng = random.Random(10)
        shared: list[gtcp.aio.Conn] = []
        counts = {"done": 0, "cancelled": 0, "broken": 0}

        async def client(number: int, address: str) -> None:
            for i in range(rounds):
                conn, data = shared[-1], [b"%d-%d-%d" % (number, i, part) for part in range(3)]
                task = asyncio.ensure_future(
                    conn.send_recv_pkgs(data) if rng.random() < 0.5 else conn.send_recv_pkg(data[0])
                )
                if rng.random() < 0.3:
                    for _ in range(rng.randrange(20)):
                        await asyncio.sleep(0)
                    task.cancel()
                try:
                    assert await task in (data, data[0])
                    counts["done"] += 1
                except asyncio.CancelledError:
                    counts["cancelled"] += 1
                except gtcp.BrokenError:
                    counts["broken"] += 1
                    if conn is shared[-1]:
                        shared.append(await gtcp.aio.connect(address))

        async with gtcp.aio.Server("127.0.0.1:0", serve) as server:
            address = str(server.get_listened_address())
            shared.append(await gtcp.aio.connect(address))
            await asyncio.gather(*[client(i, address) for i in range(tasks)])
            for conn in shared:
                await conn.close()
        assert sum(counts.values()) == tasks * rounds
        assert min(counts.values()) > 0, counts

    run(main(), 60)

    run(main())


def test_a_task_that_was_cancelled_before_it_began(run: Run) -> None:
    async def main() -> None:
        async with linked() as (conn, far):
            task = asyncio.create_task(conn.recv(1))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            far.sendall(b"x")
            assert await conn.recv(1) == b"x"

    run(main())


def test_a_task_that_does_not_let_itself_be_cancelled(run: Run) -> None:
    async def main() -> None:
        async def stubborn(conn: gtcp.aio.Conn) -> bytes:
            while True:
                try:
                    return await conn.recv_pkg()
                except asyncio.CancelledError:
                    continue

        async with linked() as (conn, far):
            task = await begun(stubborn(conn))
            for _ in range(10):
                task.cancel()
                await asyncio.sleep(0)
            far.sendall(frame(b"x"))
            assert await task == b"x"

    run(main())


def test_cancelled_dials_leave_nothing_open(run: Run) -> None:
    async def main() -> None:
        with deaf_address() as address:
            task = await begun(gtcp.aio.Conn(address)._opened())
            await cancelled(task)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(gtcp.aio.Conn(address), SHORT)

    run(main())


def test_exchanges_cancelled_at_random(run: Run) -> None:
    """Each task has a connection and opens another one when an exchange was cancelled; no reply is a stranger's."""
    rounds = 400

    async def serve(conn: gtcp.aio.Conn) -> None:
        async for package in conn.packages():
            if random.random() < 0.3:
                await asyncio.sleep(0)
            await conn.send_pkg(package)

    async def main() -> None:
        async def client(number: int, address: str) -> int:
            done = 0
            conn = await gtcp.aio.connect(address)
            for i in range(rounds):
                payload = f"{number}-{i}".encode() * random.choice([1, 10, 1000])
                exchange = asyncio.ensure_future(conn.send_recv_pkg(payload))
                for _ in range(random.randrange(6)):
                    await asyncio.sleep(0)
                exchange.cancel()
                try:
                    assert await exchange == payload
                    done += 1
                except asyncio.CancelledError:
                    await conn.close()
                    conn = await gtcp.aio.connect(address)
            await conn.close()
            return done

        async with gtcp.aio.Server("127.0.0.1:0", serve) as server:
            address = str(server.get_listened_address())
            counts = await asyncio.gather(*[client(i, address) for i in range(4)])
            assert 0 < sum(counts) < 4 * rounds

    run(main(), 60)


def test_receives_cancelled_at_random(run: Run) -> None:
    """One stream of numbered units, received in every way and cancelled at any time: each comes once, in order."""
    count = 2000

    async def main() -> None:
        async with linked() as (conn, far):
            rng = random.Random(8)
            wire = b"".join(frame(str(i).encode() * rng.choice([1, 3, 5000]), 3) for i in range(count))
            sending = asyncio.ensure_future(asyncio.to_thread(drip, far, wire))
            option = gtcp.PkgOption(3)
            at = 0
            while at < count:
                last = at >= count - 2
                one = last or rng.random() < 0.7
                task = asyncio.ensure_future(conn.recv_pkg(option) if one else conn.recv_pkgs(2, option))
                for _ in range(rng.randrange(4)):
                    await asyncio.sleep(0)
                if not last and rng.random() < 0.5:
                    task.cancel()
                try:
                    got = await task
                except asyncio.CancelledError:
                    continue
                for package in got if isinstance(got, list) else [got]:
                    assert package.startswith(str(at).encode())
                    at += 1
            await sending
            assert conn.buffered == 0

    run(main(), 60)


def drip(far: socket.socket, wire: bytes) -> None:
    rng = random.Random(9)
    at = 0
    while at < len(wire):
        n = rng.choice([1, 2, 10, 1000, 20_000])
        far.sendall(wire[at : at + n])
        at += n


@pytest.mark.parametrize("name", RECEIVES)
def test_what_came_just_before_the_cancellation_stays_with_the_connection(run: Run, name: str) -> None:
    receive, wire, value = RECEIVES[name]

    async def main() -> None:
        async with linked() as (conn, far):
            came = asyncio.Event()
            call = receive(conn)
            # As a task drives it that is cancelled between its waking and its next step.
            call.send(None).add_done_callback(lambda _: came.set())
            far.sendall(wire)
            await came.wait()
            with pytest.raises(asyncio.CancelledError):
                call.throw(asyncio.CancelledError())
            assert await receive(conn) == value
            assert conn.buffered == 0

    run(main())
