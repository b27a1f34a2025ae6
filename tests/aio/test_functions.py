"""The package functions, and what importing costs."""

import asyncio
import subprocess
import sys
from typing import Any

import pytest

import gtcp
import gtcp.aio
from aio.conftest import Run
from support.peers import closed_address, deaf_address, echo, silent
from support.timing import SHORT, takes


def test_one_call_each(run: Run, peer: Any) -> None:
    async def main() -> None:
        address = peer(echo).address
        await gtcp.aio.send(address, b"x")
        await gtcp.aio.send_pkg(address, b"x")
        assert await gtcp.aio.send_recv(address, b"x", 1) == b"x"
        assert await gtcp.aio.send_recv_pkg(address, b"hello", gtcp.PkgOption(4)) == b"hello"
        await gtcp.aio.send_with_timeout(address, b"x", 5)
        await gtcp.aio.send_pkg_with_timeout(address, b"x", 5)
        assert await gtcp.aio.send_recv_with_timeout(address, b"hello", 5, 5) == b"hello"
        assert await gtcp.aio.send_recv_pkg_with_timeout(address, b"hello", 5) == b"hello"

    run(main())


def test_the_timeout_is_for_all_of_it(run: Run, peer: Any) -> None:
    async def main() -> None:
        with takes(SHORT), pytest.raises(gtcp.Timeout):
            await gtcp.aio.send_recv(peer(silent).address, b"x", timeout=SHORT)
        with deaf_address() as deaf, takes(SHORT), pytest.raises(gtcp.Timeout):
            await gtcp.aio.send_pkg(deaf, b"x", timeout=SHORT)

    run(main())


def test_a_refused_dial_is_tried_again(run: Run) -> None:
    async def main() -> None:
        with closed_address() as address, takes(SHORT), pytest.raises(gtcp.RefusedError):
            await gtcp.aio.send(address, b"x", gtcp.Retry(2, SHORT / 2))

    run(main())


def test_importing_gtcp_imports_neither_asyncio_nor_ssl() -> None:
    program = "import gtcp, sys; sys.exit(bool({'asyncio', 'ssl'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_forms_with_a_timeout_in_front(run: Run, peer: Any) -> None:
    async def main() -> None:
        async with gtcp.aio.connect(peer(echo).address) as conn:
            await conn.send_with_timeout(b"a", 5)
            assert await conn.recv_with_timeout(1, 5) == b"a"
            assert await conn.send_recv_with_timeout(b"b", 1, 5) == b"b"
            await conn.send_pkg_with_timeout(b"c", 5)
            assert await conn.recv_pkg_with_timeout(5) == b"c"
            assert await asyncio.gather(conn.send_recv_pkg_with_timeout(b"d", 5)) == [b"d"]

    run(main())
