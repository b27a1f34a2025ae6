"""From an address to a connected socket: the same attempts as `gtcp.dial` makes, while the loop goes on."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Iterable

from gtcp import _core
from gtcp._address import Address, AddressLike, parse
from gtcp._dial import Dialer, SocketOption, earlier, is_over
from gtcp._errors import Timeout
from gtcp._resolve import Target, lookups, numeric


async def dial(addr: AddressLike | Address, timeout: float | None = 30.0) -> socket.socket:
    """A connected non-blocking socket, TCP with TCP_NODELAY and keepalive on; arguments and errors as `gtcp.dial`."""
    address = parse(addr)
    return await connect(address, _core.to_deadline(timeout))


async def connect(address: Address, deadline: float | None, options: Iterable[SocketOption] = ()) -> socket.socket:
    """The same for a parsed address and a `time.monotonic()` deadline."""
    dialer = Dialer(await resolve(address, deadline), address, options)
    try:
        while (sock := dialer.step()) is None:
            dialer.ready = await _writable(dialer.pending, earlier(dialer.next_start, deadline))
            if not dialer.ready and is_over(deadline):
                raise Timeout(f"timed out while connecting to {address}")
        return sock
    finally:
        dialer.close()


async def resolve(address: Address, deadline: float | None) -> list[Target]:
    """The targets of an address. A name is looked up in a thread of gtcp's; nobody waits for it after the deadline."""
    if (targets := numeric(address)) is not None:
        return targets
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def note() -> None:
        if not done.done():
            done.set_result(None)

    def tell() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(note)

    lookup = lookups.join(address.host, address.port, tell)
    try:
        while not done.done():
            if is_over(deadline):
                raise Timeout(f"timed out while resolving {address.host!r}")
            await asyncio.wait({done}, timeout=_core.remaining(deadline))
    finally:
        done.cancel()
        lookups.leave(lookup, tell)
    return lookup.result()


async def _writable(fds: Iterable[int], until: float | None) -> list[int]:
    """Those of the sockets that are ready to be written to; none when the moment came first."""
    loop = asyncio.get_running_loop()
    change: asyncio.Future[None] = loop.create_future()
    watched = list(fds)
    ready: set[int] = set()

    def note(*writable: int) -> None:
        ready.update(writable)
        if not change.done():
            change.set_result(None)

    for fd in watched:
        loop.add_writer(fd, note, fd)
    timer = None if until is None else loop.call_later(whole_milliseconds(until), note)
    try:
        await change
    finally:
        for fd in watched:
            loop.remove_writer(fd)
        if timer is not None:
            timer.cancel()
    return list(ready)


def whole_milliseconds(until: float) -> float:
    """Seconds until the moment, rounded up to what every loop can keep."""
    return math.ceil(_core.remaining(until) * 1000) / 1000
