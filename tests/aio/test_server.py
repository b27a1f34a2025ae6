"""gtcp.aio.Server: its life, its handlers, what ends them, accept errors."""

import asyncio
import errno
import logging
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

import gtcp
import gtcp.aio
from aio.conftest import Run
from support.aio import begun, until
from support.timing import LONG, SHORT, quick, takes

HERE = "127.0.0.1:0"


async def echo(conn: gtcp.aio.Conn) -> None:
    async for package in conn.packages():
        await conn.send_pkg(package)


async def handlers_have_ended(server: gtcp.aio.Server) -> None:
    while server.connections:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def forever(conn: gtcp.aio.Conn) -> None:
    await asyncio.sleep(1000)


def test_serves_many_and_closes(run: Run) -> None:
    async def main() -> None:
        async with gtcp.aio.Server(HERE, echo) as server:
            address = server.get_listened_address()
            assert repr(server) == f"<gtcp.aio.Server {address}>"
            assert server.get_listened_port() == address.port  # type: ignore[union-attr]

            async def client(number: int) -> None:
                async with gtcp.aio.connect(address) as conn:  # type: ignore[arg-type]
                    for i in range(20):
                        data = f"{number}-{i}".encode()
                        assert await conn.send_recv_pkg(data) == data

            await asyncio.gather(*[client(i) for i in range(50)])
        assert repr(server) == "<gtcp.aio.Server not listening>"
        assert server.get_listened_port() == -1
        with pytest.raises(gtcp.RefusedError):
            await gtcp.aio.connect(address)  # type: ignore[arg-type]

    run(main())


def test_F10_F12_run_returns_after_close(run: Run) -> None:
    async def main() -> None:
        server = gtcp.aio.Server(HERE, echo)
        running = await begun(server.run())
        with pytest.raises(RuntimeError, match="running already"):
            await server.start()
        async with gtcp.aio.connect(server.get_listened_address()) as conn:  # type: ignore[arg-type]
            assert await conn.send_recv_pkg(b"x") == b"x"
            await server.close()
            assert await running is None
            with pytest.raises(gtcp.EOF):
                await conn.recv(1)
        await server.close()
        # And once more, at the same place.
        server.set_address(HERE)
        async with server:
            assert await gtcp.aio.send_recv_pkg(str(server.get_listened_address()), b"again") == b"again"

    run(main())


def test_F15_serve_forever_ends_with_its_task(run: Run) -> None:
    async def main() -> None:
        server = gtcp.aio.Server(HERE, forever)
        serving = await begun(server.serve_forever())
        async with gtcp.aio.connect(server.get_listened_address()) as conn:  # type: ignore[arg-type]
            await asyncio.sleep(0.001)
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            with pytest.raises(gtcp.EOF):
                await conn.recv(1)
        assert server.get_listened_port() == -1

    run(main())


def test_F13_start_says_what_is_wrong(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="no handler"):
            await gtcp.aio.Server(HERE).start()
        async with gtcp.aio.Server(HERE, echo) as server:
            with pytest.raises(gtcp.SocketError) as used:
                await gtcp.aio.Server(server.get_listened_address(), echo).start()  # type: ignore[arg-type]
            assert used.value.errno == errno.EADDRINUSE
            with pytest.raises(gtcp.ResolveError):
                await gtcp.aio.Server("no.such.name.invalid:1", echo).start()

    run(main())


def test_a_name_can_be_listened_on(run: Run) -> None:
    async def main() -> None:
        async with gtcp.aio.Server("localhost:0", echo) as server:
            address = ("localhost", server.get_listened_port())
            assert await gtcp.aio.send_recv_pkg(address, b"x", timeout=LONG) == b"x"

    run(main())


def test_F11_shutdown_lets_handlers_finish(run: Run) -> None:
    async def main() -> None:
        asked = asyncio.Event()
        done = []

        async def slow(conn: gtcp.aio.Conn) -> None:
            await conn.recv_pkg()
            asked.set()
            await asyncio.sleep(SHORT)
            await conn.send_pkg(b"done")
            done.append(conn)

        server = gtcp.aio.Server(HERE, slow)
        await server.start()
        async with gtcp.aio.connect(server.get_listened_address()) as conn:  # type: ignore[arg-type]
            await conn.send_pkg(b"go")
            await asked.wait()
            assert await server.shutdown(LONG) == 0
            assert len(done) == 1
            assert await conn.recv_pkg() == b"done"

    run(main())


