"""The shared pools of each event loop: what `PoolConn(addr)` uses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gtcp._address import Address, AddressLike, parse
from gtcp._shared import Shared
from gtcp.aio._lease import serve
from gtcp.aio._loops import home_of
from gtcp.aio._pool import Pool

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gtcp.aio._pooloptions import PoolOptions


def get_pool(addr: AddressLike | Address, **options: Unpack[PoolOptions]) -> Pool:
    """The running loop's shared pool of an address, made with `options` (those of Pool) when there is none yet.

    This is the pool that `PoolConn(addr)` uses. ValueError when the pool exists with other options, naming them;
    RuntimeError outside of a loop.
    """
    pool = _shared().get(parse(addr), dict(options))
    pool._implicit = False
    return pool


def pools() -> list[Pool]:
    """The shared pools of the running loop that are open."""
    return _shared().open()


def _shared() -> Shared[Pool]:
    home = home_of(asyncio.get_running_loop())
    if home.shared is None:
        home.shared = Shared(_made_here)
    shared: Shared[Pool] = home.shared
    return shared


def _made_here(address: Address, **options: Any) -> Pool:
    """A pool that serves the running loop and no other from the beginning."""
    _shared().forget_unused()
    pool = Pool(address, **options)
    pool._enter_loop()
    return pool


def _find(address: Address, tls: object, server_hostname: str | None) -> Pool:
    """What PoolConn asks."""
    named = {"tls": tls or None, "server_hostname": server_hostname}
    return _shared().get(address, {name: value for name, value in named.items() if value is not None})


serve(_find)
