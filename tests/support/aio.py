"""The asyncio face in tests: connections whose other end the test holds, tasks that wait."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import gtcp.aio
from support.peers import listen, read
from support.timing import LONG

T = TypeVar("T")


@asynccontextmanager
async def linked(*, receive_buffer: int | None = None) -> AsyncIterator[tuple[gtcp.aio.Conn, socket.socket]]:
    """A connection and the socket at its other end, which takes `receive_buffer` bytes unread."""
    with listen(receive_buffer=receive_buffer) as listener:
        host, port = listener.getsockname()
        async with gtcp.aio.connect((host, port), LONG) as conn:
            far, _ = listener.accept()
            with far:
                far.settimeout(LONG)
                yield conn, far


async def begun(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that has gone as far as it can without waiting."""
    task = asyncio.get_running_loop().create_task(coroutine)
    for _ in range(3):
        await asyncio.sleep(0)
    return task


async def until(condition: Callable[[], object]) -> None:
    """Waits, while the loop goes on, for what no event tells of."""
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end, condition
        await asyncio.sleep(0.001)


async def far_read(far: socket.socket, size: int) -> bytes:
    """Exactly so many bytes from the other end, while the loop goes on."""
    return await asyncio.to_thread(read, far, size)