def test_F11_shutdown_cuts_what_does_not_finish(run: Run) -> None:
    async def main() -> None:
        ended: list[BaseException] = []

        async def stubborn(conn: gtcp.aio.Conn) -> None:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError as error:
                ended.append(error)
                raise

        server = gtcp.aio.Server(HERE, stubborn)
        await server.start()
        address = server.get_listened_address()
        conns = [await gtcp.aio.connect(address) for _ in range(3)]  # type: ignore[arg-type]
        await asyncio.sleep(SHORT / 10)
        with takes(SHORT):
            assert await asyncio.gather(*(server.shutdown(SHORT) for _ in range(3))) == [3, 3, 3]
        assert len(ended) == server.stats().cut == 3
        for conn in conns:
            with pytest.raises(gtcp.EOF):
                await conn.recv(1)
            await conn.close()

    run(main())


def test_F12_a_handler_may_close_its_server(run: Run) -> None:
    async def main() -> None:
        async def handler(conn: gtcp.aio.Conn) -> None:
            await server.close()
            await conn.send_pkg(b"closed")

        server = gtcp.aio.Server(HERE, handler)
        running = await begun(server.run())
        async with gtcp.aio.connect(server.get_listened_address()) as conn:  # type: ignore[arg-type]
            assert await conn.recv_pkg() == b"closed"
        await running

    run(main())


