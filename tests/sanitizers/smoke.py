"""A little of everything, for tools that slow a program down fifty times."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import gtcp
import gtcp.aio
from support.tls import Authority

WIDE = gtcp.PkgOption(4)


def echo(conn: gtcp.Conn) -> None:
    for package in conn.packages(WIDE):
        conn.send_pkg(package, WIDE)


def threads() -> None:
    with gtcp.Server("127.0.0.1:0", echo) as server:
        there = ("127.0.0.1", server.get_listened_port())
        with gtcp.Conn(there) as conn:
            for size in (0, 1, 1000, 20_000, 100_000):
                assert conn.send_recv_pkg(bytes(size), WIDE) == bytes(size)
            many = [bytes(i) for i in range(100)]
            assert conn.send_recv_pkgs(many, WIDE) == many
            conn.send_pkgs([b"line\n", b"till--"], WIDE)
            assert conn.recv_line() == b"\0\0\0\5line"
            assert conn.recv_till(b"--") == b"\0\0\0\6till--"
            with contextlib.suppress(gtcp.Timeout):
                conn.recv(1, timeout=0.01)
        with gtcp.Pool(there, max_size=2) as pool:
            for _ in range(10):
                with pool.acquire() as lease, contextlib.suppress(gtcp.Timeout):
                    lease.send_recv_pkg(b"hello", WIDE, timeout=0.0001 if _ % 2 else 10.0)
            with contextlib.suppress(gtcp.LimitError), pool.acquire() as lease:
                lease.send_pkg(bytes(70_000))
    with contextlib.suppress(gtcp.RefusedError):
        gtcp.Conn(there)


def tls() -> None:
    authority = Authority()
    ours = authority.client()
    with gtcp.Server("127.0.0.1:0", echo, tls=authority.server()) as server:
        there = ("127.0.0.1", server.get_listened_port())
        with gtcp.Pool(there, tls=ours) as pool:
            for size in (1, 1000, 100_000):
                with pool.acquire() as lease:
                    assert lease.send_recv_pkg(bytes(size), WIDE) == bytes(size)
        with gtcp.Conn(there, tls=ours) as conn:
            many = [bytes(i) for i in range(20)]
            assert conn.send_recv_pkgs(many, WIDE) == many
            conn.close_write()
            with contextlib.suppress(gtcp.EOF):
                conn.recv(1)
        with contextlib.suppress(gtcp.Error):
            gtcp.Conn(there, tls=True)


def tasks() -> None:
    async def main() -> None:
        with gtcp.Server("127.0.0.1:0", echo) as server:
            there = ("127.0.0.1", server.get_listened_port())
            async with gtcp.aio.Pool(there, max_size=2) as pool:

                async def ask(size: int) -> None:
                    async with pool.acquire() as lease:
                        assert await lease.send_recv_pkg(bytes(size), WIDE) == bytes(size)

                await asyncio.gather(*map(ask, (0, 1, 1000, 20_000, 100_000)))
            async with gtcp.aio.connect(there) as conn:
                many = [bytes(i) for i in range(20)]
                assert await conn.send_recv_pkgs(many, WIDE) == many
                receiving = asyncio.create_task(asyncio.wait_for(conn.recv(1), 0.05))
                with contextlib.suppress(asyncio.TimeoutError):
                    await receiving

    asyncio.run(main())


def greenlets() -> None:
    def main(handler: Callable[[gtcp.Conn], object]) -> None:
        with gtcp.Server("127.0.0.1:0", handler, concurrency="greenlets") as server:
            there = ("127.0.0.1", server.get_listened_port())
            with gtcp.Pool(there, max_size=2) as pool:

                def ask(size: int) -> None:
                    with pool.acquire() as lease:
                        assert lease.send_recv_pkg(bytes(size), WIDE) == bytes(size)

                for fiber in [gtcp.spawn(ask, size) for size in (0, 1, 1000, 20_000, 100_000)]:
                    fiber.get(10)

    def answer(package: bytes) -> bytes:
        gtcp.sleep(0)  # and takes the stack along that it was lent
        return package

    gtcp.run(main, echo)
    gtcp.run(main, gtcp.pkg_handler(answer, WIDE))


def main() -> None:
    warnings.simplefilter("error")
    logging.getLogger("gtcp").setLevel(logging.CRITICAL + 1)
    for ways in (threads, tls, tasks, greenlets):
        ways()
        print(f"smoke: {ways.__name__} done")
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            thread.join(60)  # what CPython holds for one that ends with the process would count as lost


if __name__ == "__main__":
    main()
