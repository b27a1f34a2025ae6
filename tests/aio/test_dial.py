"""Dialling in a loop: refused, deaf, several addresses, names, one time limit for all of it."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import gtcp
import gtcp.aio
from aio.conftest import Run
from support.aio import begun
from support.peers import closed_address, deaf_address, echo
from support.timing import LONG, SHORT, eventually, quick, takes


def test_dial_gives_a_socket(run: Run, peer: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with await gtcp.aio.dial(peer(echo).address) as sock:
            assert sock.gettimeout() == 0
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await loop.sock_sendall(sock, b"x")
            assert await loop.sock_recv(sock, 1) == b"x"

    run(main())


def test_A1_refused(run: Run) -> None:
    async def main() -> None:
        with closed_address() as address, pytest.raises(gtcp.RefusedError):
            await gtcp.aio.dial(address)

    run(main())


def test_A2_deaf(run: Run) -> None:
    async def main() -> None:
        with deaf_address() as address, takes(SHORT), pytest.raises(gtcp.Timeout, match="connecting"):
            await gtcp.aio.connect(address, SHORT)

    run(main())


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str, answer: threading.Event | None = None) -> None:
    """Let every name have these addresses, when the event happens."""
    real = socket.getaddrinfo

    def lookup(host: Any, *rest: Any) -> Any:
        if rest[-1] & socket.AI_NUMERICHOST:
            return real(host, *rest)
        if answer is not None:
            answer.wait(LONG)
        found = []
        for address in addresses:
            there, _, number = address.rpartition(":")
            found += real(there.strip("[]"), int(number), 0, socket.SOCK_STREAM)
        return found

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


@pytest.fixture
def answer() -> Iterator[threading.Event]:
    """What lookups wait for; no thread of theirs is left."""
    answer = threading.Event()
    yield answer
    answer.set()
    eventually(lambda: all(thread.name != "gtcp-resolver" for thread in threading.enumerate()))


def test_A3_one_of_several_addresses_answers(run: Run, peer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with deaf_address() as deaf, closed_address() as closed:
            resolving(monkeypatch, closed, deaf, deaf, peer(echo).address)
            with takes(0.4, LONG):  # two pauses of 250 ms, less what the clock's grain takes
                async with gtcp.aio.connect("a.name:1", LONG) as conn:
                    assert await conn.send_recv(b"x", 1) == b"x"

    run(main())


def test_A3_one_time_limit_for_all(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with deaf_address() as deaf:
            resolving(monkeypatch, deaf, deaf, deaf)
            with takes(3 * SHORT), pytest.raises(gtcp.Timeout):
                await gtcp.aio.connect("a.name:1", 3 * SHORT)

    run(main())


def test_A5_a_slow_resolver_holds_up_nobody(run: Run, monkeypatch: pytest.MonkeyPatch, answer: threading.Event) -> None:
    async def main() -> None:
        resolving(monkeypatch, "127.0.0.1:1", answer=answer)
        dialling = await begun(gtcp.aio.dial("a.name:1", SHORT))
        ticks = 0
        while not dialling.done():
            await asyncio.sleep(0.001)
            ticks += 1
        assert ticks > 10
        with pytest.raises(gtcp.Timeout, match="resolving"):
            await dialling

    with quick(LONG / 2):  # the end of the loop does not wait either
        run(main())


def test_A5_a_slow_resolver_leaves_the_executor_to_others(
    run: Run, monkeypatch: pytest.MonkeyPatch, answer: threading.Event
) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        resolving(monkeypatch, "127.0.0.1:1", answer=answer)
        dialling = await begun(gtcp.aio.dial("a.name:1", LONG))
        await asyncio.wait_for(asyncio.to_thread(threading.get_ident), LONG / 2)
        assert not dialling.done()
        dialling.cancel()
        await asyncio.wait([dialling])

    run(main())


def test_A5_one_lookup_serves_all_who_wait(
    run: Run, peer: Any, monkeypatch: pytest.MonkeyPatch, answer: threading.Event
) -> None:
    async def main() -> None:
        resolving(monkeypatch, peer(echo).address, answer=answer)
        dials = [await begun(gtcp.aio.dial("a.name:1", LONG)) for _ in range(3)]
        dials[0].cancel()
        await asyncio.wait([dials[0]])
        answer.set()
        for dial in dials[1:]:
            (await dial).close()

    run(main())


def test_A5_no_such_name(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(gtcp.ResolveError):
            await gtcp.aio.connect("no.such.name.invalid:1")

    run(main())