@pytest.mark.parametrize("error", [ValueError("mine"), gtcp.ClosedError("mine")])
def test_F5_a_failing_handler_is_logged_once_and_ends_its_connection(
    run: Run, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def main() -> None:
        async def handler(conn: gtcp.aio.Conn) -> None:
            if await conn.recv_pkg() == b"fail":
                raise error
            await conn.send_pkg(b"fine")

        async with gtcp.aio.Server(HERE, handler) as server:
            address = server.get_listened_address()
            for _ in range(2):
                async with gtcp.aio.connect(address) as conn:  # type: ignore[arg-type]
                    await conn.send_pkg(b"fail")
                    with pytest.raises(gtcp.EOF):
                        await conn.recv(1)
            assert await gtcp.aio.send_recv_pkg(str(address), b"next") == b"fine"

    with caplog.at_level(logging.WARNING):
        run(main())
    ours = [record for record in caplog.records if record.name == "gtcp"]
    assert len(ours) == 2
    assert all(record.exc_info and record.exc_info[1] is error for record in ours)


def test_F5_F7_the_end_of_a_connection_is_no_failure(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async def handler(conn: gtcp.aio.Conn) -> None:
            while True:
                await conn.send_pkg(await conn.recv_pkg())

        async with gtcp.aio.Server(HERE, handler) as server:
            address = str(server.get_listened_address())
            assert await gtcp.aio.send_recv_pkg(address, b"x") == b"x"
            await handlers_have_ended(server)
            assert not [record for record in caplog.records if record.name == "gtcp"]
            await gtcp.aio.send(address, b"\0\5cut")
            await asyncio.sleep(SHORT / 10)
            await handlers_have_ended(server)

    run(main())
    (logged,) = [record for record in caplog.records if record.name == "gtcp"]
    assert "closed in the middle" in logged.message


def test_F7_a_detached_connection_is_the_handlers_business(run: Run) -> None:
    async def main() -> None:
        taken: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()

        async def handler(conn: gtcp.aio.Conn) -> None:
            assert await conn.recv(1) == b"x"
            taken.set_result(conn.detach())

        async with gtcp.aio.Server(HERE, handler) as server, gtcp.aio.Conn(str(server.get_listened_address())) as conn:
            await conn.send(b"x")
            with await taken as sock:
                assert sock.gettimeout() == 0
                await asyncio.get_running_loop().sock_sendall(sock, b"mine")
                assert await conn.recv(4) == b"mine"

    run(main())


def test_F1_out_of_descriptors(run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The listener rests, says so once, and goes on by itself."""
    accepts = 0
    real = socket.socket.accept

    def accept(listener: socket.socket) -> Any:
        nonlocal accepts
        accepts += 1
        if 1 < accepts < 8:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(listener)

    async def main() -> None:
        monkeypatch.setattr(socket.socket, "accept", accept)
        async with gtcp.aio.Server(HERE, echo) as server:
            address = str(server.get_listened_address())
            for _ in range(5):
                assert await gtcp.aio.send_recv_pkg(address, b"x", timeout=LONG) == b"x"
        assert accepts < 40

    run(main())
    assert len([record for record in caplog.records if "cannot accept" in record.message]) == 1


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.EINTR])
def test_F2_errors_of_connections_that_were_not_accepted(
    run: Run, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    failures = 5
    real = socket.socket.accept

    def accept(listener: socket.socket) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError(number, "not this one")
        return real(listener)

    async def main() -> None:
        monkeypatch.setattr(socket.socket, "accept", accept)
        async with gtcp.aio.Server(HERE, echo) as server:
            assert await gtcp.aio.send_recv_pkg(str(server.get_listened_address()), b"x") == b"x"

    run(main())


def test_a_server_by_name(run: Run) -> None:
    async def main() -> None:
        server = gtcp.aio.get_server("aio-test")
        assert gtcp.aio.get_server("aio-test") is server
        with pytest.raises(ValueError, match="named"):
            gtcp.aio.Server(name="aio-test")
        server.set_address(HERE)
        server.set_handler(echo)
        async with server:
            assert await gtcp.aio.send_recv_pkg(str(server.get_listened_address()), b"x") == b"x"
        assert gtcp.aio.get_server("aio-test") is not server
        await gtcp.aio.get_server("aio-test").close()

    run(main())


def test_F10_close_is_quick_with_many_connections(run: Run) -> None:
    async def main() -> None:
        async with gtcp.aio.Server(HERE, forever) as server:
            address = server.get_listened_address()
            conns = [await gtcp.aio.connect(address) for _ in range(100)]  # type: ignore[arg-type]
            with quick(5 * SHORT):
                await server.close()
            for conn in conns:
                await conn.close()

    run(main())


def test_F14_more_than_max_connections_wait(run: Run) -> None:
    async def main() -> None:
        async with gtcp.aio.Server(HERE, echo, max_connections=1) as server:
            first, second = [await gtcp.aio.connect(str(server.get_listened_address())) for _ in range(2)]
            async with first, second:
                assert await first.send_recv_pkg(b"1", timeout=LONG) == b"1"
                with pytest.raises(gtcp.Timeout):
                    await second.send_recv_pkg(b"2", timeout=SHORT)
                assert len(server.connections) == 1
                await first.close()
                assert await second.recv_pkg(timeout=LONG) == b"2"

    run(main())


@pytest.mark.parametrize("limit", ["idle_timeout", "first_byte_timeout"])
def test_F8_limits_end_who_says_nothing(run: Run, caplog: pytest.LogCaptureFixture, limit: str) -> None:
    async def main() -> None:
        async with gtcp.aio.Server(HERE, echo, **{limit: 2 * SHORT}) as server:  # type: ignore[arg-type]
            async with gtcp.aio.connect(str(server.get_listened_address())) as conn:
                with pytest.raises(gtcp.EOF):
                    await conn.recv_pkg(timeout=LONG)
            await handlers_have_ended(server)

    run(main())
    assert [record for record in caplog.records if record.name == "gtcp"] == []


def test_F11_shutdown_ends_the_idle_at_once_and_lets_the_others_finish(run: Run) -> None:
    async def main() -> None:
        async with gtcp.aio.Server(HERE, echo) as server:
            address = str(server.get_listened_address())
            async with gtcp.aio.connect(address) as idle, gtcp.aio.connect(address) as busy:
                for conn in (idle, busy):
                    assert await conn.send_recv_pkg(b"x", timeout=LONG) == b"x"
                await busy.send(b"\0\5ab")
                while not any(conn.buffered for conn in server.connections):  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                stopping = await begun(server.shutdown(LONG))
                with quick(), pytest.raises(gtcp.EOF):
                    await idle.recv_pkg(timeout=LONG)
                await busy.send(b"cde")
                assert await busy.recv_pkg(timeout=LONG) == b"abcde"
                with pytest.raises(gtcp.EOF):
                    await busy.recv_pkg(timeout=LONG)
                assert await stopping == 0

    run(main())


def test_unix_sockets(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        address = f"unix://{tmp_path}/s"
        async with gtcp.aio.Server(address, echo) as server, gtcp.aio.connect(address) as conn:
            assert str(server.get_listened_address()) == address
            assert await conn.send_recv_pkg(b"x", timeout=LONG) == b"x"
        assert not (tmp_path / "s").exists()

    run(main())


@pytest.mark.parametrize("end", ["close", "shutdown"])
def test_F10_a_connection_accepted_in_the_turn_of_the_end(run: Run, end: str) -> None:
    """Its task never begins; it is closed and told of nevertheless."""

    async def main() -> None:
        told: list[BaseException | None] = []
        server = gtcp.aio.Server(HERE, forever, on_close=lambda conn, error: told.append(error))
        await server.start()
        with socket.create_connection(("127.0.0.1", server.get_listened_port()), LONG) as sock:
            service: Any = server._service
            service.acceptor._accept()
            assert len(server.connections) == 1
            await (server.close() if end == "close" else server.shutdown(0))
            assert server.connections == []
            assert [type(error) for error in told] == [asyncio.CancelledError]
            assert sock.recv(1) == b""
        assert server.stats().connections == 0

    run(main())


def test_F11_F12_handlers_that_shut_down_do_not_wait_for_each_other(run: Run) -> None:
    async def main() -> None:
        cut: list[int] = []

        async def handler(conn: gtcp.aio.Conn) -> None:
            await conn.recv_pkg()
            cut.append(await server.shutdown())
            await conn.send_pkg(b"bye")

        server = gtcp.aio.Server(HERE, handler)
        running = await begun(server.run())
        address = str(server.get_listened_address())
        async with gtcp.aio.connect(address) as one, gtcp.aio.connect(address) as other:
            for conn in (one, other):
                await conn.send_pkg(b"end")
            for conn in (one, other):
                assert await conn.recv_pkg(timeout=LONG) == b"bye"
        await running
        assert cut == [0, 0]

    run(main())


def test_F11_close_ends_a_shutdown_that_waits(run: Run) -> None:
    async def main() -> None:
        server = gtcp.aio.Server(HERE, forever)
        await server.start()
        async with gtcp.aio.connect(str(server.get_listened_address())) as conn:
            await until(lambda: server.connections)
            stopping = await begun(server.shutdown())
            await server.close()
            assert await stopping == 0
            with pytest.raises(gtcp.EOF):
                await conn.recv(1, timeout=LONG)

    run(main())


def test_F12_a_run_ends_apart_from_the_next_one(run: Run) -> None:
    """A handler that takes its time with its end holds up the close, and that not the next start."""

    async def main() -> None:
        go_on = asyncio.Event()

        async def slow(conn: gtcp.aio.Conn) -> None:
            try:
                await forever(conn)
            finally:
                await go_on.wait()

        server = gtcp.aio.Server(HERE, slow)
        await server.start()
        async with gtcp.aio.connect(str(server.get_listened_address())):
            await until(lambda: server.connections)
            closing = await begun(server.close())
            server.set_handler(echo)
            running = await begun(server.run())
            async with gtcp.aio.connect(str(server.get_listened_address())) as conn:
                assert await conn.send_recv_pkg(b"x", timeout=LONG) == b"x"
                go_on.set()
                await closing
                assert await conn.send_recv_pkg(b"y", timeout=LONG) == b"y"
                assert not running.done()
        await server.close()
        await running

    run(main())


def test_F12_close_while_a_start_looks_its_name_up(run: Run) -> None:
    async def main() -> None:
        server = gtcp.aio.Server("localhost:0", echo)
        running = await begun(server.run())
        assert server.get_listened_port() == -1
        await server.close()
        await running
        assert server.get_listened_port() == -1

    run(main())


def test_F2_a_listening_socket_that_is_none_ends_run(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        server = gtcp.aio.Server(HERE, forever)
        running = await begun(server.run())
        async with gtcp.aio.connect(str(server.get_listened_address())) as conn:
            await until(lambda: server.connections)
            service: Any = server._service
            service.acceptor._listener.refuse()  # accept gives EINVAL from now on
            await asyncio.wait_for(running, LONG)
            with pytest.raises(gtcp.EOF):
                await conn.recv(1, timeout=LONG)
        assert server.get_listened_port() == -1
        await server.start()
        await server.close()

    run(main())
    (record,) = caplog.records
    assert "ended" in record.getMessage()


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt])
def test_F6_a_handler_ends_the_program_as_any_task(
    run: Run, caplog: pytest.LogCaptureFixture, raised: type[BaseException]
) -> None:
    """asyncio's rule: these two leave `asyncio.run`. The connection is closed, and told of."""
    told: list[type[BaseException]] = []

    async def handler(conn: gtcp.aio.Conn) -> None:
        raise raised

    async def main() -> None:
        server = gtcp.aio.Server(HERE, handler, on_close=lambda conn, error: told.append(type(error)))
        async with server, gtcp.aio.connect(str(server.get_listened_address())) as conn:
            await conn.recv(1, timeout=LONG)

    with pytest.raises(raised):
        run(main())
    assert told == [raised]
    assert [record for record in caplog.records if record.name == "gtcp"] == []


@pytest.mark.parametrize("name", ["on_close", "on_error"])
def test_F6_a_callback_ends_the_program_as_any_task(run: Run, caplog: pytest.LogCaptureFixture, name: str) -> None:
    servers: list[gtcp.aio.Server] = []

    async def handler(conn: gtcp.aio.Conn) -> None:
        if name == "on_error":
            raise ZeroDivisionError

    def leave(*arguments: object) -> None:
        raise SystemExit

    async def main() -> None:
        server = gtcp.aio.Server(HERE, handler, **{name: leave})  # type: ignore[arg-type]
        servers.append(server)
        async with server, gtcp.aio.connect(str(server.get_listened_address())) as conn:
            await conn.recv(1, timeout=LONG)
            await forever(conn)

    with pytest.raises(SystemExit):
        run(main())
    assert servers[0].connections == []
    assert not any("failed" in record.message and name in record.message for record in caplog.records)


def test_F9_a_client_that_never_reads_holds_its_handler_up_and_nobody_else(run: Run) -> None:
    async def main() -> None:
        async def handler(conn: gtcp.aio.Conn) -> None:
            if await conn.recv_pkg() == b"much":
                await conn.send(bytes(64 << 20))
            await conn.send_pkg(b"little")

        async with gtcp.aio.Server(HERE, handler, send_timeout=2 * SHORT) as server:
            address = str(server.get_listened_address())
            async with gtcp.aio.connect(address) as deaf:
                await deaf.send_pkg(b"much")
                assert await gtcp.aio.send_recv_pkg(address, b"x", timeout=LONG) == b"little"
                await until(lambda: server.stats().timeouts["send_timeout"] == 1)
                await until(lambda: not server.connections)

    run(main())


@pytest.mark.parametrize("end", ["close", "shutdown"])
def test_F11_a_handler_that_swallows_its_cancellation_does_not_hold_up_the_end(run: Run, end: str) -> None:
    """As `asyncio.wait_for` does before Python 3.12 with one that comes together with a package."""

    async def main() -> None:
        async def handler(conn: gtcp.aio.Conn) -> None:
            while True:
                try:
                    await conn.recv_pkg()
                except asyncio.CancelledError:
                    heard.set()

        heard = asyncio.Event()
        told: list[BaseException | None] = []
        server = gtcp.aio.Server(HERE, handler, on_close=lambda conn, error: told.append(error))
        running = await begun(server.run())
        async with gtcp.aio.connect(str(server.get_listened_address())) as conn:
            await conn.send(b"\0")  # half a unit: it is at work
            await until(lambda: any(each.buffered for each in server.connections))
            with quick():
                await (server.close() if end == "close" else server.shutdown(0))
                await running
            assert heard.is_set()
            assert [type(error) for error in told] == [gtcp.ClosedError]
            with pytest.raises(gtcp.EOF):
                await conn.recv(1, timeout=LONG)

    run(main())


def test_F11_a_handler_that_is_slow_to_end_holds_up_the_end_for_a_second(run: Run) -> None:
    async def main() -> None:
        done = asyncio.Event()

        async def handler(conn: gtcp.aio.Conn) -> None:
            try:
                await forever(conn)
            finally:
                await done.wait()

        server = gtcp.aio.Server(HERE, handler)
        running = await begun(server.run())
        async with gtcp.aio.connect(str(server.get_listened_address())) as conn:
            await until(lambda: server.connections)
            with takes(1.0):
                assert await server.shutdown(0) == 1
            await running
            with pytest.raises(gtcp.EOF):
                await conn.recv(1, timeout=LONG)
        done.set()
        await until(lambda: not server.connections)

    run(main())


@pytest.mark.parametrize("way", ["directly", "by wait_for", "after a rest"])
def test_F11_a_cancelled_handler_may_say_goodbye(run: Run, way: str) -> None:
    async def main() -> None:
        async def handler(conn: gtcp.aio.Conn) -> None:
            receiving = conn.recv_pkg()
            try:
                await (asyncio.wait_for(receiving, LONG) if way == "by wait_for" else receiving)
            finally:
                if way == "after a rest":
                    await asyncio.sleep(0.001)
                await conn.send_pkg(b"bye")

        server = gtcp.aio.Server(HERE, handler)
        await server.start()
        async with gtcp.aio.connect(str(server.get_listened_address())) as conn:
            await until(lambda: server.connections and server.connections[0]._activity()[0])
            await server.close()
            assert await conn.recv_pkg(timeout=LONG) == b"bye"

    run(main())


def test_F10_a_server_that_ends_amid_its_accepting(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """As a handler does that an eager task begins at once (Python 3.12)."""

    async def main() -> None:
        errors: list[BaseException] = []

        def make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
            service._stop_accepting()
            return asyncio.Task(coroutine, loop=loop, **options)

        server = gtcp.aio.Server(HERE, forever, on_error=lambda conn, error: errors.append(error))
        await server.start()
        service: Any = server._service
        loop = asyncio.get_running_loop()
        with socket.create_connection(("127.0.0.1", server.get_listened_port()), LONG):
            loop.set_task_factory(make_task)
            await until(lambda: service.ending)
            loop.set_task_factory(None)
            await server.close()
        assert errors == []

    run(main())
    assert [record for record in caplog.records if record.name == "gtcp"] == []


@pytest.mark.skipif(sys.version_info < (3, 11), reason="who was cancelled is not known")
def test_F5_a_handler_that_waits_for_what_was_cancelled_has_failed(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async def handler(conn: gtcp.aio.Conn) -> None:
            task = asyncio.ensure_future(forever(conn))
            task.cancel()
            await task

        async with gtcp.aio.Server(HERE, handler) as server:
            async with gtcp.aio.connect(str(server.get_listened_address())) as conn:
                with pytest.raises(gtcp.EOF):
                    await conn.recv(1, timeout=LONG)
            assert server.stats().failed == 1

    run(main())
    (record,) = [record for record in caplog.records if record.name == "gtcp"]
    assert "failed" in record.message


def test_F11_run_ends_with_the_last_handler_when_the_shutdown_was_cancelled(run: Run) -> None:
    async def main() -> None:
        go_on = asyncio.Event()

        async def handler(conn: gtcp.aio.Conn) -> None:
            await go_on.wait()

        server = gtcp.aio.Server(HERE, handler)
        running = await begun(server.serve_forever())
        async with gtcp.aio.connect(str(server.get_listened_address())):
            await until(lambda: server.connections)
            stopping = await begun(server.shutdown())
            stopping.cancel()
            await asyncio.wait([stopping])
            assert stopping.cancelled()
            assert not running.done()
            go_on.set()
            await asyncio.wait_for(running, LONG)

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there are no groups of exceptions")
def test_F5_F7_the_end_of_a_connection_in_a_task_group_is_no_failure(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async def answer(conn: gtcp.aio.Conn) -> None:
            while True:
                await conn.send_pkg(await conn.recv_pkg())

        async def handler(conn: gtcp.aio.Conn) -> None:
            async with asyncio.TaskGroup() as outer:
                outer.create_task(forever(conn))
                async with asyncio.TaskGroup() as inner:
                    inner.create_task(answer(conn))

        async with gtcp.aio.Server(HERE, handler) as server:
            address = str(server.get_listened_address())
            assert await gtcp.aio.send_recv_pkg(address, b"x") == b"x"
            await handlers_have_ended(server)
            async with gtcp.aio.connect(address) as conn:
                assert await conn.send_recv_pkg(b"x") == b"x"
                assert await server.shutdown(LONG) == 0
            assert server.stats().failed == 0

    run(main())
    assert [record for record in caplog.records if record.name == "gtcp"] == []


def test_F5_a_plain_function_is_no_handler(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    def handler(conn: gtcp.aio.Conn) -> None:
        pass

    async def main() -> None:
        server = gtcp.aio.Server(HERE, handler)  # type: ignore[arg-type]
        async with server, gtcp.aio.connect(str(server.get_listened_address())) as conn:
            with pytest.raises(gtcp.EOF):
                await conn.recv(1, timeout=LONG)

    run(main())
    (record,) = [record for record in caplog.records if record.name == "gtcp"]
    assert record.exc_info is not None
    assert "the handler must answer an awaitable, as `async def` does, not NoneType" in str(record.exc_info[1])
