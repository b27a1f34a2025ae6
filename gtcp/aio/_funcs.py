"""One call each: dial, do one thing, close."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gtcp import _core
from gtcp._address import Address, AddressLike
from gtcp._dial import earlier
from gtcp._errors import SocketError
from gtcp._options import PkgOption, Retry
from gtcp.aio._conn import Conn

if TYPE_CHECKING:
    from typing_extensions import Buffer

_DIAL_TIMEOUT = 30.0


async def send(
    addr: AddressLike | Address, data: Buffer, retry: Retry | None = None, *, timeout: float | None = None
) -> None:
    """Dials, sends `data`, closes; arguments and errors as those of `gtcp.send`."""
    deadline = _core.to_deadline(timeout)
    async with await _open(addr, retry, deadline) as conn:
        await conn.send(data, retry, timeout=_core.remaining(deadline))


async def send_recv(
    addr: AddressLike | Address,
    data: Buffer,
    length: int = -1,
    retry: Retry | None = None,
    *,
    timeout: float | None = None,
) -> bytes:
    """Dials, sends `data`, receives as `Conn.recv(length)` does, closes. Else as `send`."""
    deadline = _core.to_deadline(timeout)
    async with await _open(addr, retry, deadline) as conn:
        return await conn.send_recv(data, length, retry, timeout=_core.remaining(deadline))


async def send_pkg(
    addr: AddressLike | Address, data: Buffer, option: PkgOption | None = None, *, timeout: float | None = None
) -> None:
    """Dials, sends one package, closes. Else as `send`, with the retry of the option."""
    deadline = _core.to_deadline(timeout)
    async with await _open(addr, None if option is None else option.retry, deadline) as conn:
        await conn.send_pkg(data, option, timeout=_core.remaining(deadline))


async def send_recv_pkg(
    addr: AddressLike | Address, data: Buffer, option: PkgOption | None = None, *, timeout: float | None = None
) -> bytes:
    """Dials, sends one package, receives one, closes. Else as `send_pkg`."""
    deadline = _core.to_deadline(timeout)
    async with await _open(addr, None if option is None else option.retry, deadline) as conn:
        return await conn.send_recv_pkg(data, option, timeout=_core.remaining(deadline))


async def send_with_timeout(
    addr: AddressLike | Address, data: Buffer, timeout: float | None, retry: Retry | None = None
) -> None:
    """`send(addr, data, retry, timeout=timeout)`."""
    await send(addr, data, retry, timeout=timeout)


async def send_recv_with_timeout(
    addr: AddressLike | Address, data: Buffer, length: int, timeout: float | None, retry: Retry | None = None
) -> bytes:
    """`send_recv(addr, data, length, retry, timeout=timeout)`."""
    return await send_recv(addr, data, length, retry, timeout=timeout)


async def send_pkg_with_timeout(
    addr: AddressLike | Address, data: Buffer, timeout: float | None, option: PkgOption | None = None
) -> None:
    """`send_pkg(addr, data, option, timeout=timeout)`."""
    await send_pkg(addr, data, option, timeout=timeout)


async def send_recv_pkg_with_timeout(
    addr: AddressLike | Address, data: Buffer, timeout: float | None, option: PkgOption | None = None
) -> bytes:
    """`send_recv_pkg(addr, data, option, timeout=timeout)`."""
    return await send_recv_pkg(addr, data, option, timeout=timeout)


async def _open(addr: AddressLike | Address, retry: Retry | None, deadline: float | None) -> Conn:
    """A connection; a dial that fails is tried again as the policy says, since nothing has been sent yet."""
    attempt = 0
    while True:
        try:
            return await Conn(addr, _core.remaining(earlier(deadline, _core.to_deadline(_DIAL_TIMEOUT))))
        except SocketError:
            if retry is None or attempt >= retry.count:
                raise
            wait = retry.wait(attempt)
            if deadline is not None and wait >= _core.remaining(deadline):
                raise
            await asyncio.sleep(wait)
            attempt += 1
