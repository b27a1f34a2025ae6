"""gtcp.aio.Server: what it tells by callbacks and numbers, with the names and the meaning of gtcp.Server."""

import asyncio
import errno
import functools
import socket
from typing import Any

import pytest

import gtcp
import gtcp.aio
from aio.conftest import Run
from support.timing import LONG, SHORT

HERE = "127.0.0.1:0"


class Told:
    """What the callbacks were told, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bool, type[BaseException] | None]] = []
        self.news = asyncio.Event()

    def on_close(self, conn: gtcp.aio.Conn, error: BaseException | None) -> None:
        self._note("close", conn, error)

    def on_error(self, conn: gtcp.aio.Conn | None, error: BaseException) -> None:
        self._note("error", conn, error)

    def _note(self, name: str, conn: gtcp.aio.Conn | None, error: BaseException | None) -> None:
        self.calls.append((name, conn is not None and conn.closed, None if error is None else type(error)))
        self.news.set()

    async def wait(self, count: int) -> None:
        while len(self.calls) < count:
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), LONG)


async def ended(address: Any) -> None:
    async with gtcp.aio.connect(address) as conn:
        with pytest.raises(gtcp.EOF):
            await conn.recv(1, timeout=LONG)


def test_refused_served_and_failed(run: Run) -> None:
    async def handler(conn: gtcp.aio.Conn) -> None:
        if await conn.recv_pkg() == b"fail":
            raise ZeroDivisionError

    async def main() -> None:
        told = Told()
        welcome = iter([False, None, True])
        async with gtcp.aio.Server(
            HERE, handler, on_connect=lambda conn: next(welcome), on_close=told.on_close, on_error=told.on_error
        ) as server:
            address = server.get_listened_address()
            await ended(address)
            await told.wait(1)
            for request in (b"fine", b"fail"):
                async with gtcp.aio.connect(address) as conn:  # type: ignore[arg-type]
                    await conn.send_pkg(request)
                    with pytest.raises(gtcp.EOF):
                        await conn.recv(1, timeout=LONG)
                await told.wait(2)
            await told.wait(4)
            stats = server.stats()
        assert told.calls == [
            ("close", True, None),
            ("close", True, None),
            ("error", False, ZeroDivisionError),
            ("close", True, ZeroDivisionError),
        ]
        assert (stats.connections, stats.accepted, stats.refused, stats.failed) == (0, 3, 1, 1)

    run(main())


def test_a_limit_and_a_cut(run: Run) -> None:
    async def main() -> None:
        told, stays = Told(), asyncio.Event()

        async def handler(conn: gtcp.aio.Conn) -> None:
            await conn.recv_pkg()
            stays.set()
            await asyncio.sleep(1000)

        server = gtcp.aio.Server(HERE, handler, first_byte_timeout=SHORT, on_close=told.on_close)
        await server.start()
        address = server.get_listened_address()
        await ended(address)
        await told.wait(1)
        async with gtcp.aio.connect(address) as conn:  # type: ignore[arg-type]
            await conn.send_pkg(b"stay")
            await asyncio.wait_for(stays.wait(), LONG)
            assert server.stats().connections == 1
            assert await server.shutdown(SHORT) == 1
        assert told.calls == [("close", True, gtcp.ClosedError), ("close", True, asyncio.CancelledError)]
        stats = server.stats()
        assert (stats.cut, stats.failed, stats.connections) == (1, 0, 0)
        assert stats.timeouts == {"first_byte_timeout": 1, "idle_timeout": 0, "send_timeout": 0}

    run(main())


def test_a_callback_that_fails_is_logged(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(conn: gtcp.aio.Conn) -> None:
        await conn.send(b"done")

    def fail(conn: gtcp.aio.Conn, error: BaseException | None) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        async with gtcp.aio.Server(HERE, handler, on_close=fail) as server:
            for _ in range(2):
                async with gtcp.aio.connect(server.get_listened_address()) as conn:  # type: ignore[arg-type]
                    assert await conn.recv(4, timeout=LONG) == b"done"

    run(main())
    assert [record.message for record in caplog.records] == ["on_close failed"] * 2


def test_accepting_that_fails_is_told_without_a_connection(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket.accept
    failing = [True]

    def accept(listener: socket.socket) -> Any:
        if failing and failing.pop():
            raise OSError(errno.EMFILE, "Too many open files")
        return real(listener)

    async def handler(conn: gtcp.aio.Conn) -> None:
        await conn.send(b"done")

    async def main() -> None:
        told = Told()
        monkeypatch.setattr(socket.socket, "accept", accept)
        async with gtcp.aio.Server(HERE, handler, on_error=told.on_error) as server:
            async with gtcp.aio.connect(server.get_listened_address()) as conn:  # type: ignore[arg-type]
                assert await conn.recv(4, timeout=LONG) == b"done"
            assert told.calls == [("error", False, OSError)]

    run(main())


@pytest.mark.parametrize("name", ["on_connect", "on_close", "on_error"])
def test_callbacks_are_plain_functions(name: str) -> None:
    async def hook(*arguments: object) -> None:
        pass

    class Hook:
        async def __call__(self, *arguments: object) -> None:
            pass

    for each in (hook, functools.partial(hook, 1), Hook()):
        with pytest.raises(TypeError, match="must be a plain function"):
            gtcp.aio.Server(HERE, **{name: each})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=f"{name} must be a function, not int"):
        gtcp.aio.Server(HERE, **{name: 1})  # type: ignore[arg-type]
